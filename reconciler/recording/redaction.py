"""Redaction of recorded documents: the values of Secrets, and what looks like a secret elsewhere.

Nearly all of a document is the same in its next version, and contains no secret, so each part is searched once.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from reconciler._core.redaction import PLACEHOLDER, redact
from reconciler._core.redaction.known import WordSearch, spellings, with_places_replaced, words_of
from reconciler._core.redaction.names import NAMED, NAMING, kind_of_name, looks_random
from reconciler._core.wire import UNDECODABLE
from reconciler.recording.records import EffectStep, ListStep, LogStep, ReadStep, ReconcileRecord, RequestStep, Step

_MIN_HASHED = 64
"""Bytes from which texts are remembered by their hash, which is keyed, as all lists and mappings are."""

_MAX_PARTS, _MAX_TEXTS, _MAX_REPLACED = 100_000, 20_000, 2**22
"""Parts and texts that are remembered, and bytes of those that were replaced; then they are forgotten: 16 MB."""

_LONGEST_NAME, _LONGEST_VERSION = 253, 20
_MAX_LEVELS = 32

_MASKED = "W1JFREFDVEVEXQ=="
"""The placeholder in base64, as the values of a Secret are."""

_is_plain = re.compile(
    rb'"(?:[A-Za-z0-9_-]{0,15}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|\+00:00)'
    rb'|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"'
).fullmatch
"""Matches texts that are never secret under a harmless name: short words, times and uids."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode

_SECRETS = ("Secret", "SecretList")
_CONTAINERS = (b"{", b"[")
_JSON = ("{", "[", '"')
"""What JSON in text begins with."""

ABSENT = msgspec.Raw()
"""A part that a document does not have."""


