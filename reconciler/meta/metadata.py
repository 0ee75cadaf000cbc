"""What objects of every kind have: names and API paths, metadata, and ``status.conditions``.

Conditions follow the rules of metav1.Condition: there is one entry per type, and ``lastTransitionTime`` changes only
when ``status`` does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeGuard
from urllib.parse import quote

from reconciler.meta.documents import format_time, is_object

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject, OwnerReferenceObject


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


def _metadata(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = obj.get("metadata")
    return metadata if type(metadata) is dict or is_object(metadata) else {}


def gvk_of(obj: Mapping[str, Any]) -> GroupVersionKind:
    """Return an object's kind.

    Raises:
        ValueError: apiVersion or kind is missing.
    """
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    if not api_version or not kind:
        raise ValueError(f"object {name_of(obj)!r} has no apiVersion or no kind")
    group, _, version = str(api_version).rpartition("/")
    return GroupVersionKind(group, version, str(kind))


def name_of(obj: Mapping[str, Any]) -> str:
    """Return ``metadata.name``; ``""`` if there is none."""
    return str(_metadata(obj).get("name") or "")


def namespace_of(obj: Mapping[str, Any]) -> str | None:
    """Return ``metadata.namespace``; None if there is none."""
    namespace = _metadata(obj).get("namespace")
    return str(namespace) if namespace else None


def uid_of(obj: Mapping[str, Any]) -> str:
    """Return ``metadata.uid``; ``""`` if there is none."""
    return str(_metadata(obj).get("uid") or "")


def version_of(obj: Mapping[str, Any]) -> str:
    """Return ``metadata.resourceVersion``; ``""`` if there is none."""
    return str(_metadata(obj).get("resourceVersion") or "")


def request_of(obj: Mapping[str, Any] | HasDocument) -> Request:
    """Return the name and namespace of an object: a document, or an instance of a class, also of lightkube."""
    metadata = _metadata(obj if isinstance(obj, dict) else _document(obj))
    namespace = metadata.get("namespace")
    return Request(str(metadata.get("name") or ""), str(namespace) if namespace else None)


class AlreadyOwned(ValueError):
    """The object has another controller."""


class HasDocument(Protocol):
    """An object that can return its document, such as an instance of a Resource class."""

    def to_dict(self) -> JSONObject:
        """Return the document."""
        ...


def owner_reference(owner: Mapping[str, Any] | HasDocument, *, controller: bool = True) -> OwnerReferenceObject:
    """Return the reference to add to an object that `owner` owns.

    Raises:
        ValueError: the owner lacks apiVersion, kind, name or uid (it was never stored), or its name is invalid.
    """
    owner = _document(owner)
    gvk = gvk_of(owner)
    name, uid = name_of(owner), uid_of(owner)
    if not name or not uid:
        raise ValueError(f"{gvk.kind} {name!r} has no uid: only an object read from the server can own another")
    path_segment(name, "owner's name")
    reference: OwnerReferenceObject = {"apiVersion": gvk.api_version, "kind": gvk.kind, "name": name, "uid": uid}
    if controller:
        reference["controller"] = reference["blockOwnerDeletion"] = True
    return reference


def _document(obj: Mapping[str, Any] | HasDocument) -> Mapping[str, Any]:
    return obj if isinstance(obj, Mapping) else obj.to_dict()


def selector_text(selector: Mapping[str, Any]) -> str:
    """Return a LabelSelector, such as that of a Deployment, as the text that a list request takes."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        key, values = each["key"], ",".join(each.get("values") or ())
        form = {"In": "{} in ({})", "NotIn": "{} notin ({})", "Exists": "{}", "DoesNotExist": "!{}"}[each["operator"]]
        parts.append(form.format(key, values))
    return ",".join(parts)


