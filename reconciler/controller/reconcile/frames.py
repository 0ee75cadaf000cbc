"""Frames of your code: in the traceback of an error, in the await chain of a task, and in a thread.

Your code is what the library calls first, its package, and every module that is not installed. Frames of this library,
of the standard library and of other installed packages are left out, except for the innermost one.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import islice
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType, TracebackType
from typing import Any, NamedTuple

import msgspec

_MAX_FRAMES = 6
_MAX_CHAIN = 200

_HOME = __file__.removesuffix("controller/reconcile/frames.py")
_STANDARD = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), "<frozen "})
_INSTALLED = ("/site-packages/", "/dist-packages/")

_LIBRARIES = ("reconciler", "python")


class Frame(NamedTuple):
    """A line of a function, as ``file.py:12 in function``."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        # The last two parts of the path: enough to find the file, and nothing about the machine.
        return f"{'/'.join(self.path.replace(chr(92), '/').split('/')[-2:])}:{self.line} in {self.function}"

    @property
    def package(self) -> str:
        """Return where the code comes from: one of `_LIBRARIES`, the path of an installed package, or ``""``."""
        if self.path.startswith(_HOME):
            return "reconciler"
        for installed in _INSTALLED:
            before, found, after = self.path.partition(installed)
            if found:
                return before + found + after.partition("/")[0]
        return "python" if self.path.startswith(_STANDARD) else ""


class CodePlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """The place where a reconcile in progress is.

    Attributes:
        frames: the frames of your code, innermost last, such as ``"db/operator.py:12 in reconcile_object"``; six at
            most.
        waits_in: the innermost frame, if it is not one of yours, such as ``"asyncio/locks.py:213 in Event.wait"``.
    """

    frames: tuple[str, ...] = ()
    waits_in: str | None = None

    def __str__(self) -> str:
        if not self.frames:
            return self.waits_in or "an unknown place"
        return self.frames[-1] + (f", which waits in {self.waits_in}" if self.waits_in else "")


def frames_of(traceback: TracebackType | None) -> tuple[str, ...]:
    """Return the frames of your code in a traceback, and the innermost one if it is not this library's.

    Without any of your code it is the innermost one alone.
    """
    frames = _frames(traceback)
    own = _own(frames)
    if frames and (not own or (frames[-1] not in own and frames[-1].package != "reconciler")):
        own.append(frames[-1])
    return tuple(str(each) for each in own[-_MAX_FRAMES:])


def is_foreign(error: BaseException) -> bool:
    """Return whether none of your code is in the traceback of an error, of its causes and of the parts of a group."""
    linked: BaseException | None = error
    while linked is not None:
        parts = linked.exceptions if isinstance(linked, BaseExceptionGroup) else ()
        if _own(_frames(linked.__traceback__)) or not all(map(is_foreign, parts)):
            return False
        linked = linked.__cause__ or linked.__context__
    return True


def place_of_task(task: asyncio.Task[Any]) -> CodePlace:
    """Return where a task is, and what it waits for: also in tasks, groups and generators that it awaits."""
    return _place([_frame(each) for each in islice(_chain(task), _MAX_CHAIN)])


def place_of_thread(thread: int) -> CodePlace:
    """Return where a thread is."""
    frame, frames = sys._current_frames().get(thread), []  # noqa: SLF001 - documented, despite its name
    while frame is not None:
        frames.append(_frame(frame))
        frame = frame.f_back
    return _place(frames[::-1])


def _frames(traceback: TracebackType | None) -> list[Frame]:
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(Frame(code.co_filename, traceback.tb_lineno, code.co_name))
        traceback = traceback.tb_next
    return frames


def _place(frames: Sequence[Frame]) -> CodePlace:
    own = _own(frames)
    inner = str(frames[-1]) if frames and frames[-1] not in own else None
    return CodePlace(tuple(str(each) for each in own[-_MAX_FRAMES:]), inner)


def _own(frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames of your code: those of the package that the library calls first, and all not installed ones."""
    others = [each for each in frames if each.package not in _LIBRARIES]
    return [each for each in others if each.package in ("", others[0].package)]


def _frame(frame: FrameType) -> Frame:
    return Frame(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname.replace("<locals>.", ""))


def _chain(awaited: object) -> Iterator[FrameType]:
    """Yield the frames of a task or coroutine and of everything that it awaits, outermost first."""
    frame: FrameType | None = None
    while awaited is not None:
        if isinstance(awaited, CoroutineType):
            inner, awaited = awaited.cr_frame, awaited.cr_await
        elif isinstance(awaited, AsyncGeneratorType):
            inner, awaited = awaited.ag_frame, awaited.ag_await
        elif isinstance(awaited, GeneratorType):
            inner, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        elif isinstance(awaited, asyncio.Task):
            inner, awaited = None, awaited.get_coro()
        else:
            inner, awaited = None, _behind(awaited, frame)
        if inner is not None:
            frame = inner
            yield inner


def _behind(awaited: object, frame: FrameType | None) -> object | None:
    """Return what an awaitable without a frame waits for: a coroutine that it wraps, or a task that is not done.

    Args:
        awaited: a future, or what an ``await`` makes of an object.
        frame: of the function that awaits it.
    """
    if isinstance(awaited, asyncio.Future):
        waits: list[Any] = [*getattr(awaited, "_children", ())]  # of `asyncio.gather`
        if not waits and frame is not None and frame.f_code.co_filename.startswith(_STANDARD):
            names = frame.f_locals  # of `asyncio.wait`, `asyncio.wait_for` and `asyncio.TaskGroup`
            waits = [*names.get("fs", ()), names.get("fut"), *getattr(names.get("self"), "_tasks", ())]
        return next((each for each in waits if isinstance(each, asyncio.Task) and not each.done()), None)
    kinds = (CoroutineType, AsyncGeneratorType, GeneratorType, asyncio.Future)
    return next((each for each in gc.get_referents(awaited) if isinstance(each, kinds)), None)
