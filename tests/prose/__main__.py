"""Reports wording that the project does not use: file, line, the words, and what to write instead.

Docstrings, comments, string literals with a space in them, and the prose of Markdown pages are read. Code is not.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MOST_WORDS = 40
"""Words of a sentence."""

EXCEPTIONS = ("tests/prose/", "tests/conformance/", "docs/_build/", "LICENSE")
"""Places that quote other people's words: this check's own list, and what the real API server answers."""

_RULES = tomllib.loads((HERE / "words.toml").read_text())
_WORDS = [
    (re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE), advice) for words, advice in _RULES["words"].items()
]
_ENDINGS = re.compile(r"(?<=[.!?:;])\s+|\n\s*\n|\n\s*[-*|#]|\n\s*\w+:(?=\s)")
_QUOTED = re.compile(r"``[^`]*``|`[^`]*`|https?://\S+|\"[^\"\n]*\"")

Finding = tuple[int, str, str]


def findings(path: Path) -> Iterator[Finding]:
    """Yield line, words and advice for each place in a Python or Markdown file."""
    text = path.read_text()
    if path.suffix == ".md":
        yield from _in_prose(_without_code(text), 1)
        return
    tree = ast.parse(text)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            match node.body[0]:
                case ast.Expr(value=ast.Constant(value=str()) as docstring):
                    docstrings.add(id(docstring))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from _in_prose(node.value, node.lineno, sentences=id(node) in docstrings)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("#:", "# noqa", "# type")):
            yield from _in_prose(token.string, token.start[0], sentences=False)


def _in_prose(text: str, line: int, *, sentences: bool = True) -> Iterator[Finding]:
    plain = _QUOTED.sub(lambda match: re.sub(r"[^\n]", "_", match.group()), text)
    for words, advice in _WORDS:
        for match in words.finditer(plain):
            yield line + plain.count("\n", 0, match.start()), match.group(), advice
    if not sentences:
        return
    at = 0
    for sentence in _ENDINGS.split(plain):
        at = plain.index(sentence, at)
        if len(words_of := sentence.split()) > MOST_WORDS and "|" not in sentence:
            start = " ".join(words_of[:6])
            yield line + plain.count("\n", 0, at), f"{start} …", f"{len(words_of)} words in one sentence: make two"


def _without_code(page: str) -> str:
    """Blank out the code of a Markdown page; line numbers stay."""
    return re.sub(
        r"^(```|~~~).*?^\1", lambda match: "\n" * match.group().count("\n"), page, flags=re.MULTILINE | re.DOTALL
    )


def _files(arguments: list[str]) -> Iterator[Path]:
    tracked = subprocess.run(["git", "ls-files", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.split("\n"):
        if name.endswith((".py", ".md")) and not name.startswith(EXCEPTIONS) and (ROOT / name).exists():
            yield ROOT / name


def main(arguments: list[str]) -> int:
    """Print the findings in the named files and folders, by default in all; return 1 if there are any."""
    count = 0
    for path in _files(arguments):
        for line, words, advice in sorted(findings(path)):
            sys.stdout.write(f"{path.relative_to(ROOT)}:{line}: {words.strip()!r}: {advice}\n")
            count += 1
    sys.stdout.write(f"{count} findings\n" if count else "The wording is clean.\n")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
