"""The overlay campaign: a model of a server, a watch that lags, this process and others; prints the seeds that fail.

A reader must never go back: each read of a key is the server's state at a version that is not below those of

* the key's own writes that have ended, with a response or without one;
* the lists that the server has answered;
* earlier reads of the key.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reconciler.cache import CachedObject, overlay
from reconciler.cache.overlay import Overlay, OverlayExpired
from reconciler.cache.store import WritableStore
from reconciler.meta import Request
from tests.cache.scripted import cached

NAMESPACE = "prod"


@dataclass(frozen=True)
class Obj:
    """An object on the server; `held` by a finalizer."""

    name: str
    version: int
    uid: str
    held: bool = False

    def cached(self) -> CachedObject:
        return cached(self.name, self.version, uid=self.uid)


class Server:
    """One namespace at every version."""

    def __init__(self) -> None:
        self.version = 10
        self.history: list[tuple[int, str, Obj | None]] = []

    def at(self, name: str, version: int) -> Obj | None:
        found = [obj for at, changed, obj in self.history if changed == name and at <= version]
        return found[-1] if found else None

    @property
    def names(self) -> set[str]:
        return {name for _, name, _ in self.history}

    def objects(self) -> list[Obj]:
        return [obj for name in sorted(self.names) if (obj := self.at(name, self.version)) is not None]

    def put(self, name: str, *, held: bool = False) -> Obj:
        before = self.at(name, self.version)
        self.version += 1
        held = held or (before is not None and before.held)
        obj = Obj(name, self.version, before.uid if before is not None else f"u{self.version}", held)
        self.history.append((self.version, name, obj))
        return obj

    def delete(self, name: str, *, finalize: bool = False) -> tuple[Obj | None, bool]:
        """Delete an object unless it is held; return it, and whether it is gone."""
        before = self.at(name, self.version)
        if before is None or (before.held and not finalize):
            return (self.put(name) if before is not None else None), False
        self.version += 1
        self.history.append((self.version, name, None))
        return before, True


@dataclass
class Sent:
    """A request of this process that has not ended: a write, or a list of one name or all (None)."""

    name: str | None
    execute: Callable[[], Any]
    respond: Callable[[Any], None]
    lose: Callable[[], None] | None = None  # a lost list proves nothing
    executed_at: int = 0
    result: Any = None


class OverlayModel:
    """One run, drawn from a seed.

    Args:
        seed: draws the steps.

    Raises:
        AssertionError: a reader went back, or what the watch has passed is still there.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._server = Server()
        self._store = WritableStore()
        self._progress = 10
        self._delivered = 0
        self._time = 0.0
        self._overlay = Overlay(self._store, lambda _: self._progress, clock=self)  # type: ignore[arg-type]
        self._sent: list[Sent] = []
        self._floors: dict[str, int] = {}
        self._floor = 10

    def run(self, steps: int) -> None:
        """Make random steps, then let the watch catch up."""
        choices = [self._other, self._send, self._send, self._execute, self._execute, self._end, self._end]
        choices += [self._follow, self._follow, self._read_one, self._read_one, self._read_all]
        for _ in range(steps):
            self._rng.choice(choices)()
        self._deliver(len(self._server.history))
        self._progress = self._server.version
        self._read_all()
        assert {obj.name for obj in self._overlay.list()} == {obj.name for obj in self._server.objects()}
        assert self._overlay.statistics().entries == 0

    def monotonic(self) -> float:
        return self._time

    # others, and the watch

    def _name(self) -> str:
        return self._rng.choice("ab")

    def _chance(self) -> bool:
        return self._rng.random() < 0.3

    def _other(self) -> None:
        if self._chance():
            self._server.delete(self._name(), finalize=self._chance())
        else:
            self._server.put(self._name(), held=self._chance())

    def _follow(self) -> None:
        """Deliver events, a bookmark or a list; or nothing for a minute."""
        drawn = self._rng.random()
        if drawn < 0.1:
            self._time += 61
        elif drawn < 0.2:
            self._relist()
        elif self._delivered < len(self._server.history):
            self._deliver(self._rng.randint(1, 3))
        else:
            self._progress = self._server.version

    def _deliver(self, count: int) -> None:
        for version, name, obj in self._server.history[self._delivered : self._delivered + count]:
            if obj is None:
                self._store.discard(Request(name, NAMESPACE))
            else:
                self._store.put(obj.cached())
            self._progress = version
            self._delivered += 1

    def _relist(self) -> None:
        for known in self._store:
            self._store.discard(known.request)
        for obj in self._server.objects():
            self._store.put(obj.cached())
        self._progress, self._delivered = self._server.version, len(self._server.history)

    # this process: requests are sent, executed, and answered or lost, in any order

    def _send(self) -> None:
        self._sent.append(
            self._rng.choice([self._put, self._put, self._generate, self._delete, self._delete, self._ask])()
        )

    def _put(self) -> Sent:
        name, held = self._name(), self._chance()
        request, before = Request(name, NAMESPACE), self._overlay.baseline(Request(name, NAMESPACE))
        return Sent(
            name,
            lambda: self._server.put(name, held=held),
            lambda obj: self._overlay.record_write(obj.cached(), before),
            lambda: self._overlay.invalidate(request),
        )

    def _generate(self) -> Sent:
        name, before = f"g{len(self._server.history)}", self._overlay.baseline(Request("", NAMESPACE))
        return Sent(
            name,
            lambda: self._server.put(name),
            lambda obj: self._overlay.record_write(obj.cached(), before),
            lambda: self._overlay.invalidate_all(NAMESPACE),
        )

    def _delete(self) -> Sent:
        name, finalize, told = self._name(), self._chance(), self._chance()
        request, before = Request(name, NAMESPACE), self._overlay.baseline(Request(name, NAMESPACE))

        def respond(result: tuple[Obj | None, bool]) -> None:
            obj, gone = result
            if obj is not None and gone:
                self._overlay.record_deletion(request, obj.uid, obj.version if told else None, before)
            elif obj is not None:
                self._overlay.record_write(obj.cached(), before)

        return Sent(
            name,
            lambda: self._server.delete(name, finalize=finalize),
            respond,
            lambda: self._overlay.invalidate(request),
        )

    def _ask(self, *names: str | None) -> Sent:
        (name,) = names or (self._rng.choice(["a", "b", None]),)
        before = self._overlay.list_baseline(NAMESPACE, name)

        def respond(result: tuple[int, list[Obj]]) -> None:
            version, found = result
            present = {Request(obj.name, NAMESPACE) for obj in found}
            self._overlay.record_list(version, [obj.cached() for obj in found], present, before)

        def execute() -> tuple[int, list[Obj]]:
            return self._server.version, [obj for obj in self._server.objects() if name in (None, obj.name)]

        return Sent(name, execute, respond)

    def _execute(self) -> None:
        waiting = [sent for sent in self._sent if not sent.executed_at]
        if waiting:
            sent = self._rng.choice(waiting)
            sent.result, sent.executed_at = sent.execute(), self._server.version

    def _end(self) -> None:
        if not self._sent:
            return
        sent = self._sent.pop(self._rng.randrange(len(self._sent)))
        if sent.executed_at and not self._chance():
            sent.respond(sent.result)
        elif sent.lose is not None:
            sent.lose()
        else:
            return
        if sent.name is None:
            self._floor = max(self._floor, sent.executed_at)
        elif sent.result != (None, False):  # a deletion of nothing is not a write
            self._floors[sent.name] = max(self._floors.get(sent.name, 0), sent.executed_at)

    # reads

    def _read_one(self) -> None:
        name = self._name()
        self._check(name, self._read(lambda: self._overlay.get(Request(name, NAMESPACE))))

    def _read_all(self) -> None:
        found = {obj.name: obj for obj in self._read(lambda: self._overlay.list(NAMESPACE))}
        assert set(found) <= self._server.names
        for name in self._server.names:
            self._check(name, found.get(name))

    def _read(self, read: Callable[[], Any]) -> Any:
        for _ in range(5):
            try:
                return read()
            except OverlayExpired as expired:
                if expired.everything:
                    before = self._overlay.list_baseline()
                    self._relist()
                    self._overlay.record_refresh(before)
                    continue
                for name in [None] if expired.namespaces else [request.name for request in expired.objects]:
                    sent = self._ask(name)
                    sent.respond(sent.execute())
        raise AssertionError("the server is asked again and again")

    def _check(self, name: str, found: CachedObject | None) -> None:
        floor = max(self._floor, self._floors.get(name, 0))
        shown = None if found is None else (found.version, found.uid)
        later = (version for version, changed, _ in self._server.history if changed == name and version > floor)
        for version in (floor, *later):
            obj = self._server.at(name, version)
            if shown == (None if obj is None else (obj.version, obj.uid)):
                self._floors[name] = version
                return
        raise AssertionError(f"{name} reads as {shown}, from before version {floor}: {self._server.history}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="campaign-overlay", description=__doc__)
    parser.add_argument("--seeds", type=int, default=50_000, help="number of runs; default 50000")
    parser.add_argument("--first", type=int, default=0, help="the first seed; default 0")
    given = parser.parse_args()
    wrong = 0
    for seed in range(given.first, given.first + given.seeds):
        overlay.CAPACITY = 3 if seed % 2 else 10_000  # every other run loses entries
        try:
            OverlayModel(seed).run(60)
        except AssertionError as error:
            wrong += 1
            sys.stdout.write(f"--first {seed} --seeds 1: {error}\n")
    sys.stdout.write(f"{given.seeds} runs, {wrong} wrong\n")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
