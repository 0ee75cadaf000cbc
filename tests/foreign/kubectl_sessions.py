"""Sessions of kubectl as data: the commands of a script, run on a server, and what they print."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SCRIPTS", "Command", "Outcome", "Session", "commands_of"]

SCRIPTS = Path(__file__).parent / "kubectl"
"""The directory of the scripts and of the manifests that they use as ``$SCRIPTS``."""

_MARK = "# differs: "


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a script.

    Attributes:
        text: the shell command with its here-documents.
        differs: why its output differs between the servers; empty if it must not.
    """

    text: str
    differs: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The output and the exit code of a command, without what differs between any two servers."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        """Return it as lines."""
        return f"{self.out}{self.err}exit code {self.code}\n"


def commands_of(script: Path) -> Iterator[Command]:
    """Yield the commands of a script: paragraphs, with comments above them."""
    for paragraph in script.read_text().strip().split("\n\n"):
        lines = paragraph.splitlines()
        reason = next((line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)), "")
        text = "\n".join(line for line in lines if not line.startswith("# "))
        if text:
            yield Command(text, reason)


class Session:
    """A shell on one server, in a directory and a namespace of its own.

    Args:
        kubectl: the path of the program.
        kubeconfig: the kubeconfig of the server.
        home: a directory for this session alone.
    """

    def __init__(self, kubectl: Path, kubeconfig: Path, home: Path) -> None:
        home.mkdir()
        self._home = home
        (home / "config").write_bytes(kubeconfig.read_bytes())
        self._environment: Mapping[str, str] = {
            "KUBECONFIG": str(home / "config"),
            "HOME": str(home),
            "PATH": f"{kubectl.parent}:/usr/bin:/bin",
            "SCRIPTS": str(SCRIPTS),
            "TZ": "UTC",
        }

    async def enter(self, namespace: str) -> None:
        """Create a namespace and use it from now on."""
        made = await self.run(f"kubectl create namespace {namespace}")
        used = await self.run(f"kubectl config set-context --current --namespace={namespace}")
        assert (made.code, used.code) == (0, 0), (made, used)

    async def run(self, command: str) -> Outcome:
        """Run a command to its end."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            "/bin/bash", "-c", command, cwd=self._home, env=self._environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        )  # fmt: skip
        out, err = await process.communicate()
        return Outcome(process.returncode or 0, self._normalized(out), self._normalized(err))

    def _normalized(self, output: bytes) -> str:
        text = output.decode().replace(str(self._home), "HOME")
        for pattern, placeholder in _DIFFERENT:
            text = pattern.sub(placeholder, text)
        return _OWNERS.sub(_sorted_owners, text)


_OWNERS = re.compile(r"^( +)managedFields:\n((?:\1(?:- |  ).*\n)+)", re.MULTILINE)


def _sorted_owners(found: re.Match[str]) -> str:
    """Return the owners in an order of its own: that of the server depends on the seconds in which they wrote."""
    indent = found[1]
    entries = re.split(rf"^{indent}- ", found[2], flags=re.MULTILINE)[1:]
    return f"{indent}managedFields:\n" + "".join(f"{indent}- {entry}" for entry in sorted(entries))


_DIFFERENT = [
    (re.compile(pattern, re.MULTILINE), placeholder)
    for pattern, placeholder in (
        (r"/[0-9a-f]{32}(?=/openapi/)", ""),
        (r'(?<="serverAddress":")127\.0\.0\.1(:\d+)?', "ADDRESS"),
        (r"https?://127\.0\.0\.1:\d+(/[0-9a-f]{32})?", "SERVER"),
        (r"\b10\.(0|96)\.0\.1\b", "FIRST-ADDRESS"),
        (r"(?<![:\w/-])(system:)?admin(?= |$|\n)", "ADMINISTRATOR"),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000", "TIME"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC", "TIME"),
        (r"(resourceVersion\\?\"?: ?\\?\"?)\d+", r"\1VERSION"),
        (r"(Resource Version: +)\d+", r"\1VERSION"),
        (r"\b(drawn|debugger|node-debugger-worker)-[a-z0-9]{5}\b", r"\1-SUFFIX"),
        (r"\b(\d{1,3}m)?\d{1,3}s\b|\b\d{1,3}m\b|\b\d{1,2}h(\d{1,2}m)?\b", "AGE"),
        (r"^[EIW]\d{4} .* reflector\.go.*\n", ""),  # kubectl's reflector, on chance
        (r"\b[EIW]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ", "LOGGED "),
        (r"(?<=\S) {2,}", "  "),
    )
]
"""The patterns of what differs between any two servers, with what replaces it. Columns are as wide as their values."""
