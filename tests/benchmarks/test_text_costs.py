"""The cost of the worst texts: twice the text may cost about twice as much, not four times.

The figure is a ratio of two measurements in one process, so it means the same on a slow or busy machine. Run it as
``python -m tests.benchmarks.test_text_costs``, which prints it for each text. As a test it checks only that the texts
can be measured, since a timing is not a condition.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from reconciler._core.redaction import redact as redact_forms
from reconciler.notification.channels.slack import mrkdwn

REDACTED = ["password=", 'password="', '\\"', "%25", "://", "=x:", "key ", "-u ", "-----BEGIN ", "bearer ", '{"a":']
CONVERTED = ["[", "![", "[a](", "*a_ ", "_a__b", "~~a", "`a``b", "* a\n", ">" * 15 + "a\n" + "b\n" * 20, "[*`"]


def ratio(call: Callable[[str], object], piece: str, size: int) -> tuple[float, float]:
    """Return the CPU seconds for `size` characters, and how many times that twice as many cost."""
    once, twice = (min(_seconds(call, (piece * length)[:length]) for _ in range(3)) for length in (size, 2 * size))
    return once, twice / once


def _seconds(call: Callable[[str], object], text: str) -> float:
    begun = time.process_time()
    call(text)
    return time.process_time() - begun


def test_the_worst_texts_can_be_measured() -> None:
    for call, pieces in ((redact_forms, REDACTED), (mrkdwn, CONVERTED)):
        for piece in pieces:
            assert ratio(call, piece, 4_096)[1] > 0


if __name__ == "__main__":
    for name, call, pieces in (("redaction", redact_forms, REDACTED), ("Markdown", mrkdwn, CONVERTED)):
        for piece in pieces:
            seconds, times = ratio(call, piece, 65_536)
            print(f"{name:<10} {piece[:20]!r:<24} 64 KiB: {seconds * 1000:7.1f} ms   128 KiB / 64 KiB: {times:.2f}")  # noqa: T201
