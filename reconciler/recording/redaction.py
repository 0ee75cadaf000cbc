"""Redaction of recorded documents: the values of Secrets, and what looks like a secret elsewhere.

Nearly all of a document is the same in its next version, and contains no secret, so each part is searched once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from reconciler._core.redaction import PLACEHOLDER, redact
from reconciler._core.redaction.names import kind_of_name
from reconciler._core.wire import UNDECODABLE
from reconciler.recording.records import EffectStep, LogStep, RequestStep, Step

_MAX_BYTES, _MAX_NAMES = 2**23, 10_000
"""Bytes of parts, and names of members, that are remembered; then all are forgotten."""

_MASKED = "W1JFREFDVEVEXQ=="
"""The placeholder in base64, as the values of a Secret are."""

_PLAIN = (
    r"[\w-]{0,15}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|\+00:00)"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)
"""Matches texts that are never secret under a harmless name: short words, times and uids."""

_is_plain_text = re.compile(_PLAIN).fullmatch
_is_plain = re.compile(rf'"(?:{_PLAIN})"|-?[0-9.]{{1,20}}|true|false|null'.encode()).fullmatch

_are_stamps = re.compile(r"[0-9a-f-]{0,36} \d{0,20} (None|[0-9TZ:.-]{0,30}) (None|[0-9TZ:.-]{0,30})").fullmatch
"""Matches the uid, the version and the times that a server gives to an object."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


_ABSENT = msgspec.Raw(b"")