class _PartsOfMetadata(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    name: str = ""
    namespace: str | None = None
    resource_version: str = ""
    annotations: msgspec.Raw = ABSENT
    labels: msgspec.Raw = ABSENT
    owner_references: msgspec.Raw = ABSENT
    finalizers: msgspec.Raw = ABSENT
    managed_fields: msgspec.Raw = ABSENT
    uid: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None


class ObjectParts(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """The parts of the document of an object, or of a change of one, that has no others."""

    api_version: str = ""
    kind: str = ""
    metadata: _PartsOfMetadata = msgspec.field(default_factory=_PartsOfMetadata)
    spec: msgspec.Raw = ABSENT
    status: msgspec.Raw = ABSENT
    data: msgspec.Raw = ABSENT


_object_parts = msgspec.json.Decoder(ObjectParts).decode


def object_in(data: bytes) -> ObjectParts | None:
    """Return the parts of an object's document; None if it is something else, or has further parts."""
    try:
        return _object_parts(data) if data[:1] == b"{" else None
    except UNDECODABLE:
        return None


RedactKnown = Callable[[str, str], str]
"""Removes the secrets that an operator knows from text of a namespace, ``""`` for none. Called in another thread."""


class DocumentRedactor:
    """Replaces secrets in JSON documents, and remembers the parts that it has seen.

    Attributes:
        known: removes the secrets that the operator knows, at each use, since they change. Default None: it knows none.
        values: replace further secrets.
    """

    def __init__(self) -> None:
        self.known: RedactKnown | None = None
        self.values: Sequence[SpelledValues] = ()
        self._texts: set[str] = set()  # harmless short texts
        self._parts: set[int] = set()  # hashes of longer texts, lists and mappings that are harmless
        self._replaced: dict[bytes, bytes] = {}  # parts with secrets, and what is written in their places
        self._replaced_bytes = 0

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
            text = data.decode("utf-8", "replace")
            if (unknown := self._known_replaced(text, namespace or "")) != text:
                data, found = unknown.encode(), None
        if secret:
            return _without_secrets(data, secret=True)
        if data[:1] in _CONTAINERS:
            try:
                found = found or object_in(data)
                return data if found is not None and self._is_harmless_object(found) else self._cleaned(data)
            except UNDECODABLE:
                pass  # it is text
        if (key := hash(data)) not in self._parts:
            clean = _without_secrets(data, secret=False)
            if clean != data:
                return clean
            self._remember([], [key])
        return data

    def text(self, text: str, namespace: str | None = None) -> str:
        """Return text without secrets that can be encoded, which a file's name in a log line may not be."""
        if not text or (hash(text) in self._parts and self.known is None and not self.values):
            return text  # a string has the hash of its bytes
        return self.redact(text.encode(errors="replace"), namespace).decode()

    def _known_replaced(self, text: str, namespace: str) -> str:
        found = self._without_known(text, namespace)
        if found == text and "\\" not in text:
            return text
        # Go writes "\\u0026" for an ampersand, so a secret may only show in the text that is meant.
        for each in (found, text):
            changed = _with_each_text(each, lambda inner: self._known_replaced(inner, namespace))
            if changed is not None and self._without_known(changed, namespace) == changed:
                return changed
        return found  # it is not JSON, or a part of it is a secret as a whole

    def _without_known(self, text: str, namespace: str) -> str:
        for values in self.values:
            text = values.replaced(text)
        return text if self.known is None else self.known(text, namespace)

    def _is_harmless_object(self, found: ObjectParts) -> bool:
        """Return whether an object has no secret. Its managedFields have only names that it has elsewhere, too."""
        metadata, version = found.metadata, found.metadata.resource_version
        if found.kind in _SECRETS or (version and not version.isdecimal()) or len(version) > _LONGEST_VERSION:
            return False
        names = found.api_version, found.kind, metadata.name, metadata.namespace, metadata.uid
        times = metadata.creation_timestamp, metadata.deletion_timestamp
        owners, spec, data = metadata.owner_references, found.spec, found.data
        parts = metadata.annotations, metadata.labels, owners, metadata.finalizers, spec, data
        status = bytes(found.status)  # by itself, since it changes most often
        key = hash((names, times, b"\0".join(parts)))  # JSON does not contain this byte
        if key in self._parts and (not status or hash(status) in self._parts):
            return True
        texts = [text for text in names + times if text and text not in self._texts]
        return self._are_harmless([*map(bytes, parts), status], texts, [key])

    def _are_harmless(
        self, parts: Iterable[bytes], texts: list[str], seen: list[int], levels: int = _MAX_LEVELS
    ) -> bool:
        """Return whether parts of a document, and texts, have no secret. What was seen before is not searched again."""
        harmless = all(self._collect(part, texts, seen, levels) for part in parts)
        return harmless and (not (texts or seen) or self._learn(texts, seen))

    def _collect(self, part: bytes, texts: list[str], parts: list[int], levels: int) -> bool:
        """Collect what was not seen before in a part; return False if a name says that there is a secret in it."""
        sign = part[:1]
        is_text = sign == b'"'
        if not is_text and sign not in _CONTAINERS:
            return True
        if not is_text or len(part) >= _MIN_HASHED:
            key = hash(part)
            if key in self._parts:
                return True
            parts.append(key)
        if is_text:
            if not _is_plain(part) and (text := _text(part)) not in self._texts:
                texts.append(text)
            return True
        inner = _inner(part)
        return (
            levels > 0
            and _says_nothing(inner)
            and all(self._collect(bytes(each), texts, parts, levels - 1) for each in _values(inner))
        )

    def _learn(self, texts: list[str], parts: list[int]) -> bool:
        """Return whether texts have no secret; remember them, and the parts that consist of them, if so."""
        together = "\n".join(texts)
        if any(map(_hides_secret, texts)) or (
            redact(together) != together and any(redact(text) != text for text in texts)
        ):
            return False
        self._remember(texts, parts)
        return True

    def _remember(self, texts: list[str], parts: list[int]) -> None:
        if len(self._parts) + len(parts) > _MAX_PARTS:
            self._parts.clear()
        if len(self._texts) + len(texts) > _MAX_TEXTS:
            self._texts.clear()
        self._parts.update(parts)
        self._texts.update(text for text in texts if len(text) < _MIN_HASHED)

    def _cleaned(self, part: bytes, levels: int = _MAX_LEVELS) -> bytes:
        """Return a part of a document without secrets: the smallest parts that have one are replaced.

        Below so many levels they are one part, since each level is searched again as a part of those around it.
        """
        if part in self._replaced:
            return self._replaced[part]
        if self._are_harmless([part], [], [], levels):
            return part
        inner = _inner(part) if levels and part[:1] in _CONTAINERS else None
        if inner is None or not _says_nothing(inner):
            clean = bytes(_items(_without_secrets(b"[%b]" % part, secret=False))[0])
        else:
            replaced = [msgspec.Raw(self._cleaned(bytes(each), levels - 1)) for each in _values(inner)]
            clean = msgspec.json.encode(
                replaced if isinstance(inner, list) else dict(zip(inner, replaced, strict=True))
            )
        if len(part) < _MAX_REPLACED:
            self._replaced_bytes += len(part) + len(clean)
            if self._replaced_bytes > _MAX_REPLACED:
                self._replaced.clear()
                self._replaced_bytes = 0
            self._replaced[part] = clean
        return clean


_Inner = dict[str, msgspec.Raw] | list[msgspec.Raw]


def _inner(part: bytes) -> _Inner:
    """Return the members or items of a part."""
    return _members(part) if part[:1] == b"{" else _items(part)


def _values(inner: _Inner) -> Iterable[msgspec.Raw]:
    return inner.values() if isinstance(inner, dict) else inner


def _says_nothing(inner: _Inner) -> bool:
    """Return whether no name in a mapping or list says that a value in it is a secret, and none is one itself."""
    if isinstance(inner, list):
        return not any(_is_name(bytes(item)) for item in inner)
    if not all(len(name) <= _LONGEST_NAME and _is_harmless_name(name) for name in inner):
        return False
    named = not NAMED.isdisjoint(map(str.lower, inner))
    telling = [part for name, part in inner.items() if name == "kind" or (named and name.lower() in NAMING)]
    return not any(kind_of_name(bytes(part).decode()) for part in telling)


@functools.lru_cache(maxsize=8192)
def _is_harmless_name(name: str) -> bool:
    return kind_of_name(name) is None and redact(name) == name and not _hides_secret(name)


def _is_name(item: bytes) -> bool:
    """Return whether an item of a list may say that the next one is a secret."""
    return item[:1] == b'"' and (item[:2] == b'"-' or kind_of_name(item.decode()) == "header")


def _hides_secret(text: str) -> bool:
    """Return whether text is JSON, YAML or base64 with a secret, which only shows if it is looked at by itself."""
    in_json = text.lstrip()[:1] in _JSON and redact(text) != text
    return in_json or ("Secret" in text and _mask_text(text) != text) or _without_encoded(text) is not text


def _without_secrets(data: bytes, *, secret: bool) -> bytes:
    """Return a document, or text, without secrets: all of it is searched."""
    secrets = secret or _names_secret(data) is not None
    if secrets:  # first, since they may be large
        data = _without_values(data, secret=secret)
    clean = redact(_without_encoded(data.decode("utf-8", "replace"))).encode()
    return _without_values(clean, secret=secret) if secrets else clean  # what was replaced is not base64


def _with_each_text(data: str, change: Callable[[str], str]) -> str | None:
    """Return a document with each text and number in it changed; None if it is not JSON, or too deep."""
    if data.lstrip()[:1] not in _JSON:
        return None
    try:
        document = msgspec.json.decode(data)
        changed = _each_text(document, change)
    except (RecursionError, *UNDECODABLE):
        return None
    return data if changed == document else msgspec.json.encode(changed).decode()


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return a document with each text, number and name of a member changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, int | float):
        return value if change(text := str(value)) == text else change(text)
    if isinstance(value, list):
        return [_each_text(each, change) for each in value]
    if isinstance(value, dict):
        return {change(name): _each_text(each, change) for name, each in value.items()}
    return value


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
            return msgspec.json.encode(PLACEHOLDER)
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
    secret = secret or value.get("kind") in _SECRETS
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

_find_encoded = re.compile(r"[A-Za-z0-9+/]{16,}+={0,2}")


def _without_encoded(text: str) -> str:
    """Return text without the base64 in it that is text with a secret; the same string if there is none."""
    within = _with_each_text(text, _without_encoded)
    clean = within or _find_encoded.sub(_encoded_or_placeholder, text)
    return text if clean == text else clean


def _encoded_or_placeholder(found: re.Match[str]) -> str:
    try:
        text = base64.b64decode(found[0], validate=True).decode()
    except ValueError:
        return found[0]
    return found[0] if redact(text) == text else PLACEHOLDER


_names_secret = re.compile(rb"\bSecret(?:List)?\b").search

_is_manifest = re.compile(
    r"""(?:^[^\S\n]*+(?:-[^\S\n]*+)*+|[{,]\s*+)\\*+["']?kind\\*+["']?\s*+:\s*+\\*+["']?Secret(?:List)?\b""",
    re.MULTILINE,
).search
"""Finds a Secret in YAML, also within other text. Linear: no other thread runs during a search."""


def _mask_text(text: str) -> str:
    """Return text that may be a manifest without the values of Secrets; a placeholder for one in YAML."""
    return _without_values(text.encode(errors="replace"), secret=False).decode()


def redact_step(step: Step, redactor: DocumentRedactor, namespace: str | None) -> None:
    """Replace the secrets in a log line, a list or an effect of a reconcile in a namespace."""
    if isinstance(step, LogStep):
        step.level, step.logger = redactor.text(step.level, namespace), redactor.text(step.logger, namespace)
        step.message = redactor.text(step.message, namespace)
    elif isinstance(step, ListStep):
        step.labels, step.fields = redactor.text(step.labels, namespace), redactor.text(step.fields, namespace)
    elif isinstance(step, EffectStep):
        step.key, step.message = redactor.text(step.key, namespace), redactor.text(step.message, namespace)
        for name in ("arguments", "attributes", "value"):
            setattr(step, name, redactor.redact(getattr(step, name), namespace))


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
    secret = concerns_secret(step.target)
    step.target = redactor.text(step.target, namespace)
    step.body = redactor.redact(step.body, namespace, secret=secret)
    step.response = redactor.redact(step.response, namespace, secret=secret and step.status < 300, found=answer)
    step.retry_after, step.message = redactor.text(step.retry_after, namespace), redactor.text(step.message, namespace)


def without_secret_draws(draws: list[Any], said: str) -> list[Any]:
    """Return the random numbers of a reconcile that made a secret; None for those that the secret may consist of.

    Args:
        draws: the numbers. Bytes are what `secrets`, `uuid` and `os` draw; a password made of single characters is a
            series of numbers, which cannot be told from others.
        said: what the reconcile sent and logged, redacted. Bytes that are part of it are not secret.
    """
    return [draw if isinstance(draw, bytes) and _is_part(draw, said) else None for draw in draws]


_url_safe = base64.urlsafe_b64encode


def _is_part(drawn: bytes, text: str) -> bool:
    spellings = [drawn.hex(), *(encode(drawn).decode().rstrip("=") for encode in (base64.b64encode, _url_safe))]
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

_MAX_LINES = 100
"""Lines of a value that are replaced by themselves, too."""


class SpelledValues:
    """Values of a Secret in their usual spellings, also in base64 and in hexadecimal digits.

    Args:
        values: the values.
    """

    def __init__(self, values: Iterable[str]) -> None:
        plain = {spelling for value in values for spelling in spellings(value)}
        self._words = {word: around for spelling in plain for word, around in words_of(spelling).items()}
        self._search = WordSearch(self._words)

    def replaced(self, text: str) -> str:
        """Return text without the values. What was encoded still is, as if a placeholder had been encoded."""
        return with_places_replaced(text, self._places(text))

    def _places(self, text: str) -> Iterator[tuple[int, int, str]]:
        done = 0
        for begin, end, word in self._search.places(text):
            if begin >= done:
                before, _, mask = self._words[word]
                first = max(done, text.index(word, begin) - before)
                place = (begin, end, mask) if mask else self._encoded_again(text, first, end)
                done = place[1]
                yield place

    def _encoded_again(self, text: str, begin: int, end: int) -> tuple[int, int, str]:
        """Return base64 without the values in it: its start, its end and what replaces it.

        Args:
            text: has the base64.
            begin: where four of its characters begin.
            end: where a value in it ends.
        """
        found = _RUN.match(text, begin)
        if found is None or found.end() < end:
            return begin, end, _MASKED
        digits = found[0].rstrip("=")
        signs = b"-_" if "-" in digits or "_" in digits else b"+/"  # the last two of the alphabet
        with contextlib.suppress(ValueError):
            data = base64.b64decode(digits + "=" * (-len(digits) % 4), altchars=signs)
            clean = self.replaced(data.decode(errors="surrogateescape")).encode(errors="surrogateescape")
            encoded = base64.b64encode(clean, altchars=signs).decode()
            if clean != data and not self._search.places(encoded):
                return begin, found.end(), encoded if len(found[0]) % 4 == 0 else encoded.rstrip("=")
        return begin, found.end(), _MASKED


_RUN = re.compile(r"[A-Za-z0-9+/_-]*+={0,2}")


def secret_values(record: ReconcileRecord, reads: Sequence[ReadStep]) -> list[SpelledValues]:
    """Return the values of the Secrets that a reconcile read or wrote, those of each Secret by themselves.

    Values that are neither called a secret nor look random, such as those of ``username``, are ordinary words.

    Args:
        record: the reconcile.
        reads: its reads, and the objects that enqueued it.
    """
    documents = [read.data for read in reads if read.kind == "v1/Secret"]
    for step in record.steps:
        if isinstance(step, RequestStep) and concerns_secret(step.target):
            documents += [step.body, step.response]
    return [_prepared(values) for values in set(map(_secrets_in, documents)) if values]


_prepared = functools.lru_cache(maxsize=8)(SpelledValues)


@functools.lru_cache(maxsize=8)
def _secrets_in(document: bytes) -> frozenset[str]:
    """Return the values of a Secret, or of a list of them, that are replaced wherever they stand."""
    return frozenset(
        part
        for name, value in _values_in(document)
        # A key may be logged by lines.
        for part in (value, *filter(looks_random, value.splitlines()[:_MAX_LINES]))
        if _MIN_VALUE <= len(part) <= _MAX_VALUE and (kind_of_name(name) is not None or looks_random(part))
    )


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


def concerns_secret(target: str) -> bool:
    """Return whether a path, or a request's target, is that of Secrets, of one, or of a service account's token."""
    if "secrets" not in target and "token" not in target:
        return False
    parts = target.partition("?")[0].split("/")
    resource = parts[5:6] if parts[3:4] == ["namespaces"] else parts[3:4]
    return resource == ["secrets"] or parts[-1] == "token"
