"""The webhook server, and its endpoints, which answer every review of a path even if a webhook fails."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec.json
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from reconciler._core.certificates import CertWatcher
from reconciler._core.limits import BadBody, Limits
from reconciler._core.user_code import is_cancelled
from reconciler._core.wire import JSONObject
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.webhook import review
from reconciler.webhook.admission import CONVERSION_VERSIONS, AdmissionWebhook, ConversionFailed, Converter

if TYPE_CHECKING:
    from aiohttp import web


_log = logging.getLogger("reconciler.webhook")


@dataclass(frozen=True, slots=True)
class Reply:
    """The HTTP response to a review.

    Attributes:
        status: the HTTP status: 200 for all valid reviews, whether allowed or denied.
        body: JSON, or an error message if the status is 400 or higher.
        failed: whether a webhook raised an unexpected exception.
    """

    status: int
    body: bytes = field(repr=False)
    failed: bool = False


class AdmissionEndpoint:
    """An endpoint that answers AdmissionReviews.

    With several validators, the first denial counts and all warnings are returned. With several defaulters, each one
    sees the changes of those before it; a denial drops all changes.

    Args:
        reviewers: validators or defaulters, not both; called in order.

    Attributes:
        reviewers: the same; more can be added.
    """

    def __init__(self, reviewers: Sequence[AdmissionWebhook]) -> None:
        self.reviewers = list(reviewers)

    async def answer(self, body: bytes) -> Reply:
        """Review a request body, and return the response. Cancellation leaves the request unanswered."""
        try:
            version, document = review.read_review(body, kind="AdmissionReview", versions=review.ADMISSION_VERSIONS)
            request = review.request_of(document)
        except review.BadReview as error:
            return Reply(400, f"{error}\n".encode())
        verdict, failed = await self._verdict(request)
        try:
            return Reply(200, review.write_admission(version, request, verdict), failed)
        except (TypeError, ValueError, RecursionError) as error:
            _log.exception("failed to encode the response to %s %r", request.operation, request.name)
            verdict = _internal_error(f"the response cannot be encoded: {type(error).__name__}")
            return Reply(200, review.write_admission(version, request, verdict), failed=True)

    async def _verdict(self, request: review.AdmissionRequest) -> tuple[review.ReviewVerdict, bool]:
        """Return the verdict, and whether a reviewer failed."""
        warnings: list[str] = []
        changed: JSONObject | None = None
        # What none asked for comes from a configuration that was written by hand: nobody's check is left out.
        asked = [reviewer for reviewer in self.reviewers if reviewer.reviews(request)] or self.reviewers
        for reviewer in asked:
            try:
                verdict = await reviewer.review(request)
            except BaseException as error:  # user code; the API server needs a response
                if is_cancelled():
                    raise
                _log.exception("%s failed on %s %r", type(reviewer).__name__, request.operation, request.name)
                denial = _internal_error(f"{type(reviewer).__name__} failed: {type(error).__name__}")
                return replace(denial, warnings=warnings), True
            warnings += verdict.warnings
            if not verdict.allowed:
                return replace(verdict, warnings=warnings), False
            if verdict.changed is not None:
                changed = verdict.changed
                request = replace(request, document={**request.document, "object": changed})
        return review.ReviewVerdict(allowed=True, warnings=warnings, changed=changed), False


def _internal_error(message: str) -> review.ReviewVerdict:
    return review.ReviewVerdict(allowed=False, code=500, reason="InternalError", message=message)


class ConversionEndpoint:
    """An endpoint that answers ConversionReviews.

    Args:
        converter: converts the objects.
    """

    def __init__(self, converter: Converter) -> None:
        self._converter = converter

    async def answer(self, body: bytes) -> Reply:
        """Convert all objects of a request body, or none; return the response.

        Cancellation leaves the request unanswered.
        """
        try:
            version, request = review.read_review(body, kind="ConversionReview", versions=CONVERSION_VERSIONS)
        except review.BadReview as error:
            return Reply(400, f"{error}\n".encode())
        response: dict[str, object] = {"uid": request["uid"]}
        failed = False
        try:
            desired = str(request.get("desiredAPIVersion"))
            response["convertedObjects"] = [
                self._converter.convert(document, desired) for document in request.get("objects") or ()
            ]
            response["result"] = {"status": "Success"}
        except Exception as error:  # noqa: BLE001 - user code; the API server needs a response
            failed = not isinstance(error, ConversionFailed) or error.__cause__ is not None
            if failed:
                _log.exception("conversion of %s failed", self._converter.kind)
            known = isinstance(error, ConversionFailed)
            message = str(error) if known else f"conversion failed: {type(error).__name__}"
            response |= {"convertedObjects": [], "result": {"status": "Failure", "message": message}}
        document = {"apiVersion": version, "kind": "ConversionReview", "response": response}
        try:
            return Reply(200, msgspec.json.encode(document), failed)
        except (TypeError, ValueError, RecursionError) as error:
            _log.exception("failed to encode the converted objects of %s", self._converter.kind)
            message = f"the converted objects cannot be encoded: {type(error).__name__}"
            response |= {"convertedObjects": [], "result": {"status": "Failure", "message": message}}
            return Reply(200, msgspec.json.encode(document), failed=True)


_BUCKETS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""10 ns to 1000 s, one bucket per decade; controller-runtime's."""