class _PartsOfMetadata(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    name: str = ""
    namespace: str | None = None
    resource_version: str = ""
    annotations: msgspec.Raw = _ABSENT
    labels: msgspec.Raw = _ABSENT
    owner_references: msgspec.Raw = _ABSENT
    finalizers: msgspec.Raw = _ABSENT
    managed_fields: msgspec.Raw = _ABSENT
    uid: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None


class ObjectParts(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """The parts of the document of an object that has no others."""

    api_version: str
    kind: str
    metadata: _PartsOfMetadata
    spec: msgspec.Raw = _ABSENT
    status: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT


_object_parts = msgspec.json.Decoder(ObjectParts).decode


def _searched(found: ObjectParts) -> list[tuple[str, msgspec.Raw]]:
    """Return the parts of an object that may contain a secret."""
    metadata = found.metadata
    parts = (
        ("spec", found.spec),
        ("status", found.status),
        ("data", found.data),
        ("annotations", metadata.annotations),
        ("labels", metadata.labels),
        ("ownerReferences", metadata.owner_references),
        ("finalizers", metadata.finalizers),
    )
    return [part for part in parts if part[1] is not _ABSENT]


_OF_METADATA = frozenset({"annotations", "labels", "ownerReferences", "finalizers"})


def _with_parts(data: bytes, parts: list[tuple[str, bytes]], of_metadata: Collection[str]) -> bytes:
    """Return a document with other parts; those of its metadata are named."""
    document = msgspec.json.decode(data)
    for name, part in parts:
        place = document["metadata"] if name in of_metadata else document
        place[name] = msgspec.Raw(part)
    return msgspec.json.encode(document)


def object_in(data: bytes) -> ObjectParts | None:
    """Return the parts of an object's document; None if it is something else, or has further parts."""
    try:
        return _object_parts(data)
    except UNDECODABLE:
        return None


RedactKnown = Callable[[str, str], str]
"""Removes the secrets that an operator knows from text of a namespace, ``""`` for none. Called in another thread."""


class DocumentRedactor:
    """Replaces secrets in JSON documents, and remembers the parts that it has seen.

    Attributes:
        known: removes the secrets that the operator knows, at each use, since they change. Default None: it knows none.
    """

    def __init__(self) -> None:
        self.known: RedactKnown | None = None
        self._harmless: set[str | bytes] = set()  # texts, and parts of documents
        self._replaced: dict[bytes, bytes] = {}  # other parts, and what is written in their places
        self._neutral: set[str] = set()  # names of members
        self._bytes = 0

    def redact(
        self, data: bytes, namespace: str | None = None, *, secret: bool = False, found: ObjectParts | None = None
    ) -> bytes:
        """Return a document without secrets; text that is not JSON as well.

        Args:
            data: the document.
            namespace: where it belongs. Default: nowhere.
            secret: whether it is a Secret, or a change of one. Default: as its kind says.
            found: its parts, if they are known. Default: they are read, if it is an object.
        """
        if not data:
            return data
        if self.known is not None:
            unknown = _without_known(data, self.known, namespace or "")
            data, found = unknown, found if unknown is data else None
        if secret or (b"Secret" in data and b'"Secret' in data):  # a quote would be found again and again
            masked = _without_values(data, secret=secret)
            if masked is not None:
                return masked
        found = found or object_in(data)
        if found is not None and self._is_known(found):
            return data
        try:
            if found is None:
                parts = list(_members(data).items())
                searchable = all(map(self._is_neutral, [name for name, _ in parts]))
            else:
                parts = _searched(found)
                searchable = self._are_harmless_texts(found)
            if searchable:
                replaced = [(name, new) for name, raw in parts if (new := self._replacement(name, bytes(raw)))]
                return data if not replaced else _with_parts(data, replaced, _OF_METADATA if found else ())
        except UNDECODABLE:
            pass
        return redact(data.decode("utf-8", "replace")).encode()

    def text(self, text: str, namespace: str | None = None) -> str:
        """Return text without secrets."""
        if not text:
            return text
        return _redacted(text if self.known is None else self.known(text, namespace or ""))

    def _is_known(self, found: ObjectParts) -> bool:
        """Return whether all parts of an object were found to be harmless: nearly always, so it is one expression."""
        harmless, metadata = self._harmless, found.metadata
        return (
            (found.status is _ABSENT or bytes(found.status) in harmless)
            and (found.spec is _ABSENT or bytes(found.spec) in harmless)
            and (found.data is _ABSENT or bytes(found.data) in harmless)
            and (metadata.annotations is _ABSENT or bytes(metadata.annotations) in harmless)
            and (metadata.labels is _ABSENT or bytes(metadata.labels) in harmless)
            and (metadata.owner_references is _ABSENT or bytes(metadata.owner_references) in harmless)
            and (metadata.finalizers is _ABSENT or bytes(metadata.finalizers) in harmless)
            and self._are_harmless_texts(found)
        )

    def _are_harmless_texts(self, found: ObjectParts) -> bool:
        metadata = found.metadata
        times = f"{metadata.creation_timestamp} {metadata.deletion_timestamp}"
        if not _are_stamps(f"{metadata.uid} {metadata.resource_version} {times}"):
            return False
        together = f"{found.api_version}\n{found.kind}\n{metadata.name}\n{metadata.namespace}"
        return together in self._harmless or (self._learn(together.split("\n")) and self._remember(together))

    def _replacement(self, name: str, part: bytes) -> bytes:
        """Return what replaces a part of a document; nothing if it is harmless. Known parts are not searched again."""
        if part in self._harmless or _is_plain(part):
            return b""
        if part not in self._replaced:
            unknown: list[str] = []
            if self._collect({name: msgspec.json.decode(part)}, unknown) and self._learn(unknown):
                self._remember(part)
                return b""
            redacted = redact(f"{{{_quoted(name).decode()}:{part.decode()}}}")
            self._bytes += len(part) + len(redacted)
            self._replaced[part] = bytes(_members(redacted)[name])
        return self._replaced[part]

    def _collect(self, value: Any, unknown: list[str]) -> bool:
        """Collect the texts of a value that were not seen before; return False if a name says that one is a secret."""
        if isinstance(value, dict):
            if not _NAMED.isdisjoint(value) and any(kind_of_name(str(value.get(name, ""))) for name in _NAMES):
                return False
            return all(
                self._is_neutral(name) and (name == "managedFields" or self._collect(part, unknown))
                for name, part in value.items()
            )
        if isinstance(value, list):
            return all(self._collect(part, unknown) and not str(part).startswith("-") for part in value)
        if isinstance(value, str) and value not in self._harmless and not _is_plain_text(value):
            unknown.append(value)
        return True

    def _is_neutral(self, name: str) -> bool:
        if name not in self._neutral:
            if kind_of_name(name) is not None or redact(name) != name:
                return False
            self._neutral.add(name)
        return True

    def _learn(self, texts: list[str]) -> bool:
        """Return whether texts are harmless, and remember them."""
        together = "\n".join(texts)
        if texts and redact(together) != together and any(redact(text) != text for text in texts):
            return False
        for text in texts:
            self._remember(text)
        return True

    def _remember(self, part: str | bytes) -> bool:
        self._bytes += len(part)
        if self._bytes > _MAX_BYTES or len(self._neutral) > _MAX_NAMES:
            self._harmless.clear()
            self._replaced.clear()
            self._neutral.clear()
            self._bytes = len(part)
        self._harmless.add(part)
        return True


def _without_known(data: bytes, known: RedactKnown, namespace: str) -> bytes:
    """Return a document in which each text is without known secrets."""
    text = data.decode("utf-8", "replace")
    found = known(text, namespace)
    if found == text:
        return data
    try:
        return msgspec.json.encode(_each_text(msgspec.json.decode(data), lambda each: known(each, namespace)))
    except UNDECODABLE:
        return found.encode()


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return a document with each text and name of a member changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(each, change) for each in value]
    if isinstance(value, dict):
        return {change(name): _each_text(each, change) for name, each in value.items()}
    return value


_NAMED = frozenset({"value", "default"})
_NAMES = ("name", "key", "header")
"""Members whose value may say what a member of `_NAMED` contains."""


_quoted: Callable[[str], bytes] = msgspec.json.encode


def _without_values(data: bytes, *, secret: bool) -> bytes | None:
    """Return a document with the values of its Secrets replaced; None if it is not a Secret, nor a list of them."""
    try:
        document = msgspec.json.decode(data)
    except UNDECODABLE:
        return _quoted(PLACEHOLDER) if secret else None
    if isinstance(document, list):  # a JSON Patch
        masked: Any = [{**each, "value": PLACEHOLDER} if "value" in each else each for each in document]
    elif not isinstance(document, dict) or (not secret and document.get("kind") not in ("Secret", "SecretList")):
        return None
    elif isinstance(document.get("items"), list):
        masked = {**document, "items": [_mask(each) for each in document["items"]]}
    else:
        masked = _mask(document)
    return msgspec.json.encode(masked)


def _mask(secret: dict[str, Any]) -> dict[str, Any]:
    masked = dict(secret)
    for field, placeholder in (("data", _MASKED), ("stringData", PLACEHOLDER)):
        if isinstance(masked.get(field), dict):
            masked[field] = {key: value and placeholder for key, value in masked[field].items()}
    metadata = masked.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("annotations"), dict):
        # kubectl keeps the whole object in one.
        annotations = {
            key: PLACEHOLDER if '"' in str(value) else value for key, value in metadata["annotations"].items()
        }
        masked["metadata"] = {**metadata, "annotations": annotations}
    return masked