def controller_of(obj: Mapping[str, Any]) -> JSONObject | None:
    """Return the owner reference marked as controller, or None."""
    for reference in (obj.get("metadata") or {}).get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def set_controller_reference(obj: JSONObject, owner: Mapping[str, Any] | HasDocument) -> None:
    """Make `owner` the controller of `obj`, in place; a reference to it at another API version is replaced.

    Raises:
        AlreadyOwned: another object is its controller.
        ValueError: the owner is in another namespace, or it is namespaced and the object is cluster-scoped.
    """
    owner = _document(owner)
    reference = owner_reference(owner)
    owner_namespace = namespace_of(owner)
    if owner_namespace and owner_namespace != namespace_of(obj):
        raise ValueError(
            f"{reference['kind']} {name_of(owner)!r} in namespace {owner_namespace!r} cannot own {name_of(obj)!r} "
            f"in {namespace_of(obj)!r}: an owner is cluster-scoped or in the same namespace"
        )
    current = controller_of(obj)
    if current is not None and current.get("uid") != reference["uid"]:
        raise AlreadyOwned(f"{name_of(obj)!r} is already controlled by {current.get('kind')} {current.get('name')!r}")
    group = GroupVersionKind.parse(f"{reference['apiVersion']}/{reference['kind']}").group
    references = [
        r
        for r in (obj.get("metadata") or {}).get("ownerReferences") or []
        if not (r.get("uid") == reference["uid"] and str(r.get("apiVersion", "")).rpartition("/")[0] == group)
    ]
    obj.setdefault("metadata", {})["ownerReferences"] = [*references, reference]


def has_finalizer(obj: Mapping[str, Any], finalizer: str) -> bool:
    """Return whether an object has a finalizer."""
    return finalizer in ((obj.get("metadata") or {}).get("finalizers") or ())


def add_finalizer(obj: JSONObject, finalizer: str) -> bool:
    """Add a finalizer in place; return whether it was missing."""
    if has_finalizer(obj, finalizer):
        return False
    metadata = obj.setdefault("metadata", {})
    metadata["finalizers"] = [*(metadata.get("finalizers") or ()), finalizer]
    return True


def remove_finalizer(obj: JSONObject, finalizer: str) -> bool:
    """Remove every copy of a finalizer in place; return whether there was one."""
    if not has_finalizer(obj, finalizer):
        return False
    metadata = obj["metadata"]
    metadata["finalizers"] = [f for f in metadata["finalizers"] if f != finalizer]
    return True


_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_PREFIX = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/"

CONDITION_STRINGS: Mapping[str, JSONObject] = {
    "type": {"type": "string", "maxLength": 316, "pattern": rf"^({_PREFIX})?({_NAME})$"},
    "reason": {
        "type": "string",
        "minLength": 1,
        "maxLength": 1024,
        "pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
    },
    "message": {"type": "string", "maxLength": 32768},
}
"""The schemas of a condition's strings, which are those of metav1.Condition."""

_RULES = {
    "type": "a qualified name of at most 316 characters, such as 'Ready' or 'example.com/Ready'",
    "reason": "a word of 1 to 1024 letters, digits, '_', ',' and ':' that begins with a letter and does not end with "
    "',' or ':', such as 'NotReady'",
}


def check_condition(type: object, reason: object, message: object) -> None:
    """Check the strings of a condition whose schema is that of metav1.Condition.

    Raises:
        ValueError: the API server would refuse one of them. The message has the field, the rule and the value; of
            `message` only the length, since it may contain anything.
    """
    _check_words(type, reason)
    limit = CONDITION_STRINGS["message"]["maxLength"]
    if not isinstance(message, str) or len(message) > limit:
        shown = f"one of {len(message)}" if isinstance(message, str) else f"a {message.__class__.__name__}"
        raise ValueError(f"message of condition {type!r} must be a string of at most {limit} characters, not {shown}")


@functools.lru_cache(maxsize=1024)  # a program uses few, each in every reconcile
def _check_words(type: object, reason: object) -> None:
    for name, given in (("type", type), ("reason", reason)):
        schema = CONDITION_STRINGS[name]
        text = given.value if isinstance(given, Enum) else given
        if isinstance(text, str) and len(text) <= schema["maxLength"] and re.fullmatch(schema["pattern"], text):
            continue
        of = "a condition" if name == "type" else f"condition {type!r:.100}"
        raise ValueError(f"{name} of {of} must be {_RULES[name]}, not {given!r:.100}")


