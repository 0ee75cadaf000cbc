"""The quality and the speed of the redaction: ``python -m tests.benchmarks.redaction``.

Recall is the share of the samples whose secret is gone. Precision is the share of the redactions that removed a secret
and nothing else: of the samples whose other text is intact, and of the innocent lines that changed nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass

from reconciler.redaction import redact as redact_forms
from tests.notification.redaction_corpus import SERVICES, Sample, innocent_lines, manual_lines, samples

PART = 8
"""Characters of a secret's end that count as a leak."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of one measurement.

    Attributes:
        samples: number of samples.
        leaks: samples whose secret, or its end, is still there.
        damaged: samples that lost other text.
        lines: number of innocent lines.
        false: innocent lines that were changed.
    """

    samples: int
    leaks: tuple[Sample, ...]
    damaged: tuple[Sample, ...]
    lines: int
    false: tuple[str, ...]

    @property
    def recall(self) -> float:
        return 1 - len(self.leaks) / self.samples

    @property
    def precision(self) -> float:
        redactions = self.samples - len(self.leaks) + len(self.false)
        return (self.samples - len({*self.leaks, *self.damaged})) / redactions


def measure() -> Quality:
    """Return the quality over the whole corpus, which is the same at each call."""
    given = list(samples())
    leaks, damaged = [], []
    for sample in given:
        text = redact_forms(sample.text)
        if sample.secret in text or sample.secret[-PART:] in text:
            leaks.append(sample)
        if not all(kept in text for kept in sample.kept):
            damaged.append(sample)
    lines = list(innocent_lines())
    false = [line for line in lines if redact_forms(line) != line]
    return Quality(len(given), tuple(leaks), tuple(damaged), len(lines), tuple(false))


def summary(quality: Quality) -> str:
    """Return the sentence of the manual."""
    return (
        f"{len(SERVICES)} formats, {quality.samples:,} samples: recall {quality.recall:.2%}, precision "
        f"{quality.precision:.2%}; {len(quality.false)} of {quality.lines:,} innocent lines changed"
    )


def megabyte(kind: str) -> str:
    """Return a string of a million characters."""
    lines = [*innocent_lines(), *manual_lines()]
    if kind == "JSON":
        return json.dumps([{"line": line} for line in lines])[:1_000_000] + '"}]'
    if kind == "log with secrets":
        given = [sample.text for sample in samples() if sample.form == "log"]
        lines[::100] = [given[number % len(given)] for number in range(len(lines[::100]))]
    return ("\n".join(lines) * 3)[:1_000_000]


def _show(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    """Print the figures, what leaked, what was damaged, and how long a million characters take."""
    quality = measure()
    _show(summary(quality))
    for title, found in (("leaked", quality.leaks), ("damaged", quality.damaged)):
        for (service, form), count in Counter((each.service, each.form) for each in found).most_common():
            _show(f"  {title}: {service}, {form}: {count}")
    for line in quality.false[:40]:
        _show(f"  changed: {line[:100]!r} -> {redact_forms(line)[:100]!r}")
    for kind in ("log", "log with secrets", "JSON"):
        text = megabyte(kind)
        begun = time.process_time()
        redact_forms(text)
        seconds = time.process_time() - begun
        _show(f"{kind}: {len(text):,} characters in {seconds * 1000:.0f} ms")


if __name__ == "__main__":
    main()
