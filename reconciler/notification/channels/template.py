"""Templates of request bodies, rendered in a process of their own, whose memory and CPU time are limited."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.notification.channel import (
    DeliveryError,
    Message,
    PermanentDeliveryError,
    RetryableDeliveryError,
    message_document,
)
from reconciler.notification.channels import template_process

_INVALID = frozenset({"SyntaxError", "UnknownFilter", "UnknownTest", "UnknownFunction"})
_EXCEEDED = frozenset({-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGPROF, template_process.LIMIT_EXCEEDED})


class _TemplateProcess:
    """A process that renders one template at a time. It is started when needed, and again after a template ended it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="templates")
        self._process: subprocess.Popen[bytes] | None = None

    def render_now(self, **request: Any) -> dict[str, str]:
        """Render the response to a request; see `render`."""
        return self._thread.submit(self._render, request).result()

    async def render(self, **request: Any) -> dict[str, str]:
        """Render the response to a request. Cancellation does not stop the process, which stops by its limits.

        Raises:
            PermanentDeliveryError: the template exceeded the process's memory or CPU time.
            RetryableDeliveryError: the process cannot be started, or someone ended it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._render, request)

    def _render(self, request: JSONObject) -> dict[str, str]:
        try:
            process = self._process = self._process or self._start()
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - they are pipes
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            line = process.stdout.readline()
        except OSError as error:
            raise RetryableDeliveryError(f"cannot start the process for templates: {error.strerror}") from None
        if line:
            response: dict[str, str] = json.loads(line)
            return response
        code = self._stop()
        failure: type[DeliveryError] = PermanentDeliveryError if code in _EXCEEDED else RetryableDeliveryError
        raise failure(
            f"the template of {request['name']} exceeded {template_process.MEMORY_LIMIT >> 20} MiB of memory or "
            f"{template_process.CPU_SECONDS:g} s of CPU time"
            if code in _EXCEEDED
            else f"the process for templates ended with exit code {code}"
        )

    def _start(self) -> subprocess.Popen[bytes]:
        atexit.register(self._stop)
        return subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-P", template_process.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # Ctrl-C must not end it before the operator
        )

    def _stop(self) -> int | None:
        atexit.unregister(self._stop)
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(BrokenPipeError):
            process.communicate()  # the end of its input ends it
        return process.returncode


_checks, _deliveries = _TemplateProcess(), _TemplateProcess()
"""A check at load does not wait for deliveries."""


def check_template(source: str, name: str) -> None:
    """Check the template of a channel: in Jinja's language (minijinja's dialect), rendered with a sample.

    Raises:
        ConfigurationError: the template has a syntax error, or exceeds the limits with the sample.
        MissingExtra: minijinja is not installed.
    """
    if importlib.util.find_spec("minijinja") is None:
        raise MissingExtra("minijinja", extra="notification", purpose="a template")
    try:
        response = _checks.render_now(source=source, name=name, document=_SAMPLE)
    except DeliveryError as error:
        raise ConfigurationError(str(error)) from None
    if response.get("error") in _INVALID:
        raise ConfigurationError(f"invalid template of {name}: {response['message']}")


async def render_template(source: str, name: str, document: JSONObject) -> str:
    """Render the template of a channel with the members of a message. Cancellation changes nothing.

    The filter ``tojson`` encodes a value as JSON. Undefined values and their members render as the empty string,
    because a lost message would be worse than a missing extension.

    Raises:
        PermanentDeliveryError: the template fails, or reaches a limit.
        RetryableDeliveryError: the process that renders templates cannot be started.
    """
    members = {"recipients": [], "extensions": {}, "actionLinks": [], **document}
    response = await _deliveries.render(source=source, name=name, document=members)
    if "error" in response:
        raise PermanentDeliveryError(f"the template of {name} failed: {response['error']}")
    return response["text"]


_SAMPLE = message_document(
    Message(
        name="sample",
        namespace="default",
        uid="00000000-0000-0000-0000-000000000000",
        type="Simple",
        priority="Medium",
        subject="subject",
        body="body",
        channel="webhook:sample",
    )
)
"""Sample values for checking a template when it is loaded. A template may fail on these and still work on others."""
