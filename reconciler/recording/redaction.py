"""Redaction of recorded documents: the values of Secrets, and what looks like a secret elsewhere.

Nearly all of a document is the same in its next version, so each part is redacted once.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from reconciler._core.redaction import PLACEHOLDER, redact
from reconciler._core.redaction.names import kind_of_name
from reconciler._core.wire import UNDECODABLE
from reconciler.recording.records import RequestStep

_MAX_PARTS = 50_000
_MAX_BYTES = 2**23
"""Parts, and bytes of them, that are remembered; then all are forgotten."""

_SHORT = 40
"""Bytes of a part that is not worth splitting."""

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
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


class DocumentRedactor:
    """Replaces secrets in JSON documents, and remembers the parts that it has seen."""

    def __init__(self) -> None:
        self._clean: dict[tuple[str, bytes], bytes] = {}
        self._harmless: set[str | bytes] = set()  # texts, and parts of documents
        self._neutral: set[str] = set()  # names of members
        self._bytes = 0

    def redact(self, data: bytes, *, secret: bool = False) -> bytes:
        """Return a document without secrets; text that is not JSON as well.

        Args:
            data: the document.
            secret: whether it is a Secret, or a change of one. Default: as its kind says.
        """
        if not data:
            return data
        if secret or b'"Secret' in data:
            masked = _without_values(data, secret=secret)
            if masked is not None:
                return masked
        try:
            if self._is_harmless(data):
                return data
        except UNDECODABLE:
            pass
        return self._part("", data)

    def _is_harmless(self, data: bytes) -> bool:
        """Return whether nothing in a document could be a secret; the parts that were seen before are not searched."""
        members = _members(data)
        metadata = members.pop("metadata", None)
        parts = [*members.items()]
        if metadata is not None:
            parts += [(name, part) for name, part in _members(metadata).items() if name != "managedFields"]
        for name, raw in parts:
            part = bytes(raw)
            if name in self._neutral and (part in self._harmless or _is_plain(part)):
                continue
            unknown: list[str] = []
            if not self._collect({name: msgspec.json.decode(part)}, unknown) or not self._learn(unknown):
                return False
            self._harmless.add(part)
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
        if len(self._harmless) + len(self._neutral) >= _MAX_PARTS:
            self._harmless.clear()
            self._neutral.clear()
        self._harmless.update(texts)
        return True

    def _part(self, name: str, raw: bytes) -> bytes:
        """Return a member of this name without secrets."""
        found = self._clean.get((name, raw))
        if found is None and _is_plain(raw) and kind_of_name(name) is None:
            return raw
        if found is None:
            found = self._redacted(name, raw)
            self._bytes += len(raw)
            if len(self._clean) >= _MAX_PARTS or self._bytes > _MAX_BYTES:
                self._clean.clear()
                self._bytes = len(raw)
            self._clean[name, raw] = found
        return found

    def _redacted(self, name: str, raw: bytes) -> bytes:
        begin = raw[:1]
        if len(raw) > _SHORT and begin in (b"{", b"[") and kind_of_name(name) is None:
            try:
                if begin == b"[" and raw[1:2] in (b"{", b"["):
                    return b"[" + b",".join([self._part("", bytes(each)) for each in _items(raw)]) + b"]"
                if begin == b"{":
                    members = _members(raw)
                    if not _NAMED.intersection(members):  # what one member is called may say what another contains
                        parts = [_quoted(key) + b":" + self._part(key, bytes(part)) for key, part in members.items()]
                        return b"{" + b",".join(parts) + b"}"
            except UNDECODABLE:
                pass
        text = raw.decode("utf-8", "replace")
        return _member(name, text) if name else redact(text).encode()


_NAMED = frozenset({"value", "default"})
_NAMES = ("name", "key", "header")
"""Members whose value may say what a member of `_NAMED` contains."""


def _member(name: str, text: str) -> bytes:
    redacted = redact(f"{{{json.dumps(name)}:{text}}}")
    try:
        return bytes(next(iter(_members(redacted.encode()).values())))
    except UNDECODABLE:
        return _quoted(PLACEHOLDER)


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


def redact_request(step: RequestStep, redactor: DocumentRedactor) -> None:
    """Replace the secrets in a request and its response."""
    secret = concerns_secret(step.path)
    path, mark, query = step.target.partition("?")
    step.target = path + mark + redacted_text(query)
    step.body = redactor.redact(step.body, secret=secret)
    step.response = redactor.redact(step.response, secret=secret and step.status < 300)
    step.message = redacted_text(step.message)


redacted_text = functools.lru_cache(maxsize=1024)(redact)
"""Queries and messages repeat."""


def concerns_secret(path: str) -> bool:
    """Return whether a path is that of Secrets, or of one of them; or of the token of a service account."""
    parts = path.split("/")
    return "secrets" in parts[3:6] or parts[-1] == "token"
