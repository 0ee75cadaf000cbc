"""Make the private key that service account tokens are signed with."""

from __future__ import annotations

import base64
import secrets
import textwrap

__all__ = ["new_private_key"]

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of P-256 (SEC 2, 2.4.2)."""

_P256 = bytes.fromhex("06082a8648ce3d030107")
"""The object identifier 1.2.840.10045.3.1.7, encoded."""


def new_private_key() -> str:
    """Return a new P-256 private key as PEM (RFC 5915).

    A key on this curve is a random number, and the public key may be left out, so that no library is needed.
    """
    number = secrets.randbelow(_ORDER - 1) + 1
    body = b"\x02\x01\x01" + _der(0x04, number.to_bytes(32)) + _der(0xA0, _P256)
    text = base64.b64encode(_der(0x30, body)).decode()
    return "\n".join(["-----BEGIN EC PRIVATE KEY-----", *textwrap.wrap(text, 64), "-----END EC PRIVATE KEY-----", ""])


def _der(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content
