"""The picture ``docs/demo.svg``: what ``reconciler demo`` shows at its end.

``python -m docs._extensions.demo_picture`` writes it.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from reconciler.cli import demo

PICTURE = Path(__file__).parents[1] / "demo.svg"
_FONTS_AND_COMMENTS = re.compile(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", re.DOTALL)


def picture() -> str:
    """Return the SVG of a terminal of 80 columns. It loads nothing from elsewhere."""
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True, highlight=False)
    shown = [demo.play(naive=naive) for naive in (True, False)]
    console.print(Text("$ reconciler demo", style="bold"))
    console.print(f"{demo._WHAT}\n")
    console.print(demo._summary(shown))
    console.print(f"\nThe times of the retry policy: {demo._times(shown[0].policy_attempts_at)}\n\n{demo._TAKE_AWAY}")
    text = _FONTS_AND_COMMENTS.sub("", console.export_svg(title="reconciler demo", unique_id="demo"))
    label = 'role="img" aria-label="The terminal at the end of reconciler demo"'
    return text.replace("<svg ", f"<svg {label} ", 1).replace("Fira Code", "ui-monospace, Menlo, Consolas")


if __name__ == "__main__":
    PICTURE.write_text(picture())
