"""Credentials of a cluster: from a kubeconfig, an exec plugin or a pod's service account, and their renewal."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.client.kubeconfig import ExecPlugin, KubeconfigCluster, KubeconfigEntry, KubeconfigUser, Secretive
from reconciler.client.pool import MAX_REQUESTS, excerpt, proxy_from_environment
from reconciler.clock import boottime_of, current_clock
from reconciler.errors import ConfigurationError

TIME_LIMIT = 60.0
"""Seconds after which a plugin is killed, together with the processes in its group."""

_LONGEST_OUTPUT = 2**20
"""Bytes that a plugin may print, to standard output and to standard error each."""

_KILL_TIMEOUT = 5.0

_GROUP = "client.authentication.k8s.io/"
_CLUSTER_INFO = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
_VERSIONS = (f"{_GROUP}v1", f"{_GROUP}v1beta1", f"{_GROUP}v1alpha1")


async def run_plugin(plugin: ExecPlugin, folder: Path, cluster: KubeconfigCluster) -> _ExecStatus:
    """Run a plugin, and return the ``status`` of the ExecCredential that it prints.

    Cancellation kills the plugin.

    Args:
        plugin: the plugin.
        folder: of the kubeconfig.
        cluster: described to the plugin if its entry requests that (``provideClusterInfo``).

    Raises:
        ConfigurationError: the plugin cannot run, fails, takes too long, or prints something else. Its standard error
            is quoted with possible secrets hidden; its standard output never is.
    """
    version, command = plugin.api_version or "", plugin.command or ""
    if version not in _VERSIONS:
        raise ConfigurationError(f"exec: apiVersion must be one of {', '.join(_VERSIONS)}")
    if not command:
        raise ConfigurationError("exec: the command is missing")
    if plugin.interactive_mode == "Always":
        raise ConfigurationError(
            "exec: the plugin needs a terminal (interactiveMode: Always), which this process lacks"
        )
    # As in client-go: a command with a slash is a path, relative to the folder of the kubeconfig.
    if os.sep in command and not Path(command).is_absolute():
        command = str(folder / command)
    spec: JSONObject = {"interactive": False}
    if plugin.provide_cluster_info:
        known = msgspec.to_builtins(cluster)
        spec["cluster"] = {key: known[key] for key in _CLUSTER_INFO if known[key]}
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    given = {variable.name or "": variable.value or "" for variable in plugin.env or ()}
    environment = {**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    output = await _output([command, *(plugin.args or ())], environment, plugin.install_hint or "")
    return _status(output, version)


async def _output(command: list[str], environment: dict[str, str], install_hint: str) -> bytes:
    creation = asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # so that its children can be killed with it
    )
    starting = asyncio.create_task(creation)
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:  # asyncio would kill the process without its children
        with contextlib.suppress(OSError, ValueError):
            await _kill(await starting, ())
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid command"
        hint = excerpt(install_hint)
        raise ConfigurationError(f"exec: {command[0]}: {reason}{f'. {hint}' if hint else ''}") from None
    assert process.stdout is not None  # noqa: S101 - see above
    assert process.stderr is not None  # noqa: S101 - see above
    reads = [asyncio.create_task(_read(stream)) for stream in (process.stdout, process.stderr)]
    try:
        async with asyncio.timeout(TIME_LIMIT):
            output, complaint = await asyncio.gather(*reads)
            code = await process.wait()
    except TimeoutError:
        await _kill(process, reads)
        raise ConfigurationError(f"exec: {command[0]} did not end within {TIME_LIMIT:g} s and was killed") from None
    except BaseException:
        await _kill(process, reads)
        raise
    if code:
        said = excerpt(complaint.decode(errors="replace"))
        raise ConfigurationError(f"exec: process returned {code}{f'. {said}' if said else ''}")
    return output


async def _read(stream: asyncio.StreamReader) -> bytes:
    parts, size = [], 0
    while part := await stream.read(2**16):
        parts.append(part)
        size += len(part)
        if size > _LONGEST_OUTPUT:
            raise ConfigurationError(f"exec: the plugin printed more than {_LONGEST_OUTPUT // 2**20} MiB")
    return b"".join(parts)


async def _kill(process: asyncio.subprocess.Process, reads: Sequence[asyncio.Task[bytes]]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    for read in reads:
        read.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    with contextlib.suppress(TimeoutError):  # a process that has left the group may still hold the output
        async with asyncio.timeout(_KILL_TIMEOUT):
            await asyncio.gather(_drain(process.stdout), _drain(process.stderr))
            await process.wait()


async def _drain(stream: asyncio.StreamReader | None) -> None:
    """Read the rest of an output: a pipe with unread data would stay open."""
    while stream is not None and await stream.read(2**16):
        pass


class _ExecStatus(Secretive, frozen=True, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: str | None = None


def _status(output: bytes, version: str) -> _ExecStatus:
    try:
        document = msgspec.json.decode(output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigurationError("exec: the output of the plugin is not JSON") from None
    if not isinstance(document, dict) or document.get("kind") != "ExecCredential":
        raise ConfigurationError("exec: the output of the plugin is not an ExecCredential")
    if document.get("apiVersion") != version:
        raise ConfigurationError(f"exec: the apiVersion of the plugin's output is not {version}")
    try:
        return msgspec.convert(document.get("status"), _ExecStatus)
    except msgspec.ValidationError:
        raise ConfigurationError("exec: the ExecCredential of the plugin has no valid status") from None


class ClusterSettings:
    """The settings that a transport reads; see `reconciler.client.transport.Settings`."""

    def __init__(self) -> None:
        self.host = ""
        self.ssl_ca_cert: str | None = None
        self.cert_file: str | None = None
        self.key_file: str | None = None
        self.verify_ssl = True
        self.tls_server_name: str | None = None
        self.proxy: str | None = None
        self.connection_pool_maxsize = MAX_REQUESTS
        self.api_key: dict[str, str] = {}
        self._files: dict[str, tuple[bytes, Any]] = {}

    async def get_api_key_with_prefix(self, name: str, /) -> str | None:
        """Return the value of the Authorization header for ``"BearerToken"``, None for none."""
        return self.api_key.get(name)

    def load_kubeconfig(self, cluster: KubeconfigCluster, user: KubeconfigUser) -> None:
        """Read a cluster and a user of a kubeconfig, whose paths are absolute.

        Raises:
            OSError: a file cannot be read.
            ConfigurationError: the token is empty or not valid in a header, or the proxy is not valid.
        """
        authorization = _authorization(user)  # first: a failure changes nothing
        self.host = (cluster.server or "").rstrip("/")
        self.ssl_ca_cert = self._file("authority", cluster.certificate_authority, cluster.certificate_authority_data)
        self.cert_file = self._file("certificate", user.client_certificate, user.client_certificate_data)
        self.key_file = self._file("key", user.client_key, user.client_key_data)
        self.verify_ssl = not cluster.insecure_skip_tls_verify
        self.tls_server_name = cluster.tls_server_name
        self.proxy = cluster.proxy_url or proxy_from_environment(self.host)
        self.api_key = {"BearerToken": authorization} if authorization else {}

    def load_service_account(self, folder: Path) -> None:
        """Read the service account of a pod.

        Raises:
            ConfigurationError: a file is missing or empty.
        """
        token, authority = folder / "token", folder / "ca.crt"
        for path, what in ((token, "Token"), (authority, "Cert")):
            if not path.is_file():
                raise ConfigurationError(f"{what} file does not exist: {path}")
            if not path.read_bytes().strip():
                raise ConfigurationError(f"{what} file is empty: {path}")
        bearer = read_token(token)
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        self.host = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self.proxy = proxy_from_environment(self.host)
        self.ssl_ca_cert = str(authority)
        self.api_key = {"BearerToken": f"Bearer {bearer}"}

    def close(self) -> None:
        """Remove the files that were written."""
        for _, file in self._files.values():
            file.close()
        self._files = {}

    def _file(self, what: str, path: str | None, data: str | None) -> str | None:
        """Return the path of a certificate or a key. Inline data is written to a file that only its owner can read.

        The ssl module reads keys from files only.
        """
        if not data:
            return path or None
        content = base64.b64decode(data)
        known, file = self._files.get(what, (b"", None))
        if file is None or known != content:
            if file is not None:
                file.close()
            file = tempfile.NamedTemporaryFile(suffix=".pem")  # noqa: SIM115 - closed with the client
            file.write(content)
            file.flush()
            self._files[what] = (content, file)
        return str(file.name)


def _authorization(user: KubeconfigUser) -> str:
    """Return the Authorization header of a user. A token file takes precedence over a token, and that over a password.

    Raises:
        OSError: the token file cannot be read.
        ConfigurationError: the token is empty, or not valid in a header.
    """
    if user.token_file:
        return f"Bearer {read_token(Path(user.token_file))}"
    if user.token:
        return f"Bearer {checked_token(user.token, 'the token')}"
    if user.username and user.password:
        return "Basic " + base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
    return ""


def read_token(path: Path) -> str:
    """Read the token in a file.

    Raises:
        OSError: the file cannot be read.
        ConfigurationError: the token is empty, or not valid in a header.
    """
    return checked_token(path.read_bytes().decode(errors="replace"), f"the token file {path}")


def checked_token(text: str, subject: str) -> str:
    """Return a token without the white space around it.

    Raises:
        ConfigurationError: the token is empty, or not valid in a header.
    """
    token = text.strip()
    if not token:
        raise ConfigurationError(f"{subject} is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigurationError(f"{subject} contains white space or other characters that are not valid in a token")
    return token


_logger = logging.getLogger("reconciler.client")

_RENEW_BEFORE = 70.0
"""Seconds before its expiry at which a credential is replaced: a little more than the time between two refreshes."""

_RUN_EVERY = 10.0
"""The shortest time in seconds between runs of a plugin that refused requests cause."""


class ExecLogin:
    """The credentials of an exec plugin, which are kept until they expire or are refused.

    As in client-go, a plugin that names no expiry is run again only when its credentials were refused. An expiry is
    measured from the end of the run in boot time, so a step of the wall clock does not move it.

    Attributes:
        user: the user's entry with the token and the certificate; without them before the first run.
    """

    def __init__(self, user: KubeconfigEntry[KubeconfigUser], plugin: ExecPlugin, cluster: KubeconfigCluster) -> None:
        self.user = user.value
        self._plugin = plugin
        self._folder = user.folder
        self._cluster = cluster
        self._has_run = False
        self._refused_at = -math.inf  # when the last run ended that a refused request caused
        self._expires_at = math.inf  # in boot time

    @property
    def expired(self) -> bool:
        """Return whether the plugin's expirationTimestamp has passed."""
        return boottime_of(current_clock())() >= self._expires_at

    async def renew(self, *, refused: bool) -> None:
        """Run the plugin if its credentials expire soon, or if they were refused. A cancelled call kills it."""
        if not refused:
            if not self._has_run or self._expires_soon():
                await self._run()
        elif current_clock().monotonic() - self._refused_at >= _RUN_EVERY:
            try:
                await self._run()
            finally:
                self._refused_at = current_clock().monotonic()

    def _expires_soon(self) -> bool:
        return boottime_of(current_clock())() >= self._expires_at - _RENEW_BEFORE

    async def _run(self) -> None:
        status = await run_plugin(self._plugin, self._folder, self._cluster)
        token, certificate, key = status.token, status.client_certificate_data, status.client_key_data
        if not token and not certificate:
            raise ConfigurationError("exec: the plugin gave neither a token nor a client certificate")
        if bool(certificate) != bool(key):
            raise ConfigurationError("exec: the plugin gave a client certificate or its key, but not both")
        clock, expiry = current_clock(), _time(status.expiration_timestamp)
        left = math.inf if expiry is None else (expiry - clock.now()).total_seconds()
        if left <= 0:
            _logger.warning("exec: the plugin gave an expired credential: check its cache and the clocks")
        data = (base64.b64encode(each.encode()).decode() if each else None for each in (certificate, key))
        given = dict(zip(("token", "client_certificate_data", "client_key_data"), (token, *data), strict=True))
        self.user = msgspec.structs.replace(self.user, **given)
        self._has_run, self._expires_at = True, boottime_of(clock)() + left


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        shown = excerpt(text)
        raise ConfigurationError(f"exec: the plugin gave an invalid expirationTimestamp: {shown!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_REFRESH_EVERY = 60.0
"""Seconds between refreshes of credentials that can change, as in client-go for token files."""

_IN_FLIGHT = 65.0
"""Seconds after a change of the credentials in which a request may be refused that was sent before it."""

_LONGEST = 200


class CredentialRenewer:
    """The renewal of the credentials in settings.

    Tasks of their own renew them. A request waits for one only if the current credentials have expired. A request that
    stops waiting, because its time is up or it is cancelled, leaves the task to the others.

    Args:
        settings: contain the credentials.
        load: reads the files again, and the entries of the login, into the settings.
        scheduled: whether they can change although none was refused.
        login: gets credentials that are not in files. Default: none are needed.

    Attributes:
        certificates: the certificates and the certificate authority of connections. When they change, new connections
            are needed.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        load: Callable[[], None],
        *,
        scheduled: bool,
        login: ExecLogin | None = None,
    ) -> None:
        self._settings = settings
        self._load = load
        self._scheduled = scheduled
        self._login = login
        self._lock = asyncio.Lock()
        self._tasks: dict[bool, asyncio.Task[None]] = {}  # by whether the credentials were refused
        self._refreshed = current_clock().monotonic()
        self._changed_at = -math.inf
        self._failure = ""
        self.certificates = self._read_certificates()

    @property
    def is_due(self) -> bool:
        """Return whether it is time to `refresh`."""
        return self._scheduled and current_clock().monotonic() - self._refreshed >= _REFRESH_EVERY

    async def refresh(self) -> None:
        """Start to refresh the credentials if it is time, and wait for the end if the current ones have expired.

        If that fails, they stay as they are. After cancellation, the task goes on.
        """
        if self.is_due:
            task = self._task(refused=False)
            await asyncio.sleep(0)  # enough to read files
            if self._login is not None and self._login.expired:
                await asyncio.shield(task)

    async def renew(self) -> bool:
        """Read the credentials again because the server refused them, and return whether a request may use others now.

        If many requests are refused at once, one renewal serves all. After cancellation, the task goes on.
        """
        await asyncio.shield(self._task(refused=True))
        return current_clock().monotonic() - self._changed_at < _IN_FLIGHT

    def read_files(self) -> bool:
        """Read the files again, and return whether they changed. If that fails, the credentials stay as they are."""
        before = (dict(self._settings.api_key), self.certificates)
        try:
            self._load()
            self.certificates = self._read_certificates()
        except Exception as error:  # noqa: BLE001 - files have any content
            self._log(error)
        else:
            self._failure = ""
        changed = (self._settings.api_key, self.certificates) != before
        if changed:
            self._changed_at = current_clock().monotonic()
        return changed

    async def close(self) -> None:
        """Stop all tasks and kill running plugins. A cancelled call leaves that to the event loop."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, *, refused: bool) -> asyncio.Task[None]:
        task = self._tasks.get(refused)
        if task is None or task.done():
            task = self._tasks[refused] = asyncio.create_task(self._renew(refused=refused))
        return task

    async def _renew(self, *, refused: bool) -> None:
        async with self._lock:
            if not refused and not self.is_due:
                return
            try:
                if self._login is not None:
                    await self._login.renew(refused=refused)
            except Exception as error:  # noqa: BLE001 - foreign code: plugins
                self._log(error)
            else:
                self.read_files()
            if not refused:
                self._refreshed = current_clock().monotonic()

    def _log(self, error: Exception) -> None:
        """Log a failure; once while it repeats, since files are read for each request that fails."""
        reason = reason_of(error)
        if reason != self._failure:
            _logger.warning("the credentials could not be renewed: %s", reason)
        self._failure = reason

    def _read_certificates(self) -> tuple[bytes, ...]:
        """Read the files; their contents are kept, since the files are rotated in place."""
        paths = (self._settings.ssl_ca_cert, self._settings.cert_file, self._settings.key_file)
        return tuple(Path(path).read_bytes() if path else b"" for path in paths)


def reason_of(error: Exception) -> str:
    """Return why a configuration could not be loaded, in one line and without secrets."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ConfigurationError):
        return " ".join(str(error).split())[:_LONGEST]
    return type(error).__name__
