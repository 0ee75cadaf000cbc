"""Lines of a stream, out of chunks that split anywhere."""

from __future__ import annotations

from reconciler.errors import InvalidResponse

__all__ = ["LONGEST_LINE", "LineSplitter"]

LONGEST_LINE = 2**25
"""Bytes of a line at most, 32 MiB: twenty times the largest object that etcd takes by default (1.5 MiB)."""


class LineSplitter:
    """Joins chunks into lines of up to `LONGEST_LINE` bytes; each byte is copied a bounded number of times."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next chunk; return the lines that it completes, empty ones left out.

        Raises:
            InvalidResponse: a line is too long.
        """
        if b"\n" not in chunk:
            self._parts.append(chunk)
            self._size += len(chunk)
            self._check(self._size)
            return []
        first, *lines = chunk.split(b"\n")
        self._check(self._size + len(first))
        lines.insert(0, b"".join([*self._parts, first]))
        self._parts = [lines.pop()]
        self._size = len(self._parts[0])
        return [line for line in lines if line]

    def _check(self, size: int) -> None:
        if size > LONGEST_LINE:
            raise InvalidResponse(
                f"an event of the watch is longer than {LONGEST_LINE // 2**20} MiB: an API server sends none like it; "
                "check what stands between it and this client"
            )
