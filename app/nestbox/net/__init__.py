"""The only place with sockets: TCP, WebSocket, the PROXY header and TLS."""
