"""What a kubelet answers: the logs of containers, and commands in them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.verbs.routing import Call
from reconciler.http import HTTPResponse

ExecCallback = Callable[[str, str, str, list[str]], tuple[str, int] | Awaitable[tuple[str, int]]]
"""Takes namespace, pod, container and command; returns the output and the exit code."""
LogCallback = Callable[[str, str, str], str | Awaitable[str]]
"""Takes namespace, pod and container; returns the log."""


@dataclass
class CommandResponse(HTTPResponse):
    """The result of a command, which is sent over the upgraded connection.

    Attributes:
        output: what the command wrote.
        exit_code: its exit code.
        asked: the streams that the client opens, in order.
    """

    output: bytes = b""
    exit_code: int = 0
    asked: tuple[str, ...] = ()

    def outcome(self) -> JSONObject:
        """Return the last message of the error stream."""
        if not self.exit_code:
            return {"metadata": {}, "status": "Success"}
        message = f"command terminated with non-zero exit code: exit status {self.exit_code}"
        causes = [{"reason": "ExitCode", "message": str(self.exit_code)}]
        status = {"metadata": {}, "status": "Failure", "message": message}
        return {**status, "reason": "NonZeroExitCode", "details": {"causes": causes}}


@dataclass
class Kubelet:
    """A stand-in for the kubelets that serve commands and logs. By default it serves neither.

    Attributes:
        serves: whether commands succeed without output, and logs are empty, unless a callback says otherwise.
        on_exec: answers commands.
        on_log: answers requests for logs.
    """

    serves: bool = False
    on_exec: ExecCallback | None = None
    on_log: LogCallback | None = None

    async def answer(self, call: Call) -> HTTPResponse:
        """Return the response to a request for a subresource of a pod that a kubelet serves.

        Raises:
            Refusal: the pod or the container does not exist or does not run, or the subresource is not served.
        """
        pod = call.existing().doc
        callback = {"exec": self.on_exec, "log": self.on_log}.get(call.subresource)
        if callback is None and not (self.serves and call.subresource in ("exec", "log")):
            raise Refusal.needs_a_node(call.endpoint.info.plural, call.name, call.subresource.partition("/")[0])
        container = _container_of(pod, call.query.get("container", ""))
        place = pod["metadata"]["namespace"], call.name, container
        if call.subresource == "log":
            found = self.on_log(*place) if self.on_log is not None else ""
            text = await found if inspect.isawaitable(found) else found
            return HTTPResponse(200, {"content-type": "text/plain"}, text.encode())
        command = [value for name, value in call.request.query if name == "command"]
        if not command:
            raise Refusal.bad_request("you must specify at least 1 command for the container")
        result = self.on_exec(*place, command) if self.on_exec is not None else ("", 0)
        output, code = await result if inspect.isawaitable(result) else result
        return CommandResponse(101, output=output.encode(), exit_code=code, asked=_streams(call.query))


def _container_of(pod: JSONObject, name: str) -> str:
    """Return the container that a request means, which must run or have run."""
    spec, pod_name = pod["spec"], pod["metadata"]["name"]
    names = [each["name"] for each in spec["containers"]]
    if not name and len(names) > 1:
        raise Refusal.bad_request(
            f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(names)}]"
        )
    if name and name not in (*names, *(each["name"] for each in spec.get("initContainers") or ())):
        raise Refusal.bad_request(f"container {name} is not valid for pod {pod_name}")
    if (pod.get("status") or {}).get("phase") == "Pending":
        raise Refusal.bad_request(
            f"container {quoted(name or names[0])} in pod {quoted(pod_name)} is waiting to start: ContainerCreating"
        )
    return name or names[0]


def _streams(query: dict[str, str]) -> tuple[str, ...]:
    """Return the streams of a command, in the order in which clients open them."""
    asked = {name for name in ("stdin", "stdout", "stderr", "tty") if query.get(name) in ("true", "1")}
    if "tty" in asked:
        return ("error", *(name for name in ("stdin", "stdout") if name in asked), "resize")
    return ("error", *(name for name in ("stdin", "stdout", "stderr") if name in asked))
