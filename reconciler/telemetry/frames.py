"""The origin of a stack frame: the program's own code, a library, Python, or this package."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

__all__ = ["fold_traceback", "own_frames"]

_HERE = str(Path(__file__).resolve().parent.parent) + "/"
_PYTHON = tuple({sysconfig.get_path(name).rstrip("/") + "/" for name in ("stdlib", "platstdlib")})
_INSTALLED = ("/site-packages/", "/dist-packages/")
_FRAME = re.compile(r'(?P<margin>[ |+-]*)File "(?P<file>.*)", line (?P<line>\d+)')


class _Place(NamedTuple):
    """The owner of a file.

    Attributes:
        owner: ``"reconciler"``, ``"Python"``, the name of an installed package, or ``""`` for code that is not
            installed.
        path: the file's path, short for code that is installed.
    """

    owner: str
    path: str


@lru_cache(1024)
def _place_of(filename: str) -> _Place:
    if filename.startswith(_HERE):
        return _Place("reconciler", "reconciler/" + filename.removeprefix(_HERE))
    for folder in _INSTALLED:
        _, found, rest = filename.rpartition(folder)
        if found:
            return _Place(rest.partition("/")[0].removesuffix(".py"), rest)
    for folder in _PYTHON:
        if filename.startswith(folder):
            return _Place("Python", filename.removeprefix(folder))
    return _Place("Python" if filename.startswith("<frozen ") else "", filename)


def own_frames(filenames: Iterable[str]) -> Sequence[bool]:
    """Return for each frame of a stack, outermost first, whether it is the program's own code.

    Own code is not installed. If all code is installed, as in most images, it is the package of the outermost frame
    that belongs neither to Python nor to this library.
    """
    owners = [_place_of(filename).owner for filename in filenames]
    own = "" if "" in owners else next((each for each in owners if each not in ("Python", "reconciler")), "")
    return [each == own for each in owners]


class _Frame(NamedTuple):
    """A frame of a formatted traceback: its lines, or a line outside of frames if `file` is empty."""

    margin: str
    file: str
    line: str
    text: list[str]


def fold_traceback(text: str) -> str:
    """Replace successive frames of libraries in a formatted traceback by one line, which names the last of them.

    A traceback without a frame of the program's own code is returned as it is.
    """
    frames = _frames(text)
    flags = iter(own_frames(each.file for each in frames if each.file))
    folded = [bool(each.file) and not next(flags) for each in frames]
    if sum(folded) == sum(bool(each.file) for each in frames):
        return text
    lines: list[str] = []
    for (is_folded, _), group in groupby(zip(folded, frames, strict=True), key=lambda pair: (pair[0], pair[1].margin)):
        run = [frame for _, frame in group]
        lines += [_folded(run)] if is_folded else [line for frame in run for line in frame.text]
    return "\n".join(lines)


def _frames(text: str) -> list[_Frame]:
    """Split a formatted traceback, or a chain or group of them, into frames and other lines."""
    frames: list[_Frame] = []
    for line in text.split("\n"):
        found = _FRAME.match(line)
        last = frames[-1] if frames else None
        if found is not None:
            frames.append(_Frame(found["margin"], found["file"], found["line"], [line]))
        elif last is not None and last.file and line.startswith((last.margin + "  ", last.margin + "[Previous line")):
            last.text.append(line)
        else:
            frames.append(_Frame("", "", "", [line]))
    return frames


def _folded(frames: list[_Frame]) -> str:
    places = [_place_of(each.file) for each in frames]
    owners = ", ".join(dict.fromkeys(place.owner for place in places))
    count = f"{len(frames)} frames" if len(frames) > 1 else "1 frame"
    return f"{frames[-1].margin}... {count} of {owners}, the last at {places[-1].path}:{frames[-1].line}"
