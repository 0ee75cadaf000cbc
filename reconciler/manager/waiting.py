"""What a manager waits for and what to do, and log lines about a start or stop that takes long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from reconciler.cache.informer import Informer
from reconciler.controller import Controller
from reconciler.errors import (
    Forbidden,
    NotServed,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthorized,
    error_text,
)
from reconciler.manager.election import Elector

_log = logging.getLogger("reconciler.manager")

PERIOD = 30.0
"""Seconds between two reminders."""

STANDBY_PERIOD = 3600.0
"""Seconds between two reminders at most, if a standby waits for nothing but its election."""


_QUICK = 2.0
"""Seconds after which a start or stop reports its progress."""

_PROGRESS_PERIOD = 5.0
"""Seconds between two reports, while there is progress."""

_MAX_KEYS = 5
"""Keys that a report names."""


class Wait(NamedTuple):
    """Something that a manager waits for.

    Attributes:
        what: the kind, the lease or the server.
        text: what it is, the last response of the server if there is one, and what to do.
        normal: whether there is nothing to do, as for a standby.
    """

    what: str
    text: str
    normal: bool = False


async def remind(waiting: Callable[[], Sequence[Wait]]) -> None:
    """Log what is waited for, every 30 s until cancelled.

    As long as all of it is normal, the interval doubles, up to an hour.
    """
    elapsed, delay = 0.0, PERIOD
    while True:
        await asyncio.sleep(delay)
        elapsed += delay
        found = waiting()
        for wait in found:
            _log.log(logging.INFO if wait.normal else logging.WARNING, "waiting for %.0f s: %s", elapsed, wait.text)
        delay = min(2 * delay, STANDBY_PERIOD) if all(wait.normal for wait in found) else PERIOD


async def report_progress(progress: Callable[[], Sequence[str]]) -> None:
    """Log progress after 2 s, and every 5 s until cancelled. The interval doubles while there is none."""
    elapsed, delay, before = 0.0, _QUICK, None
    while True:
        await asyncio.sleep(delay)
        elapsed += delay
        found = progress()
        for line in found:
            _log.info("after %.0f s: %s", elapsed, line)
        delay, before = (2 * delay if found == before else _PROGRESS_PERIOD), found


def lists(informers: Iterable[Informer]) -> Sequence[str]:
    """Return how far the first lists are that have returned objects and are not complete."""
    listing = [each for each in informers if not each.synced and each.listed]
    return [f"listing {each.scope}: {each.listed:,} objects so far" for each in listing]


def keys_in_progress(controller: Controller) -> list[str]:
    """Return the keys of a controller that are in progress."""
    queue = controller.queue
    return [str(key) for key in queue.keys() if queue.in_progress(key) is not None]  # noqa: SIM118 - not a dict


def drains(controllers: Iterable[Controller]) -> Sequence[str]:
    """Return which keys of each controller are not finished."""
    found = []
    for controller in controllers:
        keys, ready = keys_in_progress(controller), len(controller.queue)
        if not keys and not ready:
            continue
        more = f" and {len(keys) - _MAX_KEYS} more" if len(keys) > _MAX_KEYS else ""
        named = f"{', '.join(keys[:_MAX_KEYS])}{more} in progress" if keys else "nothing in progress"
        found.append(f"draining controller {controller.name}: {named}, {ready} ready")
    return found


def waits(
    informers: Iterable[Informer], elector: Elector | None, *, credentials_refused: bool = False
) -> Sequence[Wait]:
    """Return what a manager waits for: its credentials, kinds that are not listed or cannot be watched, the lease."""
    found = []
    if credentials_refused:
        advice = "Check the credentials of the kubeconfig or of the service account"
        found.append(Wait("credentials", f"the API server refuses the credentials (401 Unauthorized). {advice}"))
    found += [_kind(informer) for informer in informers if not informer.synced or informer.last_error is not None]
    if elector is not None and not elector.elected.is_set():
        found.append(_lease(elector))
    return list(dict.fromkeys(found))


def _kind(informer: Informer) -> Wait:
    failure, what = informer.last_error, str(informer.scope)
    if failure is None:
        return Wait(
            what,
            f"the first list of {informer.scope} is not complete. A large kind takes long; namespaces= and selectors "
            "make it smaller",
        )
    if isinstance(failure.error, TransportError):  # one line for all kinds
        return _failed("API server", f"the API server does not answer: {error_text(failure.error)}", failure.error)
    return _failed(what, str(failure), failure.error)


def _lease(elector: Elector) -> Wait:
    lease, failure = f"lease {elector.lease}", elector.last_failure
    if failure is not None:
        return _failed(lease, f"{lease}: {error_text(failure)}", failure)
    if not elector.holder:
        return Wait(lease, f"{lease} is not acquired yet", normal=True)
    until = elector.held_until
    time = "" if until is None else f" until {until:%H:%M:%S} UTC unless it is renewed"
    return Wait(lease, f"{lease} is held by {elector.holder}{time}; this is a standby", normal=True)


def _failed(what: str, text: str, error: Exception) -> Wait:
    end = "" if text.endswith(("?", ".")) else "."
    return Wait(what, f"{text}{end} {_advice(error)}")


def _advice(error: Exception) -> str:
    """Return what to do about a failure."""
    match error:
        case NotServed():
            return (
                "Install it ('reconciler crd MODULE:CLASS' prints that of a Resource class) or correct its name; the "
                "start continues when it is there"
            )
        case Forbidden():
            return (
                "Grant this identity the verb on the resource; 'reconciler manifests MODULE:ATTR' prints all roles "
                "that it needs"
            )
        case Unauthorized():
            return "Check the credentials of the kubeconfig or of the service account"
        case TransportError() | TimeoutError():
            return "Check that it runs, and that its address is right and can be reached from here"
        case ServerError() | TooManyRequests():
            return "The API server is starting or overloaded; this is retried"
        case _:
            return "This is retried"
