"""References to kinds and objects: group, version and kind; name and namespace; API paths. And how one is written."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import quote

_LONGEST_SEGMENT = 253
_is_plain = re.compile(r"[a-z0-9][a-z0-9.:-]{0,252}").fullmatch  # matches almost every name and namespace
_changes_path = re.compile(r"[/?#%\x00-\x1f\x7f\ud800-\udfff]").search


def path_segment(text: str, what: str) -> str:
    """Percent-encode a name as one segment of an API path.

    Args:
        text: the name.
        what: what it names, for the error.

    Raises:
        TypeError: it is not a string.
        ValueError: it would name something else: it is empty, ``.`` or ``..``, contains ``/``, ``?``, ``#``, ``%``, a
            control character or a lone surrogate, or is longer than 253 characters.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, not {text!r}")
    if _is_plain(text):
        return text
    if text in ("", ".", "..") or _changes_path(text):
        raise ValueError(
            f"{what} {text[:80]!r} is not valid: it must not be empty, '.' or '..', nor contain '/', '?', '#', '%', "
            "control characters or lone surrogates"
        )
    if len(text) > _LONGEST_SEGMENT:
        raise ValueError(f"{what} {text[:40]!r}… is not valid: it is longer than {_LONGEST_SEGMENT} characters")
    return quote(text, safe=":")


_usual_segment = functools.lru_cache(maxsize=1024)(
    path_segment
)  # for groups, versions and namespaces: a program uses few of them


def _is_core_version(text: str) -> bool:
    """Return whether the text can be a version of the core group; ``"apps"`` is a group whose version is missing."""
    return text[0] == "v" and text[1:2].isdigit()


class Request(NamedTuple):
    """The key of one object of a known kind: what a queue contains and a reconciler receives.

    Attributes:
        name: the object's name.
        namespace: its namespace; None for a cluster-scoped object.
    """

    name: str
    namespace: str | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class GroupVersionKind(NamedTuple):
    """A kind: ``("apps", "v1", "Deployment")``; the group of the core kinds is ``""``."""

    group: str
    version: str
    kind: str

    @classmethod
    def parse(cls, text: str) -> GroupVersionKind:
        """Parse ``"apps/v1/Deployment"`` or, for the core group, ``"v1/ConfigMap"``.

        Raises:
            ValueError: the text has another form; the message shows both forms.
        """
        parts = text.split("/")
        if len(parts) == 2 and all(parts) and _is_core_version(parts[0]):
            return cls("", parts[0], parts[1])
        if len(parts) == 3 and all(parts):
            return cls(parts[0], parts[1], parts[2])
        raise ValueError(f"{text!r} is not a valid kind: write 'group/version/Kind', or 'v1/Kind' for the core group")

    @property
    def api_version(self) -> str:
        """Return ``"apps/v1"``, or ``"v1"`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        """Return the path of the group and version, where the server lists its kinds.

        Raises:
            ValueError: group or version cannot be part of a path.
        """
        version = _usual_segment(self.version, "API version")
        return f"/apis/{_usual_segment(self.group, 'API group')}/{version}" if self.group else f"/api/{version}"

    def __str__(self) -> str:
        return f"{self.api_version}/{self.kind}"


@dataclass(frozen=True, slots=True)
class ResourceType:
    """The discovered endpoint of a kind: its plural, its scope and its subresources.

    Attributes:
        gvk: the kind.
        plural: the name in paths (``"deployments"``).
        namespaced: whether its objects have a namespace.
        subresources: such as ``{"status", "scale"}``.
        singular: the name for one object (``"deployment"``); ``""`` if it is not known.
        short_names: such as ``("deploy",)``.
    """

    gvk: GroupVersionKind
    plural: str
    namespaced: bool
    subresources: frozenset[str] = frozenset()
    singular: str = field(default="", compare=False)
    short_names: tuple[str, ...] = field(default=(), compare=False)

    def path(self, name: str | None = None, namespace: str | None = None, subresource: str | None = None) -> str:
        """Return the path of the collection, of an object, or of its subresource, percent-encoded.

        A namespaced kind without a namespace gives the collection over all namespaces.

        Raises:
            ValueError: an object of a namespaced kind has no namespace, or a part cannot be in a path; see
                `path_segment`.
        """
        path = self.gvk.path
        if self.namespaced and namespace:
            path += f"/namespaces/{_usual_segment(namespace, 'namespace')}"
        elif self.namespaced and name:
            raise ValueError(f"{self.gvk.kind} {name!r} needs a namespace")
        path += f"/{_usual_segment(self.plural, 'resource')}"
        if name:
            path += f"/{path_segment(name, f'{self.gvk.kind} name')}"
        for part in subresource.split("/") if subresource else ():
            path += f"/{_usual_segment(part, 'subresource')}"
        return path


class WriteMethod(NamedTuple):
    """The request of one way to write an existing object.

    Attributes:
        http: the HTTP method.
        content_type: of the body.
        verb: the verb that a role must allow.
        parameters: of the query; an apply takes over fields of other field managers, and must say so.
    """

    http: str
    content_type: str
    verb: Literal["update", "patch"]
    parameters: tuple[tuple[str, str], ...] = ()


WRITE_METHODS = {
    "merge": WriteMethod("PATCH", "application/merge-patch+json", "patch"),
    "update": WriteMethod("PUT", "application/json", "update"),
    "apply": WriteMethod("PATCH", "application/apply-patch+yaml", "patch", (("force", "true"),)),  # JSON is YAML
}
"""By strategy."""
