"""Redaction of recorded documents: the values of Secrets, and what looks like a secret elsewhere.

Nearly all of a document is the same in its next version, and contains no secret, so each part is searched once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
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

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


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
        self._neutral: set[str] = set()  # names of members
        self._bytes = 0

    def redact(self, data: bytes, namespace: str | None = None, *, secret: bool = False) -> bytes:
        """Return a document without secrets; text that is not JSON as well.

        Args:
            data: the document.
            namespace: where it belongs. Default: nowhere.
            secret: whether it is a Secret, or a change of one. Default: as its kind says.
        """
        if not data:
            return data
        if self.known is not None:
            data = _without_known(data, self.known, namespace or "")
        if secret or b'"Secret' in data:
            masked = _without_values(data, secret=secret)
            if masked is not None:
                return masked
        try:
            if self._is_harmless(data):
                return data
        except UNDECODABLE:
            pass
        return redact(data.decode("utf-8", "replace")).encode()

    def text(self, text: str, namespace: str | None = None) -> str:
        """Return text without secrets."""
        if not text:
            return text
        return _redacted(text if self.known is None else self.known(text, namespace or ""))

    def _is_harmless(self, data: bytes) -> bool:
        """Return whether nothing in a document could be a secret; the parts that were seen before are not searched."""
        members = _members(data)
        metadata = members.pop("metadata", None)
        if metadata is not None:
            described = _members(metadata)
            described.pop("managedFields", None)
            if not self._are_harmless(described):
                return False
        return self._are_harmless(members)

    def _are_harmless(self, members: dict[str, msgspec.Raw]) -> bool:
        for name, raw in members.items():
            part = bytes(raw)
            if name in self._neutral and (part in self._harmless or _is_plain(part)):
                continue
            unknown: list[str] = []
            if not self._collect({name: msgspec.json.decode(part)}, unknown) or not self._learn(unknown):
                return False
            self._remember(part)
        return True

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

    def _remember(self, part: str | bytes) -> None:
        self._bytes += len(part)
        if self._bytes > _MAX_BYTES or len(self._neutral) > _MAX_NAMES:
            self._harmless.clear()
            self._neutral.clear()
            self._bytes = len(part)
        self._harmless.add(part)


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
        secret = concerns_secret(step.path)
        path, mark, query = step.target.partition("?")
        step.target = path + mark + redactor.text(query, namespace)
        step.body = redactor.redact(step.body, namespace, secret=secret)
        step.response = redactor.redact(step.response, namespace, secret=secret and step.status < 300)
        step.message = redactor.text(step.message, namespace)
    elif isinstance(step, LogStep):
        step.message = redactor.text(step.message, namespace)
    elif isinstance(step, EffectStep):
        step.key, step.message = redactor.text(step.key, namespace), redactor.text(step.message, namespace)
        step.arguments = redactor.redact(step.arguments, namespace)
        step.attributes = redactor.redact(step.attributes, namespace)
        step.value = redactor.redact(step.value, namespace)


_redacted = functools.lru_cache(maxsize=1024)(redact)
"""Queries and messages repeat."""


def concerns_secret(path: str) -> bool:
    """Return whether a path is that of Secrets, or of one of them; or of the token of a service account."""
    parts = path.split("/")
    resource = parts[5:6] if parts[3:4] == ["namespaces"] else parts[3:4]
    return resource == ["secrets"] or parts[-1] == "token"
