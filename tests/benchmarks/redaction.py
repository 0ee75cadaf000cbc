"""The quality and the speed of the redaction: ``python -m tests.benchmarks.redaction [TRUFFLEHOG [LOGHUB]]``.

Recall is the share of the samples whose secret is gone. Precision is the share of the redactions that removed a secret
and nothing else: of the samples whose other text is intact, and of the innocent lines that changed nothing.

The samples of the project are made of the formats that the patterns are made of, so they find only mistakes. How good
the redaction is with other texts is measured with those of others: a checkout of github.com/trufflesecurity/trufflehog,
whose detectors have tests with texts and the secrets in them, and one of github.com/logpai/loghub, which has logs
without secrets. One half of the detectors, by the hash of their names, was looked at when the patterns were written.
The figure is that of the other half.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reconciler._core.redaction import redact as redact_forms
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


_LITERAL = r'(`[^`]*`|"(?:[^"\\]|\\.)*")'
_NAMED = re.compile(rf"^\s*(?:var |const )?(\w+)\s*:?=\s*{_LITERAL}", re.MULTILINE)
_CASE = re.compile(rf"input:\s*({_LITERAL}|\w+|fmt\.Sprintf\([^\n]*\)),\s*want:\s*\[\]string\{{([^}}]*)\}}")
_ADDRESS = re.compile(r"(https?://)?[\w.-]+\.(com|net|org|io|co|app|dev)\b.*", re.DOTALL)


def foreign_samples(checkout: Path) -> Iterator[tuple[str, str, str]]:
    """Yield detector, text and secret of the tests of TruffleHog's detectors in the half that was not looked at.

    What a test finds beside secrets, such as addresses, and the parts of an address are not counted.
    """
    for file in sorted(checkout.glob("pkg/detectors/**/*_test.go")):
        detector, source = file.parent.name, file.read_text()
        if file.name.endswith("_integration_test.go") or hashlib.sha256(detector.encode()).digest()[0] % 2 == 0:
            continue
        known = {found[1]: _unquoted(found[2]) for found in _NAMED.finditer(source)}
        for case in _CASE.finditer(source):
            words = [found[0] for found in re.finditer(rf"{_LITERAL}|\b\w+\b", case[1])]
            parts = iter([known.get(word) or _unquoted(word) for word in words if word not in ("fmt", "Sprintf")])
            text = re.sub("%[sv]", lambda _, parts=parts: next(parts, ""), next(parts, ""))
            for found in re.finditer(rf"{_LITERAL}|\b\w+\b", case[3]):
                secret = known.get(found[0]) or _unquoted(found[0])
                is_secret = len(secret) >= PART and re.search(r"\d", secret) and not _ADDRESS.fullmatch(secret)
                if is_secret and secret in text:
                    yield detector, text, secret


def _unquoted(literal: str) -> str:
    if literal.startswith("`"):
        return literal[1:-1]
    return literal[1:-1].encode().decode("unicode_escape") if literal.startswith('"') else ""


def is_left(secret: str, text: str) -> bool:
    """Return whether a secret, or its end, is left in text. The end of an address does not count."""
    return secret in text or ("://" not in secret and "@" not in secret and secret[-PART:] in text)


def foreign_summary(checkout: Path) -> str:
    """Return the sentence of the manual about the samples of others."""
    given = list(foreign_samples(checkout))
    left = sum(is_left(secret, redact_forms(text)) for _, text, secret in given)
    detectors = len({detector for detector, _, _ in given})
    return f"{len(given)} secrets of {detectors} detectors: {1 - left / len(given):.1%} were redacted"


def logs_summary(checkout: Path) -> str:
    """Return the sentence of the manual about the logs of others."""
    files = sorted(checkout.glob("*/*_2k.log"))
    lines = [line for file in files for line in file.read_text(errors="replace").splitlines()]
    return f"{sum(redact_forms(line) != line for line in lines)} of {len(lines):,} lines were changed"


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
    for measured, checkout in zip((foreign_summary, logs_summary), sys.argv[1:], strict=False):
        _show(measured(Path(checkout)))
    for kind in ("log", "log with secrets", "JSON"):
        text = megabyte(kind)
        begun = time.process_time()
        redact_forms(text)
        seconds = time.process_time() - begun
        _show(f"{kind}: {len(text):,} characters in {seconds * 1000:.0f} ms")


if __name__ == "__main__":
    main()
