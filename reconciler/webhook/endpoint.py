"""Answer the reviews of one path: which code for what, and never without an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec.json

from reconciler.webhook.admission import Admission
from reconciler.webhook.conversion import CONVERSION_VERSIONS, ConversionFailed, Converter
from reconciler.webhook.json_patch import apply_json_patch
from reconciler.webhook.review import (
    ADMISSION_VERSIONS,
    AdmissionRequest,
    BadReview,
    Verdict,
    read_review,
    request_of,
    write_admission,
)

__all__ = ["AdmissionEndpoint", "ConversionEndpoint", "Reply"]

_log = logging.getLogger("reconciler.webhook")


@dataclass(frozen=True, slots=True)
class Reply:
    """Be an HTTP answer.

    Attributes:
        status: of HTTP: 200 for every review, whatever its verdict is.
        body: JSON, or a sentence for a status of 400 and more.
        code: the verdict's code.
        failed: what was asked raised something that is no answer.
    """

    status: int
    body: bytes
    code: int
    failed: bool = False


class AdmissionEndpoint:
    """Answer AdmissionReviews with the reviewers of a path.

    Of several validators the first refusal counts, and warnings add up. Of several defaulters each sees what those
    before it made of the object; a refusal drops all their changes.

    Args:
        reviewers: all of one sort; asked in order.
    """

    def __init__(self, reviewers: Sequence[Admission]) -> None:
        self._reviewers = list(reviewers)

    @property
    def reviewers(self) -> Sequence[Admission]:
        """Return the reviewers."""
        return self._reviewers

    def add(self, reviewer: Admission) -> None:
        """Ask this one too."""
        self._reviewers.append(reviewer)

    async def answer(self, body: bytes) -> Reply:
        """Answer a body. Cancellation answers nothing."""
        try:
            version, document = read_review(body, kind="AdmissionReview", versions=ADMISSION_VERSIONS)
            request = request_of(document)
        except BadReview as error:
            return Reply(400, f"{error}\n".encode(), 400)
        verdict, failed = await self._verdict(request)
        try:
            return Reply(200, write_admission(version, request.uid, verdict), verdict.code, failed)
        except (TypeError, ValueError, RecursionError) as error:
            _log.exception("the answer to %s %r cannot be written", request.operation, request.name)
            verdict = _failed(f"the answer cannot be written: {type(error).__name__}")
            return Reply(200, write_admission(version, request.uid, verdict), verdict.code, failed=True)

    async def _verdict(self, request: AdmissionRequest) -> tuple[Verdict, bool]:
        """Return the answer, and whether it is one because a reviewer failed."""
        warnings: list[str] = []
        patch: list[object] = []
        for reviewer in self._reviewers:
            try:
                verdict = await reviewer.review(_with_patch(request, patch))
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - a reviewer is foreign code, and the API server waits
                _log.exception("%s failed on %s %r", type(reviewer).__name__, request.operation, request.name)
                refusal = _failed(f"{type(reviewer).__name__} failed: {type(error).__name__}")
                return replace(refusal, warnings=warnings), True
            warnings += verdict.warnings
            if not verdict.allowed:
                return replace(verdict, warnings=warnings), False
            patch += verdict.patch
        return Verdict(allowed=True, warnings=warnings, patch=patch), False  # type: ignore[arg-type]


def _failed(message: str) -> Verdict:
    return Verdict(allowed=False, code=500, reason="InternalError", message=message)


def _with_patch(request: AdmissionRequest, patch: list[object]) -> AdmissionRequest:
    """Return the request with the object as the reviewers before made it."""
    if not patch:
        return request
    document = dict(request.document)
    document["object"] = apply_json_patch(document["object"], patch)
    return replace(request, document=document)


class ConversionEndpoint:
    """Answer ConversionReviews with a converter.

    Args:
        converter: does the work.
    """

    def __init__(self, converter: Converter) -> None:
        self._converter = converter

    async def answer(self, body: bytes) -> Reply:
        """Answer a body: all objects converted, or none and why. Cancellation answers nothing."""
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
        except Exception as error:  # noqa: BLE001 - a conversion is foreign code, and the API server waits
            code, failed = 422, not isinstance(error, ConversionFailed) or error.__cause__ is not None
            if failed:
                _log.exception("conversion of %s failed", self._converter.kind)
            told = str(error) if isinstance(error, ConversionFailed) else f"conversion failed: {type(error).__name__}"
            response["convertedObjects"] = []
            response["result"] = {"status": "Failure", "message": told}
        review = {"apiVersion": version, "kind": "ConversionReview", "response": response}
        try:
            return Reply(200, msgspec.json.encode(review), code, failed)
        except (TypeError, ValueError, RecursionError) as error:
            _log.exception("the conversion of %s cannot be written", self._converter.kind)
            told = f"the conversion cannot be written: {type(error).__name__}"
            response |= {"convertedObjects": [], "result": {"status": "Failure", "message": told}}
            return Reply(200, msgspec.json.encode(review), 422, failed=True)
