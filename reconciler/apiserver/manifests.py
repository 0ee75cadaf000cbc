"""Manifests: documents in classes, mappings, YAML and JSON files, and directories of such files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from reconciler.apiserver.serving.request_log import Defined
from reconciler.errors import ConfigurationError

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


@runtime_checkable
class _Documented(Protocol):
    def to_dict(self) -> Mapping[str, Any]: ...


def documents_of(thing: object) -> Iterator[Mapping[str, Any]]:
    """Yield the documents of a class with ``crd()``, a document, a ``List``, a file, or the files of a directory.

    Raises:
        ConfigurationError: `thing` is none of these, or the file cannot be read.
    """
    if isinstance(thing, Mapping):
        yield from _flat(thing)
    elif isinstance(thing, (str, Path)):
        path = Path(thing)
        files = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES) if path.is_dir() else [path]
        if not files:
            raise ConfigurationError(f"no YAML or JSON file in {path}")
        found = [document for file in files for whole in _read(file) for document in _flat(whole)]
        # Of a directory, definitions come first: files have no order that its author chose.
        yield from sorted(found, key=lambda each: len(files) > 1 and each["kind"] != "CustomResourceDefinition")
    elif isinstance(thing, Defined):
        yield thing.crd()
    elif isinstance(thing, _Documented):
        yield from _flat(thing.to_dict())
    else:
        raise ConfigurationError(
            f"{thing!r} cannot be applied: pass a class with crd(), a document, or the path of a YAML or JSON file, or "
            "of a directory of them"
        )


def _flat(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _flat(item)
    else:
        yield document


def _read(path: Path) -> list[Mapping[str, Any]]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not valid UTF-8") from error
    try:
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f": see line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise ConfigurationError(f"{path} is not valid YAML{where}") from error
    except (ValueError, RecursionError) as error:  # a date that does not exist, or too many levels
        raise ConfigurationError(f"{path} contains a value that cannot be read: {error}") from error
    for document in found:
        if not isinstance(document, Mapping):
            raise ConfigurationError(f"{path} contains {document!r}, which is not an object")
        if not (document.get("apiVersion") and document.get("kind")):
            raise ConfigurationError(f"{path} contains a document without apiVersion or kind; it needs both")
    return found
