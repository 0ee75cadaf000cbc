"""The compressed form of cached objects that nobody reads or changes.

Objects of one kind are alike. With a dictionary that is nothing but a few objects of the kind, zstd compresses an
object of 2 to 3 KB ten to twelve times in 2 to 5 µs, and restores it in about 3 µs.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reconciler.objects import AnyResource

AVAILABLE = importlib.util.find_spec("zstandard") is not None
"""Whether zstd is installed; without it objects stay as they were received."""

if TYPE_CHECKING or AVAILABLE:
    import zstandard

    _FORMAT = zstandard.FORMAT_ZSTD1_MAGICLESS

SAMPLES = 16
"""Objects in a dictionary. A trained dictionary of the same size saves a tenth more, and takes a second to train."""

_LARGEST_DICTIONARY = 64 * 1024
"""Bytes."""

_WORTHWHILE = 0.8
"""A document stays as it is if it does not become smaller than this."""

_FITS = 0.7
"""A dictionary is replaced when the compression ratio has fallen below this share of its first ratio."""

_WINDOW = 1024 * 1024
"""Bytes of documents over which a ratio is measured."""

_DICTIONARIES = 16
"""Dictionaries of one kind; the last one stays. None is removed, since a snapshot may contain a frame of it."""

DOCUMENT = ord("}")
"""The last byte of a document. A frame ends with the number of its format, which is lower."""


class _Dictionary:
    """A zstd dictionary, with the contexts that use it.

    Args:
        samples: documents of the kind.

    Attributes:
        ratio: the compression ratio over the first `_WINDOW` bytes; None until then.
    """

    def __init__(self, samples: Sequence[bytes]) -> None:
        # The small ones first: one that is much larger than the others would leave no room for them.
        small_first = sorted(samples, key=len)
        content = b"".join(small_first)[:_LARGEST_DICTIONARY]
        dictionary = zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        # Only matches of 6 bytes and more: shorter ones, of random texts such as uids, cost more than they save. The
        # lazy strategy saves a further fifth of a widget and 2 % of a pod, for more than twice the time.
        parameters = zstandard.ZstdCompressionParameters(format=_FORMAT, strategy=zstandard.STRATEGY_DFAST, min_match=6)
        dictionary.precompute_compress(compression_params=parameters)
        self.compress = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress
        self.decompress = zstandard.ZstdDecompressor(dict_data=dictionary, format=_FORMAT).decompress
        self.ratio: float | None = None


class Compressor:
    """Compresses the documents of one kind into frames.

    A frame is the compressed document and the number of its format, which zstd ignores. A format says which dictionary
    was used and which class the document was last found to fit.

    Where there may be a frame, there may also be a document: an object as it was listed.
    """

    def __init__(self) -> None:
        self._dictionaries: list[_Dictionary] = []
        self._formats: list[tuple[Callable[[bytes], bytes], type[AnyResource] | None]] = []
        self._reading = threading.Lock()
        self._received = self._compressed = 0

    def learn(self, samples: Callable[[], Sequence[bytes]]) -> None:
        """Make a dictionary of sample documents, if there is none or if the documents have changed since."""
        if self._dictionaries:
            if self._received < _WINDOW or len(self._dictionaries) == _DICTIONARIES:
                return
            dictionary, ratio = self._dictionaries[-1], self._received / self._compressed
            self._received = self._compressed = 0
            dictionary.ratio = dictionary.ratio or ratio
            if ratio >= dictionary.ratio * _FITS:
                return
        self._dictionaries.append(_Dictionary(samples()))

    def pack(self, data: bytes, fits: type[AnyResource] | None) -> bytes | None:
        """Return the frame of a document, after `learn`; None if it would not be much smaller."""
        dictionary = self._dictionaries[-1]
        compressed = dictionary.compress(data)
        self._received += len(data)
        self._compressed += len(compressed)
        used = (dictionary.decompress, fits)
        if used not in self._formats and len(self._formats) < DOCUMENT:
            self._formats.append(used)
        if used not in self._formats or len(compressed) > len(data) * _WORTHWHILE:
            return None
        return compressed + bytes((self._formats.index(used),))

    def unpack(self, frame: bytes) -> tuple[bytes, type[AnyResource] | None]:
        """Return the document in a frame, and the class that it was last found to fit; a document as it is."""
        if frame[-1] == DOCUMENT:
            return frame, None
        decompress, fits = self._formats[frame[-1]]
        with self._reading:  # two threads in one context of zstd would crash the process
            return decompress(frame), fits


def release_memory() -> None:
    """Return freed memory to the operating system, where the allocator does not do so itself.

    glibc returns memory only from the end of its heap, and objects that are still in use lie there. Takes 1 ms per
    16 MB.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
