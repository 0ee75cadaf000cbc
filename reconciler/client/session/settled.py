"""Remember what the server makes of what is sent, so that its defaults are not taken for differences."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

from reconciler.client.session.requests import KEPT_BY_THE_SERVER
from reconciler.meta import equal, version_of

__all__ = ["Settled", "own_part"]


class Settled:
    """Remember, for each object, the last document that was sent and the version that came of it.

    A server fills in defaults, in lists too: whoever sets ``ports: [{port: 80}]`` reads back a protocol and a target
    port. Compared with what is stored, the same wish looks like a difference for ever, and each reconcile writes. But
    at the version that the answer had, what was sent is known to have become what is stored.

    Args:
        most: objects that are remembered; of more, the least recent is forgotten, which costs one more write.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._sent: OrderedDict[Hashable, tuple[str, Mapping[str, Any]]] = OrderedDict()

    def learn(self, key: Hashable, sent: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
        """Remember that writing `sent` led to `stored`."""
        self._sent.pop(key, None)
        if not equal(own_part(sent), own_part(stored)):
            self._sent[key] = (version_of(stored), sent)
            if len(self._sent) > self._most:
                self._sent.popitem(last=False)

    def same(self, key: Hashable, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        """Say whether writing `wanted` would change nothing of what is stored."""
        version, sent = self._sent.get(key, ("", None))
        return _same(stored, wanted, sent if version == version_of(stored) else None)

    def __len__(self) -> int:
        return len(self._sent)


def own_part(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without the metadata that the server keeps."""
    metadata = document.get("metadata") or {}
    return {**document, "metadata": {key: metadata[key] for key in metadata if key not in KEPT_BY_THE_SERVER}}


def _same(stored: Any, wanted: Any, sent: Any) -> bool:
    """Say whether each part is as it is stored, or as it was sent when it became what is stored."""
    if equal(stored, wanted):
        return True
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping) and isinstance(sent, Mapping):
        return all(
            _same_member(stored.get(key), wanted.get(key), sent.get(key)) for key in stored.keys() | wanted.keys()
        )
    if isinstance(stored, list) and isinstance(wanted, list) and isinstance(sent, list):
        return len(stored) == len(wanted) == len(sent) and all(map(_same_member, stored, wanted, sent))
    return False


def _same_member(stored: Any, wanted: Any, sent: Any) -> bool:
    # Absent from what is wanted and from what was sent as well: the server has filled it in.
    return equal(wanted, sent) or _same(stored, wanted, sent)