_INITIAL_CODES = ("200", "500")
"""Codes exported from the start with 0, so that the first occurrence shows in a rate; controller-runtime's."""


class WebhookMetrics:
    """The metrics of a webhook server.

    Args:
        registry: where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        prefix, asked = "controller_runtime", "admission requests"
        seconds, text = f"{prefix}_webhook_latency_seconds", f"Histogram of the latency of processing {asked}"
        self.latency = Histogram(seconds, text, ["webhook"], buckets=_BUCKETS, registry=registry)
        text = f"Total number of {asked} by HTTP status code."
        self.requests = counter(f"{prefix}_webhook_requests", text, "webhook", "code")
        in_flight, text = f"{prefix}_webhook_requests_in_flight", f"Current number of {asked} being served."
        self.in_flight = Gauge(in_flight, text, ["webhook"], registry=registry)
        text = "Total number of webhook panics: unexpected exceptions of admission webhooks"
        self.panics = counter(f"{prefix}_webhook_panics", text)
        text = "Total number of conversion webhook panics: exceptions of conversion functions"
        self.conversion_panics = counter(f"{prefix}_conversion_webhook_panics", text)
        self.reads = counter("certwatcher_read_certificate", "Total number of certificate reads")
        self.read_errors = counter("certwatcher_read_certificate_errors", "Total number of certificate read errors")

    def record_read(self, valid: bool) -> None:
        """Called when the certificate was read."""
        (self.reads if valid else self.read_errors).inc()

    def expect(self, path: str) -> None:
        """Export the metrics of a path with 0 before its first request."""
        self.latency.labels(path)
        self.in_flight.labels(path)
        for code in _INITIAL_CODES:
            self.requests.labels(path, code)


BODY_LIMIT = 7 * 1024 * 1024
"""Maximum size of a review in bytes; controller-runtime's number: two objects of maximum size, with some margin."""

_SHUTDOWN_SECONDS = 5.0


