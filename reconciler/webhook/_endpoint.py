"""Answer the reviews of one path: which code for what, and never without an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec.json

from reconciler.webhook._admission import Admission
from reconciler.webhook._conversion import CONVERSION_VERSIONS, ConversionFailed, Converter
from reconciler.webhook._review import (
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
        code: for the metrics: the verdict's code.
    """

    status: int
    body: bytes
    code: int


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
        except BadReview as error:
            return Reply(400, f"{error}\n".encode(), 400)
        verdict = await self._verdict(request_of(document))
        return Reply(200, write_admission(version, document["uid"], verdict), verdict.code)

    async def _verdict(self, request: AdmissionRequest) -> Verdict:
        warnings: list[str] = []
        patch: list[object] = []
        for reviewer in self._reviewers:
            try:
                verdict = await reviewer.review(_with_patch(request, patch))
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - a reviewer is foreign code, and the API server waits
                _log.exception("%s failed on %s %s", type(reviewer).__name__, request.operation, request.name)
                return Verdict(
                    allowed=False,
                    code=500,
                    reason="InternalError",
                    message=f"{type(reviewer).__name__} failed: {type(error).__name__}",
                    warnings=warnings,
                )
            warnings += verdict.warnings
            if not verdict.allowed:
                return Verdict(
                    allowed=False,
                    code=verdict.code,
                    reason=verdict.reason,
                    message=verdict.message,
                    details=verdict.details,
                    warnings=warnings,
                )
            patch += verdict.patch
        return Verdict(allowed=True, warnings=warnings, patch=patch)  # type: ignore[arg-type]


def _with_patch(request: AdmissionRequest, patch: list[object]) -> AdmissionRequest:
    """Return the request with the object as the reviewers before made it."""
    if not patch:
        return request
    from dataclasses import replace

    from reconciler.webhook._patch import apply_json_patch

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
        code = 200
        try:
            desired = str(request.get("desiredAPIVersion"))
            response["convertedObjects"] = [
                self._converter.convert(document, desired) for document in request.get("objects") or ()
            ]
            response["result"] = {"status": "Success"}
        except ConversionFailed as error:
            code = 422
            response["convertedObjects"] = []
            response["result"] = {"status": "Failure", "message": str(error)}
        review = {"apiVersion": version, "kind": "ConversionReview", "response": response}
        return Reply(200, msgspec.json.encode(review), code)
