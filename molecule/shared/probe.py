"""Run inside a unit's sandbox by conftest.sandbox(): prints as JSON what a program that got in there could do."""

import contextlib
import ctypes
import json
import mmap
import os
import socket
import tempfile


def works(attempt) -> bool:
    try:
        attempt()
    except (OSError, ValueError):
        return False
    return True


def write(folder: str) -> None:
    path = f"{folder}/nestbox-intruder"
    with open(path, "x"):
        os.unlink(path)


def open_socket(family: str) -> None:
    socket.socket(getattr(socket, f"AF_{family}"), kinds.get(family, socket.SOCK_STREAM)).close()


def make_suid() -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        os.chmod(file.name, 0o4755)


def new_user_namespace() -> None:
    if ctypes.CDLL(None).unshare(0x10000000):
        raise OSError


with open("/proc/self/status") as file:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
with open("/proc/self/net/dev") as file:
    interfaces = [line.split(":")[0].strip() for line in file if ":" in line]
kinds = {"NETLINK": socket.SOCK_RAW, "PACKET": socket.SOCK_RAW, "ALG": socket.SOCK_SEQPACKET}
families = ("UNIX", "INET", "INET6", "NETLINK", "PACKET", "VSOCK", "ALG")
folders = ("/etc", "/usr", "/boot", "/home", "/root", "/var/lib", "/opt", "/run")
strangers = []
for number in filter(str.isdigit, os.listdir("/proc")):
    with contextlib.suppress(OSError):
        if os.stat(f"/proc/{number}").st_uid != os.geteuid() and int(number) != os.getpid():
            strangers.append(int(number))

print(
    json.dumps(
        {
            "uid": os.geteuid(),
            "writable": [folder for folder in folders if works(lambda folder=folder: write(folder))],
            "strangers": strangers,
            "families": [family for family in families if works(lambda family=family: open_socket(family))],
            "interfaces": interfaces,
            "no_new_privs": status["NoNewPrivs"] == "1",
            "seccomp": status["Seccomp"] == "2",
            "capabilities": int(status["CapBnd"], 16),
            "namespaces": works(new_user_namespace),
            "suid": works(make_suid),
            "writable_code": works(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)),
        }
    )
)
