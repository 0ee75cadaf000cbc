"""Exec plugins for credentials: run with a time limit, with bounded output, and without a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.client.kubeconfig import KubeconfigEntry
from reconciler.client.network import excerpt
from reconciler.errors import ConfigurationError

TIME_LIMIT = 60.0
"""Seconds after which a plugin is killed, together with the processes in its group."""

_LONGEST_OUTPUT = 2**20
"""Bytes that a plugin may print, to standard output and to standard error each."""

_KILL_TIMEOUT = 5.0

_GROUP = "client.authentication.k8s.io/"
_CLUSTER_INFO = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
_VERSIONS = (f"{_GROUP}v1", f"{_GROUP}v1beta1", f"{_GROUP}v1alpha1")


async def run_plugin(user: KubeconfigEntry, cluster: KubeconfigEntry) -> Mapping[str, Any]:
    """Run a user's plugin, and return the ``status`` of the ExecCredential that it prints.

    Cancellation kills the plugin.

    Args:
        user: the user with the plugin.
        cluster: described to the plugin if its entry requests that (``provideClusterInfo``).

    Raises:
        ConfigurationError: the plugin cannot run, fails, takes too long, or prints something else. Its standard error
            is quoted with possible secrets hidden; its standard output never is.
    """
    config = user.value["exec"]
    version, command = config.get("apiVersion") or "", config.get("command") or ""
    if version not in _VERSIONS:
        raise ConfigurationError(f"exec: apiVersion must be one of {', '.join(_VERSIONS)}")
    if not command:
        raise ConfigurationError("exec: the command is missing")
    if config.get("interactiveMode") == "Always":
        raise ConfigurationError(
            "exec: the plugin needs a terminal (interactiveMode: Always), which this process lacks"
        )
    # As in client-go: a command with a slash is a path, relative to the folder of the kubeconfig.
    if os.sep in command and not Path(command).is_absolute():
        command = str(user.folder / command)
    output = await _output([command, *(config.get("args") or ())], _environment(config, version, cluster), config)
    return _status(output, version)


def _environment(config: Mapping[str, Any], version: str, cluster: KubeconfigEntry) -> dict[str, str]:
    spec: JSONObject = {"interactive": False}
    if config.get("provideClusterInfo"):
        spec["cluster"] = {key: cluster.value[key] for key in _CLUSTER_INFO if cluster.value.get(key)}
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    given = {one["name"]: one.get("value") or "" for one in config.get("env") or ()}
    return {**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(info)}


async def _output(command: list[str], environment: dict[str, str], config: Mapping[str, Any]) -> bytes:
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
        hint = excerpt(config.get("installHint") or "")
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


def _status(output: bytes, version: str) -> Mapping[str, Any]:
    try:
        document = msgspec.json.decode(output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigurationError("exec: the output of the plugin is not JSON") from None
    if not isinstance(document, dict) or document.get("kind") != "ExecCredential":
        raise ConfigurationError("exec: the output of the plugin is not an ExecCredential")
    if document.get("apiVersion") != version:
        raise ConfigurationError(f"exec: the apiVersion of the plugin's output is not {version}")
    status = document.get("status")
    fields = ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
    if not isinstance(status, dict) or not all(isinstance(status.get(name), (str, type(None))) for name in fields):
        raise ConfigurationError("exec: the ExecCredential of the plugin has no valid status")
    return status
