"""Make steps from the parts that all kinds of requests share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.conformance.differential.contents import NAMES, rarely
from tests.conformance.differential.kinds import Kind

Step = dict[str, Any]
NAME = st.sampled_from((NAMES[0], *NAMES))
MANAGER = st.sampled_from(["one", "two", "three"])
DRY = {"dryRun": "All"}
_WRITE_QUERIES = ({"dryRun": "Some"}, {"fieldValidation": "Maybe"}, {"fieldManager": "m" * 129}, {"force": "true"})


def version_of(draw: st.DrawFn, kind: Kind) -> str:
    """Draw a version that the kind is served in."""
    return kind.versions[-1] if len(kind.versions) > 1 and rarely(draw, 5) else kind.versions[0]


def subresource_of(draw: st.DrawFn, kind: Kind) -> str:
    """Draw a subresource, or none, which is the rule."""
    if kind.subresources and rarely(draw, 3):
        return draw(st.sampled_from(kind.subresources))
    return "status" if rarely(draw, 40) else ""


def path_of(kind: Kind, name: str, subresource: str = "", version: str = "") -> str:
    """Return the path of an object or its subresource."""
    return "/".join(part for part in (kind.collection(version), name, subresource) if part)


def typed(kind: Kind, version: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with its type."""
    return {"apiVersion": kind.api_version(version), "kind": kind.name, **body}


def add_preconditions(draw: st.DrawFn, about: dict[str, Any], key: str) -> None:
    """Add the version, and perhaps the uid, that an object has to have."""
    about["resourceVersion"] = draw(st.sampled_from([f"<version {key} -1>", f"<version {key} 0>", "99999999"]))
    if rarely(draw, 6):
        about["uid"] = f"<uid {key}>"


@st.composite
def write_query(draw: st.DrawFn) -> dict[str, str]:
    """Draw the parameters of a write."""
    query: dict[str, str] = {}
    if draw(st.booleans()):
        query["fieldManager"] = draw(MANAGER)
    if rarely(draw, 6):
        query["fieldValidation"] = draw(st.sampled_from(["Strict", "Warn", "Ignore"]))
    if rarely(draw, 15):
        query |= DRY
    if rarely(draw, 40):
        query |= draw(st.sampled_from(_WRITE_QUERIES))
    return query


def sending(method: str, path: str, body: Any, query: dict[str, str], media: str = "") -> Step:
    """Return a step with a body."""
    step: Step = {"method": method, "path": path, "body": body}
    if query:
        step["query"] = query
    if media:
        step["type"] = media
    return step
