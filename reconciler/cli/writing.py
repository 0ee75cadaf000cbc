"""Files that are written all or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from reconciler.errors import ConfigurationError

__all__ = ["write_files"]


def write_files(directory: Path, files: Mapping[str, str], *, known: Mapping[str, str] | None = None) -> None:
    """Write files below a directory; after a failure or an interrupt, everything is as before.

    Args:
        directory: created if it does not exist.
        files: texts by path.
        known: the present texts of those that are changed; all others must not exist.

    Raises:
        ConfigurationError: a file exists, has changed since it was read, or cannot be written.
    """
    undo = contextlib.ExitStack()
    drafts: dict[Path, Path] = {}
    try:
        for name, text in files.items():
            path = directory / name
            _make_directory(path.parent, undo)
            _check(path, (known or {}).get(name))
            drafts[path] = path.with_name(f".{path.name}.new")
            undo.callback(_remove, drafts[path])
            drafts[path].write_bytes(text.encode())
        for (path, draft), name in zip(drafts.items(), files, strict=True):
            if (before := (known or {}).get(name)) is not None:
                draft.chmod(path.stat().st_mode)
                undo.callback(path.write_bytes, before.encode())
                os.replace(draft, path)  # noqa: PTH105 - the same
            else:
                undo.callback(_remove, path)
                os.link(draft, path) if hasattr(os, "link") else draft.rename(path)  # a link never overwrites
                draft.unlink(missing_ok=True)
    except BaseException as error:
        undo.close()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise ConfigurationError(f"cannot write {error.filename or directory}: {reason}") from error
        raise
    undo.pop_all()


def _check(path: Path, known: str | None) -> None:
    """Raise unless a file is as expected: with this text, or absent."""
    if known is None:
        if path.exists() or path.is_symlink():
            raise ConfigurationError(f"{path} exists, and is not overwritten")
    elif path.read_bytes() != known.encode():
        raise ConfigurationError(f"{path} has just been changed by something else: try again")


def _make_directory(path: Path, undo: contextlib.ExitStack) -> None:
    """Create a directory and its parents, and remove those again that did not exist."""
    if path.exists():
        return
    _make_directory(path.parent, undo)
    path.mkdir()
    undo.callback(_remove_directory, path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _remove_directory(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()
