"""Compare resource versions of one kind in one cluster.

They are integers there (KEP-5504, stable in Kubernetes 1.35); servers of aggregated APIs may answer other strings,
for which only equality is defined.
"""

from __future__ import annotations

__all__ = ["Version", "is_newer", "parse_version"]

Version = int | str
"""A resource version: an int where it parses as one, else the opaque string."""


def parse_version(text: str) -> Version:
    """Return the version as an int, or the text itself when it is no decimal number."""
    return int(text) if text.isascii() and text.isdigit() else text


def is_newer(version: Version, than: Version | None) -> bool:
    """Say whether `version` comes after `than`; for opaque versions, whether they differ.

    None comes before everything.
    """
    if than is None:
        return True
    if isinstance(version, int) and isinstance(than, int):
        return version > than
    return version != than
