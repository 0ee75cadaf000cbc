"""Redaction of recorded documents: the values of Secrets, and what looks like a secret elsewhere.

Nearly all of a document is the same in its next version, and contains no secret, so each part is searched once.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from reconciler._core.redaction import PLACEHOLDER, redact
from reconciler._core.redaction.names import kind_of_name, looks_random
from reconciler._core.wire import UNDECODABLE
from reconciler.recording.records import EffectStep, LogStep, ReconcileRecord, RequestStep, Step, reads_of

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

_entries = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
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


_OF_METADATA = frozenset({"annotations", "labels", "ownerReferences", "finalizers", "managedFields"})


def _with_parts(data: bytes, parts: list[tuple[str, bytes]]) -> bytes:
    """Return the document of an object with other parts."""
    document = msgspec.json.decode(data)
    for name, part in parts:
        place = document["metadata"] if name in _OF_METADATA else document
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
        values: further secrets, and what replaces each.
    """

    def __init__(self) -> None:
        self.known: RedactKnown | None = None
        self.values: dict[str, str] = {}
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
        if self.known is not None or self.values:
            unknown = _without_known(data, self._known_replaced, namespace or "")
            data, found = unknown, found if unknown is data else None
        clean = self._without_forms(data, found)
        return (
            _without_values(clean, secret=secret) if secret or (b"Secret" in clean and _names_secret(clean)) else clean
        )

    def _without_forms(self, data: bytes, found: ObjectParts | None) -> bytes:
        """Return a document without what looks like a secret."""
        clean = _encoded_text.sub(lambda each: _without_encoded(each.group()), data)
        if clean != data:
            data, found = clean, None
        found = found or object_in(data)
        try:
            if found is None:
                members = _members(data)
                parts = list(members.items())
                searchable = all(map(self._is_neutral, members)) and _NAMED.isdisjoint(map(str.lower, members))
            else:
                parts = _searched(found)
                searchable = self._are_harmless_texts(found)
            if searchable:
                replaced = [(name, new) for name, raw in parts if (new := self._replacement(name, bytes(raw)))]
                if not replaced:
                    return data
                if found is not None:  # its other parts are harmless, and managedFields have the names of all fields
                    if found.metadata.managed_fields is not _ABSENT:
                        replaced.append(("managedFields", self._managed_fields(found.metadata.managed_fields)))
                    return _with_parts(data, replaced)
        except UNDECODABLE:
            pass
        return redact(data.decode("utf-8", "replace")).encode()

    def text(self, text: str, namespace: str | None = None) -> str:
        """Return text without secrets."""
        if not text:
            return text
        return _redacted(self._known_replaced(text, namespace or ""))

    def _known_replaced(self, text: str, namespace: str) -> str:
        for value, placeholder in self.values.items():
            text = text.replace(value, placeholder)
        return text if self.known is None else self.known(text, namespace)

    def _are_harmless_texts(self, found: ObjectParts) -> bool:
        metadata = found.metadata
        times = f"{metadata.creation_timestamp} {metadata.deletion_timestamp}"
        if not _are_stamps(f"{metadata.uid} {metadata.resource_version} {times}"):
            return False
        together = f"{found.api_version}\n{found.kind}\n{metadata.name}\n{metadata.namespace}"
        return together in self._harmless or (self._learn(together.split("\n")) and self._remember(together))

    def _managed_fields(self, managed: msgspec.Raw) -> bytes:
        """Return managedFields without secrets. Between two writes little more than their times changes."""
        entries = _entries(managed)
        for entry in entries:
            new = {name: self._replacement(name, bytes(raw)) for name, raw in entry.items()}
            entry.update({name: msgspec.Raw(part) for name, part in new.items() if part})
        return msgspec.json.encode(entries)

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
            lower = [(name.lower(), part) for name, part in value.items()]
            says = any(name in _NAMES and kind_of_name(str(part)) for name, part in lower)
            if says and any(name in _NAMED for name, _ in lower):
                return False
            return all(self._is_neutral(name) and self._collect(part, unknown) for name, part in value.items())
        if isinstance(value, list):
            return not any(_is_name(part) for part in value) and all(self._collect(part, unknown) for part in value)
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
        if any(text.lstrip()[:1] in _JSON and redact(text) != text for text in texts):  # only by itself is it JSON
            return False
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


_JSON = ("{", "[", '"')
"""What JSON in text begins with."""


def _is_name(item: object) -> bool:
    """Return whether an item of a list may say that the next one is a secret."""
    return isinstance(item, str) and (item.startswith("-") or kind_of_name(item) == "header")


_quoted: Callable[[str], bytes] = msgspec.json.encode


def _without_values(data: bytes, *, secret: bool) -> bytes:
    """Return a document with the values of the Secrets in it replaced, wherever they stand.

    Args:
        data: the document.
        secret: whether it is a Secret, a list of them or a change of one, whatever its kind says.
    """
    try:
        document = msgspec.json.decode(data)
    except UNDECODABLE:
        if secret:
            return _quoted(PLACEHOLDER)
        text = data.decode("utf-8", "replace")
        return PLACEHOLDER.encode() if _is_manifest(text) else data
    masked = _mask(document, secret=secret)
    return data if masked == document else msgspec.json.encode(masked)


