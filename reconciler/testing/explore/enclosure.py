"""A closed world for one process of a program: namespaces of its own, with no way out but to its own server.

On Linux, without root where user namespaces are allowed. In it there is a loopback device and nothing else; the sockets
that listen there are served by this process. The in-cluster files are in place, names of Services resolve, unix sockets
of the machine are hidden, and the program has no capability with which it could undo any of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import ConfigurationError

_NAMESPACES = ("unshare", "-Ur", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_INIT = Path(__file__).with_name("enclosure_init.py")
_ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
_MOST_SOCKETS = 250
"""Linux passes 253 descriptors in one message at most."""
_FIRST_ADDRESS = ipaddress.IPv4Address("127.64.0.1")


def missing_for_enclosure() -> str:
    """Return why programs cannot be enclosed on this machine, in one line; ``""`` if they can."""
    if sys.platform != "linux":
        return "a closed world needs Linux"
    if shutil.which(_NAMESPACES[0]) is None:
        return "a closed world needs the command 'unshare' of util-linux"
    tried = subprocess.run([*_NAMESPACES, "true"], capture_output=True, check=False)  # noqa: S603
    if tried.returncode == 0:
        return ""
    said = tried.stderr.decode(errors="replace").strip().splitlines()
    return (
        f"user namespaces are not allowed here ({said[-1] if said else 'unshare failed'}): set the sysctls "
        "kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0 where they exist, or "
        "let the container create namespaces"
    )


@dataclass(frozen=True)
class ClusterAccess:
    """What a program in a cluster finds: the address of the server, and the files of its service account.

    Attributes:
        port: the port of the server on 127.0.0.1.
        token: the bearer token.
        authority: the PEM certificate of the server's CA.
        namespace: the namespace of the program.
    """

    port: int
    token: str
    authority: str
    namespace: str = "default"

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of an in-cluster configuration."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self.port),
            "KUBERNETES_PORT": f"tcp://127.0.0.1:{self.port}",
        }

    @property
    def files(self) -> dict[str, str]:
        """Return the files of the service account by their paths."""
        contents = {"token": self.token, "ca.crt": self.authority, "namespace": self.namespace}
        return {f"{_ACCOUNT}/{name}": text for name, text in contents.items()}


class HostNames:
    """Names of Services and pods, each with a loopback address of its own, in a file that is an ``/etc/hosts``.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._addresses: dict[str, str] = {}
        path.write_text(f"127.0.0.1 localhost {' '.join(_spellings('kubernetes.default'))}\n", encoding="ascii")

    def address(self, name: str) -> str:
        """Return the address of a name, such as ``"queue.prod"``, and write it to the file if it is new."""
        found = self._addresses.get(name)
        if found is None:
            found = self._addresses[name] = str(_FIRST_ADDRESS + len(self._addresses))
            with self.path.open("a", encoding="ascii") as file:
                file.write(f"{found} {' '.join(_spellings(name))}\n")
        return found


def _spellings(name: str) -> list[str]:
    """Return how a program in the cluster may write the name of a Service or pod."""
    return [name + end for end in ("", ".svc", ".svc.cluster.local")]


class Enclosure:
    """The namespaces of one process of a program.

    Args:
        access: what the program finds of the cluster.
        names: the names that it can resolve; those that are added later as well. Other files of the namespaces are
            written beside theirs.
        listen: the addresses and ports, besides that of the server, on which somebody listens. Default: none.

    Attributes:
        descriptor: the descriptor that the process inherits.
    """

    def __init__(self, access: ClusterAccess, names: HostNames, listen: Sequence[tuple[str, int]] = ()) -> None:
        self._access = access
        self._hosts = names.path
        self._listen = listen
        self._ours, self._theirs = socket.socketpair()
        self.descriptor = self._theirs.fileno()

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs a command in the namespaces."""
        resolver, plan_file = self._hosts.with_name("resolv.conf"), self._hosts.with_name("enclosure.json")
        resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", encoding="ascii")
        plan = {
            "control": self.descriptor,
            "listen": [("127.0.0.1", self._access.port), *self._listen],
            "hidden": _unix_sockets(),
            "empty": ["/run", *(["/var/run"] if not Path("/var/run").is_symlink() else [])],
            "bound": {"/etc/hosts": str(self._hosts), "/etc/resolv.conf": str(resolver)},
            "files": self._access.files,
        }
        plan_file.touch(mode=0o600)  # it holds the token
        plan_file.write_text(json.dumps(plan), encoding="utf-8")
        return [*_NAMESPACES, sys.executable, "-I", "-S", str(_INIT), str(plan_file), *command]

    async def open(self, serve: Callable[[Sequence[socket.socket]], Awaitable[None]]) -> None:
        """Serve the sockets of the namespaces, and start the program in them. Cancellation does not start it.

        Args:
            serve: serves the listening sockets, that of the server first, and closes them some time.

        Raises:
            ConfigurationError: the namespaces cannot be set up.
        """
        self._theirs.close()
        try:
            said, descriptors = await asyncio.to_thread(self._received)
            if not descriptors:
                problem = said.decode(errors="replace") or "their first process ended"
                raise ConfigurationError(f"the namespaces of the closed world cannot be set up: {problem}")
            await serve([socket.socket(fileno=each) for each in descriptors])
            self._ours.send(b"!")
        finally:
            self._ours.close()

    def close(self) -> None:
        """Stop waiting for the sockets; harmless if they have come."""
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)

    def _received(self) -> tuple[bytes, list[int]]:
        said, descriptors, _, _ = socket.recv_fds(self._ours, 1024, _MOST_SOCKETS)
        return said, list(descriptors)


def _unix_sockets() -> list[str]:
    """Return the unix sockets of this machine that have a path, which a network namespace does not hide."""
    table = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {fields[7] for fields in (line.split(maxsplit=7) for line in table) if len(fields) > 7}
    return sorted(path for path in paths if path.startswith("/") and not path.startswith(("/run/", "/var/run/")))
