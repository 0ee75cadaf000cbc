"""Real receivers: an HTTP server with scripted misbehavior, with or without TLS, and a mail server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trustme
from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

Behaviour = Callable[["Receiver", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Received:
    """One request as it was received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def own_address() -> str:
    """Return the address of an interface of this machine; a loopback address if it has no other."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"


@dataclass
class Receiver:
    """A hand-written HTTP/1.1 server, since a library would not misbehave."""

    requests: list[Received] = field(default_factory=list)
    behaviours: list[Behaviour] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}/hook/T0P5ECRET"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode().strip().split("\r\n")
                method, path, _ = first.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append(Received(method, path, headers, body))
                number = min(len(self.requests), len(self.behaviours)) - 1
                await (self.behaviours[number] if self.behaviours else answer(200))(self, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # asyncio's server reports a handler that was cancelled as a fault
        finally:
            writer.close()


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    async def behave(_: Receiver, writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body)
        await writer.drain()

    return behave


def stall(seconds: float = 60) -> Behaviour:
    async def behave(_: Receiver, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)

    return behave


def reset() -> Behaviour:
    async def behave(_: Receiver, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        raise ConnectionResetError

    return behave


def endless(status: int = 500) -> Behaviour:
    """Send a body that never ends."""

    async def behave(_: Receiver, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 1000000000\r\n\r\n".encode())
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    return behave


def slow(status: int = 500) -> Behaviour:
    """Send a body very slowly."""

    async def behave(_: Receiver, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 1000\r\n\r\n".encode())
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    return behave


def garbage() -> Behaviour:
    async def behave(_: Receiver, writer: asyncio.StreamWriter) -> None:
        writer.write(b"what?\r\n\r\n")
        await writer.drain()

    return behave


@asynccontextmanager
async def receiver(*behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    made = Receiver(behaviours=list(behaviours), scheme="https" if tls else "http")
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in asyncio.all_tasks():
            if "Receiver.serve" in repr(task.get_coro()):
                task.cancel()
        await asyncio.sleep(0)


def server_context(ca: trustme.CA, name: str = "localhost", **options: object) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(name, **options).configure_cert(context)  # type: ignore[arg-type]
    return context


@dataclass
class MailServer:
    """The emails that a mail server got, and what it rejects."""

    port: int = 0
    mails: list[Envelope] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    password: str = "hunter2!"
    refuse: dict[str, str] = field(default_factory=dict)  # by the verb, or the recipient

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if "DATA" in self.refuse:
            return self.refuse["DATA"]
        self.mails.append(envelope)
        return "250 OK"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password.decode() == self.password)


@asynccontextmanager
async def mail_server(tls: ssl.SSLContext | None) -> AsyncIterator[MailServer]:
    made = MailServer()
    controller = UnthreadedController(
        made,
        hostname="127.0.0.1",
        port=0,
        loop=asyncio.get_running_loop(),
        tls_context=tls,
        require_starttls=tls is not None,
        authenticator=made.authenticate,
        auth_required=tls is not None,
    )
    server = await controller._create_server()
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await asyncio.sleep(0)
