"""The first process of an enclosure: it prepares the namespaces, opens the sockets, and runs the program.

It is run as a script by an interpreter of its own, inside the new namespaces, and imports the standard library only.
Its first argument is a JSON file, the plan; the command of the program follows.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from types import FrameType
from typing import Any

_MS_BIND = 0x1000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITIES = 64
"""More than there are; those that do not exist are not dropped."""
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0) -> None:
    """Mount a file system, or bind a file.

    Raises:
        OSError: the kernel refuses it.
    """
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def write_files(files: dict[str, str]) -> None:
    """Write files below new, empty file systems."""
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")


def prepare(plan: dict[str, Any]) -> None:
    """Bring up the loopback device, and lay the plan's files over those of the machine.

    Raises:
        OSError: the kernel refuses it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH", b"lo", _IFF_UP))
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0", encoding="ascii")
    for path in plan["hidden"]:
        if Path(path).exists():
            mount("/dev/null", path, "none", _MS_BIND)
    for path in plan["empty"]:
        mount("tmpfs", path, "tmpfs")
    for path, source in plan["bound"].items():
        mount(source, path, "none", _MS_BIND)
    write_files(plan["files"])


def open_sockets(plan: dict[str, Any], control: socket.socket) -> None:
    """Listen on the addresses of the plan, hand the sockets over, and wait until they are served.

    A socket belongs to the network namespace in which it was opened; any process may accept its connections.
    """
    opened = [socket.create_server((address, port), backlog=1024) for address, port in plan["listen"]]
    socket.send_fds(control, [b"sockets"], [each.fileno() for each in opened])
    for each in opened:
        each.close()
    if not control.recv(1):
        sys.exit(1)  # the one that waits for the sockets has ended


def give_up_rights() -> None:
    """Let the program have no capability: it cannot undo a mount, or set up the network."""
    for capability in range(_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def run(command: list[str]) -> int:
    """Run the program, pass signals on to it, and return its exit code, as a shell does."""
    child = os.fork()
    if not child:
        give_up_rights()
        try:
            os.execvp(command[0], command)  # noqa: S606 - the user's command, as written
        except OSError as error:
            sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
            sys.stderr.flush()
            os._exit(127)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    while True:  # it is the parent of all processes whose parents have ended
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def main() -> int:
    """Prepare the namespaces, and run the program in them."""
    plan, command = json.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2:]
    control = socket.socket(fileno=int(plan["control"]))
    try:
        prepare(plan)
        open_sockets(plan, control)
    except OSError as error:
        control.send(f"{error.strerror}: {error.filename or 'the network'}".encode())
        return 1
    control.close()
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
