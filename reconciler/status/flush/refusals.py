"""Turn what a server refused into an error that says what was refused and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from reconciler.errors import APIError, Forbidden, Invalid, NotServed, RequestTooLarge, ServerError, Unauthorized
from reconciler.status.errors import StatusError, StatusInvalid, StatusRejected, StatusTooLarge, StatusUnavailable
from reconciler.status.record.mutations import Mutation

__all__ = ["is_final", "refusal"]

_FINAL_MESSAGES = (
    "request is too large",
    "failed to create typed patch object",
    "field not declared in schema",
    "strconv.ParseUint",
)
"""5xx answers that say nothing was stored, and would say it again (seen on kube-apiserver 1.36)."""

_MAX_SIZES = 3


def is_final(error: ServerError) -> bool:
    """Say whether a 5xx is a refusal in truth, which repeating cannot cure."""
    return any(text in error.message for text in _FINAL_MESSAGES)


def refusal(
    error: APIError, subject: str, computed: Mapping[str, Any], mutations: Sequence[Mutation], *, need: str
) -> StatusError:
    """Return the error for a refused request.

    Args:
        error: the server's answer.
        subject: which object.
        computed: the status that was asked for.
        mutations: what was recorded.
        need: the verb and the resource that the request was about: ``"get the resource"``.
    """
    tried = f"the request to {need} of {subject} was refused with {error.status}"
    if error.reason:
        tried += f" {error.reason}"
    if isinstance(error, Invalid):
        fields = tuple(cause.field for cause in error.causes if cause.field)
        what = f"these fields do not fit the schema: {', '.join(fields)}" if fields else error.message
        return StatusInvalid(
            f"{tried}: {what}. Correct what is recorded, or the CRD.", fields=fields, unsaved=mutations
        )
    if isinstance(error, RequestTooLarge):
        return StatusTooLarge(
            f"{tried}: the object is over the limit of about 1.5 MiB. The largest fields of its status are "
            f"{_sizes(computed)}: bound lists with keep_last=, and keep counters outside them.",
            unsaved=mutations,
        )
    if isinstance(error, Unauthorized):
        return StatusUnavailable(f"{tried}: the credentials were not accepted.", unsaved=mutations)
    return StatusRejected(f"{tried}: {error.message}. {_advice(error, need)}", unsaved=mutations)


def _advice(error: APIError, need: str) -> str:
    if isinstance(error, Forbidden):
        return f"The role must allow to {need}."
    if isinstance(error, NotServed):
        return "The server does not serve this kind: install its CRD, and check group and version."
    return "Repeating it cannot help."


def _sizes(status: Mapping[str, Any]) -> str:
    sizes = sorted(((len(msgspec.json.encode(value)), key) for key, value in status.items()), reverse=True)
    return ", ".join(f"{key} ({size / 1024:.0f} KiB)" for size, key in sizes[:_MAX_SIZES]) or "none"
