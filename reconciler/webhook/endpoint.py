"""Answers every review of one path, even if a webhook fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec.json

from reconciler._core.user_code import is_cancelled
from reconciler.webhook.admission import AdmissionWebhook
from reconciler.webhook.conversion import CONVERSION_VERSIONS, ConversionFailed, Converter
from reconciler.webhook.review import (
    ADMISSION_VERSIONS,
    AdmissionRequest,
    BadReview,
    ReviewVerdict,
    apply_json_patch,
    read_review,
    request_of,
    write_admission,
)

_log = logging.getLogger("reconciler.webhook")


@dataclass(frozen=True, slots=True)
class Reply:
    """The HTTP response to a review.

    Attributes:
        status: the HTTP status: 200 for all valid reviews, whether allowed or denied.
        body: JSON, or an error message if the status is 400 or higher.
        code: the code in the verdict.
        failed: whether a webhook raised an unexpected exception.
    """

    status: int
    body: bytes = field(repr=False)
    code: int
    failed: bool = False


class AdmissionEndpoint:
    """An endpoint that answers AdmissionReviews.

    With several validators, the first denial counts and all warnings are returned. With several defaulters, each one
    sees the changes of those before it; a denial drops all changes.

    Args:
        reviewers: validators or defaulters, not both; called in order.
    """

    def __init__(self, reviewers: Sequence[AdmissionWebhook]) -> None:
        self._reviewers = list(reviewers)

    @property
    def reviewers(self) -> Sequence[AdmissionWebhook]:
        """Return the reviewers."""
        return self._reviewers

    def add(self, reviewer: AdmissionWebhook) -> None:
        """Add a reviewer."""
        self._reviewers.append(reviewer)

    async def answer(self, body: bytes) -> Reply:
        """Review a request body, and return the response. Cancellation leaves the request unanswered."""
        try:
            version, document = read_review(body, kind="AdmissionReview", versions=ADMISSION_VERSIONS)
            request = request_of(document)
        except BadReview as error:
            return Reply(400, f"{error}\n".encode(), 400)
        verdict, failed = await self._verdict(request)
        try:
            return Reply(200, write_admission(version, request.uid, verdict), verdict.code, failed)
        except (TypeError, ValueError, RecursionError) as error:
            _log.exception("failed to encode the response to %s %r", request.operation, request.name)
            verdict = _internal_error(f"the response cannot be encoded: {type(error).__name__}")
            return Reply(200, write_admission(version, request.uid, verdict), verdict.code, failed=True)

    async def _verdict(self, request: AdmissionRequest) -> tuple[ReviewVerdict, bool]:
        """Return the verdict, and whether a reviewer failed."""
        warnings: list[str] = []
        patch: list[object] = []
        # What none asked for comes from a configuration that was written by hand: nobody's check is left out.
        asked = [reviewer for reviewer in self._reviewers if reviewer.reviews(request)] or self._reviewers
        for reviewer in asked:
            try:
                verdict = await reviewer.review(_with_patch(request, patch))
            except BaseException as error:  # user code; the API server needs a response
                if is_cancelled():
                    raise
                _log.exception("%s failed on %s %r", type(reviewer).__name__, request.operation, request.name)
                denial = _internal_error(f"{type(reviewer).__name__} failed: {type(error).__name__}")
                return replace(denial, warnings=warnings), True
            warnings += verdict.warnings
            if not verdict.allowed:
                return replace(verdict, warnings=warnings), False
            patch += verdict.patch
        return ReviewVerdict(allowed=True, warnings=warnings, patch=patch), False  # type: ignore[arg-type]


def _internal_error(message: str) -> ReviewVerdict:
    return ReviewVerdict(allowed=False, code=500, reason="InternalError", message=message)


def _with_patch(request: AdmissionRequest, patch: list[object]) -> AdmissionRequest:
    """Return the request with the changes of earlier reviewers."""
    if not patch:
        return request
    document = dict(request.document)
    document["object"] = apply_json_patch(document["object"], patch)
    return replace(request, document=document)


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
            version, request = read_review(body, kind="ConversionReview", versions=CONVERSION_VERSIONS)
        except BadReview as error:
            return Reply(400, f"{error}\n".encode(), 400)
        response: dict[str, object] = {"uid": request["uid"]}
        code, failed = 200, False
        try:
            desired = str(request.get("desiredAPIVersion"))
            response["convertedObjects"] = [
                self._converter.convert(document, desired) for document in request.get("objects") or ()
            ]
            response["result"] = {"status": "Success"}
        except Exception as error:  # noqa: BLE001 - user code; the API server needs a response
            code, failed = 422, not isinstance(error, ConversionFailed) or error.__cause__ is not None
            if failed:
                _log.exception("conversion of %s failed", self._converter.kind)
            known = isinstance(error, ConversionFailed)
            message = str(error) if known else f"conversion failed: {type(error).__name__}"
            response |= {"convertedObjects": [], "result": {"status": "Failure", "message": message}}
        review = {"apiVersion": version, "kind": "ConversionReview", "response": response}
        try:
            return Reply(200, msgspec.json.encode(review), code, failed)
        except (TypeError, ValueError, RecursionError) as error:
            _log.exception("failed to encode the converted objects of %s", self._converter.kind)
            message = f"the converted objects cannot be encoded: {type(error).__name__}"
            response |= {"convertedObjects": [], "result": {"status": "Failure", "message": message}}
            return Reply(200, msgspec.json.encode(review), 422, failed=True)
