"""The versions of Kubernetes that the server can be, and what was recorded of each.

The data files have what was recorded of the newest version. ``versions/`` has a packed file for each other one: by the
path of a data file, a JSON merge patch that turns its content into that of the older version.
"""

from __future__ import annotations

import functools
import lzma
import re
from typing import Any

import msgspec

from reconciler.apiserver.encoding.json_documents import merge_patch
from reconciler.apiserver.encoding.text import data_file, recorded
from reconciler.errors import ConfigurationError

VERSIONS = ("1.33", "1.34", "1.35", "1.36")
NEWEST = VERSIONS[-1]
_TAG = re.compile(r"v?(\d+\.\d+)(\.\d+)?([-+].*)?")


def checked_version(version: str) -> str:
    """Return the version of Kubernetes that is asked for: ``"1.34"``, or a patch release of it, such as ``v1.34.2``.

    Raises:
        ConfigurationError: nothing was recorded of it; the message names those that there are.
    """
    if (known := known_version(version)) is None:
        raise ConfigurationError(
            f"the embedded API server cannot be Kubernetes {version!r}: choose one of {', '.join(VERSIONS)}"
        )
    return known


def known_version(text: object) -> str | None:
    """Return the version of Kubernetes that ``v1.34.2-gke.100`` is of, or None if nothing was recorded of it."""
    found = _TAG.fullmatch(text) if isinstance(text, str) else None
    return found[1] if found is not None and found[1] in VERSIONS else None


def has_feature(name: str, version: str) -> bool:
    """Return whether a version of Kubernetes has a feature, by default or behind its gate."""
    return VERSIONS.index(version) >= VERSIONS.index(recorded("versions/features.json")[name])


@functools.cache
def _changes(version: str) -> dict[str, msgspec.Raw]:
    """Return the merge patches of an older version, by the path of the data file."""
    packed = data_file(f"versions/{version}.json.xz")
    return msgspec.json.decode(lzma.decompress(packed), type=dict[str, msgspec.Raw])


@functools.cache
def recorded_for(path: str, version: str) -> Any:
    """Return the content of a JSON file as of a version of Kubernetes, which must not be changed."""
    return recorded(path) if version == NEWEST else in_version(recorded(path), path, version)


def in_version(newest: Any, path: str, version: str) -> Any:
    """Return the content of a data file, or a part that has a patch of its own, as of a version of Kubernetes."""
    change = {} if version == NEWEST else _changes(version)
    return merge_patch(newest, msgspec.json.decode(change[path])) if path in change else newest
