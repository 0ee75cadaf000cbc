"""Read the patch that a request carries and lay it over a document."""

from __future__ import annotations

from typing import Any, cast

from reconciler.apiserver.encoding.json_documents import InvalidJSON, check_value
from reconciler.apiserver.encoding.refusals import Refusal, bad_request, patch_rejected, too_large
from reconciler.apiserver.encoding.text import go_type
from reconciler.apiserver.requests.bodies import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, decode, duplicate_fields
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.verbs.json_patch import MOST_OPERATIONS, PatchFailed, json_patch, merge_patch
from reconciler.apiserver.verbs.strategic_patch import strategic_merge

__all__ = ["patched"]


def patched(call: Call, kind: str, before: dict[str, Any]) -> Any:
    """Return what the patch of a request makes of a document.

    Args:
        call: the request.
        kind: the media type of the patch, which is not that of an apply.
        before: the document; it is not changed.

    Raises:
        Refusal: 400 for an invalid patch, 413 for one with too many operations, 422 for one that cannot be applied.
    """
    patch = _read_patch(call, kind)
    try:
        if kind == JSON_PATCH:
            found = json_patch(before, patch)
            check_value(found)
            return found
        if kind == STRATEGIC_PATCH:
            return strategic_merge(before, cast("dict[str, Any]", patch), call.endpoint.place)
        return merge_patch(before, patch)
    except (PatchFailed, InvalidJSON):
        raise patch_rejected() from None


def _read_patch(call: Call, kind: str) -> Any:
    try:
        patch: Any = decode(call.request.body)
    except Refusal as refusal:
        if kind != STRATEGIC_PATCH:
            raise
        # The library behind these gives its words alone.
        raise bad_request(refusal.message.removeprefix("error decoding patch: ")) from None
    if kind == MERGE_PATCH and patch is None:
        raise bad_request("Invalid JSON Patch")
    if patch is None:
        # Go reads null as a list without items, or a map without members.
        return [] if kind == JSON_PATCH else {}
    if not isinstance(patch, list if kind == JSON_PATCH else dict):
        wanted = "[]handlers.jsonPatchOp" if kind == JSON_PATCH else "map[string]interface {}"
        problem = f"json: cannot unmarshal {go_type(patch)} into Go value of type {wanted}"
        raise bad_request(problem if kind == STRATEGIC_PATCH else f"error decoding patch: {problem}")
    if kind == JSON_PATCH and len(patch) > MOST_OPERATIONS:
        raise too_large(f"The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {len(patch)}")
    if kind == MERGE_PATCH:
        call.doubled += duplicate_fields(call.request.body, patch)
    return patch