class WebhookServer:
    """An HTTPS server for validators, defaulters and converters. It runs on every replica, not only on the leader.

    Every valid review gets status 200 with its verdict. Other requests get 400 (empty body, wrong content type, invalid
    JSON, not a review), 404 (unknown path), 405 (not a POST) or 413 (more than 7 MiB).

    Args:
        address: ``host:port``; port 0 for a free one. Default ``0.0.0.0:9443``, controller-runtime's port.
        certificates: directory with ``tls.crt`` and ``tls.key``, which are reloaded when they change. Default: none,
            for a server that is only called in process, through `send`.
        client_ca: PEM file of the CAs that must have signed client certificates. Default: clients need no certificate.

    Raises:
        ConfigurationError: the address is invalid, or a certificate cannot be loaded.
    """

    def __init__(
        self,
        address: str = "0.0.0.0:9443",
        *,
        certificates: str | os.PathLike[str] | None = None,
        client_ca: str | os.PathLike[str] | None = None,
    ) -> None:
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise ConfigurationError(f"{address!r} is not a valid address: write 'host:port', such as '0.0.0.0:9443'")
        self._host, self._port = host.strip("[]"), int(port)
        self._certificates = (
            None if certificates is None else CertWatcher(certificates, purpose="webhook", client_ca=client_ca)
        )
        self._admissions: dict[str, AdmissionEndpoint] = {}
        self._conversions: dict[str, ConversionEndpoint] = {}
        self._metrics: WebhookMetrics | None = None
        self._limits = Limits(body_bytes=BODY_LIMIT)
        self._bound: int | None = None
        self._listening = asyncio.Event()

    def add(self, handler: AdmissionWebhook | Converter) -> None:
        """Add a validator, defaulter or converter. Several validators, or several defaulters, may share a path.

        Raises:
            ConfigurationError: its path is used by another type of webhook, or it has no kind.
            TypeError: it is not an instance of one of the three classes.
        """
        self._register(handler)
        if self._metrics is not None:
            self._metrics.expect(handler.served_at)

    def _register(self, handler: AdmissionWebhook | Converter) -> None:
        if isinstance(handler, Converter):
            if handler.served_at in (*self._admissions, *self._conversions):
                raise ConfigurationError(f"the webhook path {handler.served_at} is already used")
            self._conversions[handler.served_at] = ConversionEndpoint(handler)
            return
        if not isinstance(handler, AdmissionWebhook):
            raise TypeError(f"add() takes instances of Validator, Defaulter and Converter, not {handler!r}")
        path = handler.served_at
        existing = self._admissions.get(path)
        if path in self._conversions or (existing is not None and existing.reviewers[0].verb != handler.verb):
            raise ConfigurationError(f"the webhook path {path} is already used by another type of webhook")
        if existing is not None:
            existing.reviewers.append(handler)
        else:
            self._admissions[path] = AdmissionEndpoint([handler])

    @property
    def admissions(self) -> Mapping[str, AdmissionEndpoint]:
        """Return the admission endpoints by path."""
        return self._admissions

    @property
    def converts(self) -> bool:
        """Return whether there is a converter."""
        return bool(self._conversions)

    @property
    def port(self) -> int:
        """Return the port that the server listens on; the configured one while it does not listen."""
        return self._port if self._bound is None else self._bound

    def observe(self, registry: CollectorRegistry) -> None:
        """Register metrics with controller-runtime's names."""
        self._metrics = WebhookMetrics(registry)
        if self._certificates is not None:
            self._metrics.record_read(True)  # the read in the constructor
            self._certificates.on_read = self._metrics.record_read
        for path in (*self._admissions, *self._conversions):
            self._metrics.expect(path)

    def check_started(self) -> None:
        """Raise unless the server is listening; a check for ``/readyz``.

        Raises:
            ConfigurationError: the server is not listening.
        """
        if self._bound is None:
            raise ConfigurationError("the webhook server is not listening")

    async def listening(self) -> None:
        """Wait until the server listens for the first time. Cancellation changes nothing."""
        await self._listening.wait()

    async def run(self) -> None:
        """Serve until cancelled; then finish the reviews in progress, for at most five seconds.

        Raises:
            ConfigurationError: the address cannot be listened on, there are no certificates, or time is virtual.
        """
        from reconciler._core.server import HTTPServer

        if getattr(current_clock(), "virtual", False):
            raise ConfigurationError(
                "a webhook server cannot listen under virtual time: use APIServer.connect_webhooks() or call review()"
            )
        if self._certificates is None:
            raise ConfigurationError("a webhook server needs TLS to listen: pass certificates=, a directory")
        server = HTTPServer(self._handle, self._limits)
        try:
            try:
                await server.start(self._host or None, self._port, context=self._certificates.context)
            except OSError as error:
                where = f"{self._host}:{self._port}"
                raise ConfigurationError(f"the webhook server cannot listen on {where}: {error.strerror}") from error
            self._bound = server.addresses[0][1]
            self._listening.set()
            await self._certificates.follow()
        finally:
            self._bound = None
            await asyncio.shield(server.close(_SHUTDOWN_SECONDS))

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Return the response to a review without sockets, as `APIServer.connect_webhooks` needs it.

        Cancellation leaves the review unanswered.
        """
        endpoint = self._endpoint(request.path)
        if endpoint is None:
            return HTTPResponse(404, body=f"404: no webhook is served at {request.path}\n".encode())
        reply = await endpoint.answer(request.body)
        return HTTPResponse(reply.status, body=reply.body)

    def _endpoint(self, path: str) -> AdmissionEndpoint | ConversionEndpoint | None:
        return self._admissions.get(path) or self._conversions.get(path)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        from aiohttp import web

        endpoint = self._endpoint(request.path)
        if endpoint is None:
            known = ", ".join([*self._admissions, *self._conversions])
            return web.Response(status=404, text=f"404: this server serves {known}\n")
        if request.method != "POST":
            return web.Response(status=405, text="405: only POST is supported\n", headers={"allow": "POST"})
        if self._metrics is None:
            return (await self._respond(request, endpoint))[0]
        name = request.path
        with self._metrics.in_flight.labels(name).track_inprogress(), self._metrics.latency.labels(name).time():
            response, failed = await self._respond(request, endpoint)
        self._metrics.requests.labels(name, str(response.status)).inc()
        if failed:
            admission = isinstance(endpoint, AdmissionEndpoint)
            (self._metrics.panics if admission else self._metrics.conversion_panics).inc()
        return response

    async def _respond(
        self, request: web.BaseRequest, endpoint: AdmissionEndpoint | ConversionEndpoint
    ) -> tuple[web.Response, bool]:
        """Return the response, and whether the webhook failed."""
        from aiohttp import web

        from reconciler._core.server import read_body

        if request.content_type != "application/json":
            return web.Response(status=400, text="400: the content type must be application/json\n"), False
        try:
            body = await read_body(request, self._limits)
        except BadBody as error:
            response = web.Response(status=error.status, text=f"{error}\n")
            response.force_close()
            return response, False
        reply = await endpoint.answer(body)
        content_type = "application/json" if reply.status == 200 else "text/plain"
        return web.Response(status=reply.status, body=reply.body, content_type=content_type), reply.failed
