"""Values of the same shape in place of those of Secrets."""

from __future__ import annotations

import base64
import binascii
import hashlib
import random
import re
import string
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject

_PUBLIC = re.compile(rb"\s*(-----BEGIN (CERTIFICATE|PUBLIC KEY)-----[A-Za-z0-9+/=\s]*-----END \2-----\s*)+")
_PEM = re.compile("(-----(?:BEGIN|END) [A-Z0-9 ]+-----)")
_CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
_KEPT = frozenset(" \t\r\n-_./:@=+,")
_SIGNS = "!#$%^&*~?"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class SecretValues:
    """Replaces the values of Secrets by values of the same shape.

    A letter becomes a letter, a digit a digit; keys of JSON, the marks of PEM and the signs that separate words stay.
    Equal values have equal replacements, so comparisons between Secrets have the same result. Certificates and public
    keys are not secret, and stay.

    Args:
        key: random bytes, which are kept nowhere: who does not have them cannot check a guess.

    Attributes:
        replaced: how many values were replaced.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.replaced = 0

    def without_values(self, secret: JSONObject) -> JSONObject:
        """Return a Secret with other values."""
        found = dict(secret)
        if isinstance(secret.get("data"), dict):
            found["data"] = {name: self._encoded(value) for name, value in secret["data"].items()}
        if isinstance(secret.get("stringData"), dict):
            found["stringData"] = {name: self._text(str(value)) for name, value in secret["stringData"].items()}
        annotations = (secret.get("metadata") or {}).get("annotations") or {}
        if _LAST_APPLIED in annotations:  # it has the values once more
            applied = {**annotations, _LAST_APPLIED: self._applied(annotations[_LAST_APPLIED])}
            found["metadata"] = {**secret["metadata"], "annotations": applied}
        return found

    def _applied(self, text: str) -> str:
        try:
            document = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            return "{}"
        return msgspec.json.encode(self.without_values(document)).decode() + "\n"

    def _encoded(self, value: object) -> str:
        try:
            raw = base64.b64decode(str(value), validate=True)
        except (binascii.Error, ValueError):
            return ""
        return base64.b64encode(self._replacement(raw)).decode()

    def _text(self, value: str) -> str:
        return self._replacement(value.encode()).decode(errors="replace")

    def _replacement(self, raw: bytes) -> bytes:
        if not raw or _PUBLIC.fullmatch(raw):
            return raw
        self.replaced += 1
        rng = random.Random(hashlib.blake2b(raw, key=self._key).digest())  # noqa: S311 - the key is the secret
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return rng.randbytes(len(raw))
        if text.lstrip()[:1] in ("{", "["):
            try:
                return msgspec.json.encode(_in_json(msgspec.json.decode(text), rng))
            except (msgspec.MsgspecError, RecursionError):
                pass
        parts = _PEM.split(text)
        parts[::2] = [_same_shape(part, rng) for part in parts[::2]]
        return "".join(parts).encode()


def _in_json(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: _in_json(member, rng) for key, member in value.items()}
    if isinstance(value, list):
        return [_in_json(item, rng) for item in value]
    if isinstance(value, str):
        return _same_shape(value, rng)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_same_shape(str(value), rng))
    return value


def _same_shape(text: str, rng: random.Random) -> str:
    return "".join(_same_class(sign, rng) for sign in text)


def _same_class(sign: str, rng: random.Random) -> str:
    for letters in _CLASSES:
        if sign in letters:
            return rng.choice(letters)
    if sign in _KEPT:
        return sign
    return rng.choice(string.ascii_lowercase if sign.isalpha() else _SIGNS)
