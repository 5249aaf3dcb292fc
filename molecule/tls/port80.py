"""Stands for HAProxy on port 80: `port80.py PORT` answers each request with what 127.0.0.1:PORT answers, else 503."""

import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Forward(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}{self.path}", timeout=5) as answer:
                status, body = answer.status, answer.read()
        except OSError:
            status, body = 503, b"nobody there"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("", 80), Forward).serve_forever()