def _mask(value: Any, *, secret: bool) -> Any:
    """Return a part of a document with the values of the Secrets in it replaced."""
    if isinstance(value, str):
        return _mask_text(value) if "Secret" in value else value
    if isinstance(value, list):
        return [_mask(item, secret=secret) for item in value]
    if not isinstance(value, dict):
        return value
    if secret and "op" in value and "value" in value:  # an operation of a JSON Patch
        return {**value, "value": PLACEHOLDER}
    secret = secret or value.get("kind") in ("Secret", "SecretList")
    found = {name: _mask(part, secret=secret and name in _OF_LISTS) for name, part in value.items()}
    if not secret:
        return found
    for field, placeholder in (("data", _MASKED), ("stringData", PLACEHOLDER)):
        if isinstance(found.get(field), dict):
            found[field] = {key: each and placeholder for key, each in found[field].items()}
    metadata = found.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("annotations"), dict):
        # kubectl keeps the whole object in one.
        annotations = {key: PLACEHOLDER if '"' in str(each) else each for key, each in metadata["annotations"].items()}
        found["metadata"] = {**metadata, "annotations": annotations}
    return found


_OF_LISTS = frozenset({"items", "rows", "object"})
"""Members of a list of Secrets, or of a table of them, that contain Secrets without a kind."""

_encoded_text = re.compile(rb'"[A-Za-z0-9+/]{16,}={0,2}"')


@functools.lru_cache(maxsize=4096)
def _without_encoded(quoted: bytes) -> bytes:
    """Return a quoted text, or a placeholder if it is text with a secret in base64."""
    try:
        text = base64.b64decode(quoted[1:-1], validate=True).decode()
    except ValueError:
        return quoted
    return quoted if redact(text) == text else _quoted(PLACEHOLDER)


_names_secret = re.compile(rb"\bSecret(?:List)?\b").search

_is_manifest = re.compile(r"""^[\s-]*["']?kind["']?\s*:\s*["']?Secret(List)?\b""", re.MULTILINE).search
"""Finds a Secret in YAML."""


def _mask_text(text: str) -> str:
    """Return text that may be a manifest without the values of Secrets; a placeholder for one in YAML."""
    try:
        document = msgspec.json.decode(text) if text.lstrip()[:1] in _JSON else None
    except UNDECODABLE:
        document = None
    if document is None:
        return PLACEHOLDER if _is_manifest(text) else text
    masked = _mask(document, secret=False)
    return text if masked == document else msgspec.json.encode(masked).decode()


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
    step.target = redactor.text(path, namespace) + mark + redactor.text(query, namespace)
    step.body = redactor.redact(step.body, namespace, secret=secret)
    step.response = redactor.redact(step.response, namespace, secret=secret and step.status < 300, found=answer)
    step.retry_after = redactor.text(step.retry_after, namespace)
    step.message = redactor.text(step.message, namespace)


_redacted = functools.lru_cache(maxsize=1024)(redact)
"""Queries and messages repeat."""


def without_secret_draws(draws: list[Any], sent: str) -> list[Any]:
    """Return the random numbers of a reconcile that sent a secret; None for those that may be the secret.

    Args:
        draws: the numbers. Bytes are what `secrets`, `uuid` and `os` draw.
        sent: what the reconcile sent, redacted. Bytes that are part of it were not replaced, so they are not secret.
    """
    return [draw if not isinstance(draw, bytes) or _is_part(draw, sent) else None for draw in draws]


def _is_part(drawn: bytes, text: str) -> bool:
    spellings = [drawn.hex(), base64.b64encode(drawn).decode()]
    if len(drawn) == 16:
        unique = uuid.UUID(bytes=drawn, version=4)
        spellings += [str(unique), unique.hex]
    return len(drawn) >= 8 and any(spelling in text for spelling in spellings)


class _SecretOrList(msgspec.Struct, rename="camel"):
    data: dict[str, str | None] = {}
    string_data: dict[str, str | None] = {}
    items: list[_SecretOrList] = []


_secret_or_list = msgspec.json.Decoder(_SecretOrList).decode

_MIN_VALUE, _MAX_VALUE = 6, 1000
"""Characters of a value that is replaced wherever it stands. Shorter ones are ordinary words, longer ones documents."""


def secret_values(record: ReconcileRecord) -> dict[str, str]:
    """Return the values of the Secrets that a reconcile read or wrote, also in base64, and what replaces each.

    Values that are neither called a secret nor look random, such as those of ``username``, are ordinary words.
    """
    documents = [read.data for read in reads_of(record) if read.kind == "v1/Secret"]
    for step in record.steps:
        if isinstance(step, RequestStep) and concerns_secret(step.path):
            documents += [step.body, step.response]
    found: dict[str, str] = {}
    for name, value in itertools.chain.from_iterable(map(_values_in, documents)):
        if _MIN_VALUE <= len(value) <= _MAX_VALUE and (kind_of_name(name) is not None or looks_random(value)):
            found |= {value: PLACEHOLDER, _quoted(value)[1:-1].decode(): PLACEHOLDER}
            found[base64.b64encode(value.encode()).decode()] = _MASKED
    return dict(sorted(found.items(), key=lambda each: -len(each[0])))


def _values_in(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of a Secret, or of a list of them; binary values are left out."""
    try:
        document = _secret_or_list(data)
    except UNDECODABLE:
        return
    for secret in (document, *document.items):
        for name, value in secret.data.items():
            with contextlib.suppress(ValueError):
                yield name, base64.b64decode(value or "").decode()
        yield from ((name, value or "") for name, value in secret.string_data.items())


def concerns_secret(path: str) -> bool:
    """Return whether a path is that of Secrets, or of one of them; or of the token of a service account."""
    if "secrets" not in path and not path.endswith("token"):
        return False
    parts = path.split("/")
    resource = parts[5:6] if parts[3:4] == ["namespaces"] else parts[3:4]
    return resource == ["secrets"] or parts[-1] == "token"