def are_conditions(value: Any) -> TypeGuard[list[JSONObject]]:
    """Return whether a value is a list of nothing but objects."""
    return isinstance(value, list) and set(map(type, value)) <= {dict}


def find_condition(conditions: Sequence[JSONObject], type: str) -> JSONObject | None:
    """Find the condition of a type; None if there is none."""
    for condition in conditions:
        if condition.get("type") == type:
            return condition
    return None


def condition_is_true(conditions: Sequence[JSONObject], type: str) -> bool:
    """Return whether the condition of a type exists and is ``"True"``."""
    condition = find_condition(conditions, type)
    return condition is not None and condition.get("status") == "True"


def set_condition(
    conditions: list[JSONObject],
    type: str,
    status: bool | str,
    *,
    reason: str,
    message: str = "",
    observed_generation: int | None = None,
    now: datetime,
) -> bool:
    """Set one condition in place; return whether anything changed.

    Args:
        conditions: the list to change.
        type: the condition's type, unique in the list.
        status: a bool, or ``"True"``, ``"False"``, ``"Unknown"``.
        reason: a machine-readable CamelCase word; the API rejects an empty one.
        message: a sentence for people.
        observed_generation: the generation that the condition describes.
        now: the transition time, used only if the status changes.

    Raises:
        ValueError: the status is invalid, or the reason is empty.
    """
    wanted = _condition(type, status, reason, message, observed_generation)
    current = find_condition(conditions, type)
    if current is None:
        conditions.append({**wanted, "lastTransitionTime": format_time(now)})
        return True
    if wanted.items() <= current.items():
        return False
    if current.get("status") != wanted["status"] or not current.get("lastTransitionTime"):
        wanted["lastTransitionTime"] = format_time(now)
    current.update(wanted)
    return True


def has_condition(
    conditions: Sequence[JSONObject],
    type: str,
    status: bool | str,
    *,
    reason: str,
    message: str = "",
    observed_generation: int | None = None,
) -> bool:
    """Return whether `set_condition` would change nothing, with the same arguments.

    Raises:
        ValueError: as `set_condition`.
    """
    current = find_condition(conditions, type)
    wanted = _condition(type, status, reason, message, observed_generation)
    return current is not None and wanted.items() <= current.items()


def _condition(type: str, status: bool | str, reason: str, message: str, observed_generation: int | None) -> JSONObject:
    text = str(status) if isinstance(status, bool) else status
    if text not in ("True", "False", "Unknown"):
        raise ValueError(f"status of condition {type!r} must be a bool, 'True', 'False' or 'Unknown', not {status!r}")
    if not reason:
        raise ValueError(f"condition {type!r} needs a reason: a CamelCase word")
    condition: JSONObject = {"type": type, "status": text, "reason": reason, "message": message}
    if observed_generation is not None:
        condition["observedGeneration"] = observed_generation
    return condition


def keep_transition_times(before: Mapping[str, Any], after: JSONObject) -> None:
    """Copy transition times of unchanged conditions from an old status to a new one, in place.

    For conditions that were written as a whole, each with the time of that write: a transition time that changes while
    ``status`` does not carries no information, and would cause a write every time. Conditions without a time, old or
    new, are left unchanged.
    """
    old, new = before.get("conditions"), after.get("conditions")
    if not (isinstance(old, list) and isinstance(new, list)) or old == new:
        return
    stored = {c["type"]: c for c in old if is_object(c) and isinstance(c.get("type"), str)}
    kept = list(new)
    for index, condition in enumerate(new):
        if not is_object(condition) or not isinstance(condition.get("type"), str):
            continue
        known = stored.get(condition["type"])
        if known is None or known.get("status") != condition.get("status"):
            continue
        time, moved = known.get("lastTransitionTime"), condition.get("lastTransitionTime")
        if time and moved and time != moved:
            kept[index] = {**condition, "lastTransitionTime": time}
    after["conditions"] = kept