def redact_step(step: Step, redactor: DocumentRedactor, namespace: str | None) -> None:
    """Replace the secrets in a step of a reconcile in a namespace, apart from reads."""
    if isinstance(step, RequestStep):
        redact_request(step, redactor, namespace)
    elif isinstance(step, LogStep):
        step.message = redactor.text(step.message, namespace)
    elif isinstance(step, EffectStep):
        step.key, step.message = redactor.text(step.key, namespace), redactor.text(step.message, namespace)
        step.arguments = redactor.redact(step.arguments, namespace)
        step.attributes = redactor.redact(step.attributes, namespace)
        step.value = redactor.redact(step.value, namespace)


def redact_request(
    step: RequestStep, redactor: DocumentRedactor, namespace: str | None, answer: ObjectParts | None = None
) -> None:
    """Replace the secrets in a request of a reconcile.

    Args:
        step: the request, which is changed.
        redactor: replaces them.
        namespace: of the reconcile.
        answer: the object in the response, if that is known. Default: it is read.
    """
    path, mark, query = step.target.partition("?")
    secret = concerns_secret(path)
    if query:
        step.target = path + mark + redactor.text(query, namespace)
    step.body = redactor.redact(step.body, namespace, secret=secret)
    step.response = redactor.redact(step.response, namespace, secret=secret and step.status < 300, found=answer)
    step.message = redactor.text(step.message, namespace)


_redacted = functools.lru_cache(maxsize=1024)(redact)
"""Queries and messages repeat."""


def concerns_secret(path: str) -> bool:
    """Return whether a path is that of Secrets, or of one of them; or of the token of a service account."""
    if "secrets" not in path and not path.endswith("token"):
        return False
    parts = path.split("/")
    resource = parts[5:6] if parts[3:4] == ["namespaces"] else parts[3:4]
    return resource == ["secrets"] or parts[-1] == "token"
