"""Test the alert rules of the docs with the rule unit tests of promtool: ``python -m tests.alerts``.

promtool is built from Go modules into the user's cache, which takes some minutes the first time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "running-in-production.md"
CASES = HERE / "cases.yaml"


def rules() -> dict[str, object]:
    """Return the groups of the only PrometheusRule in the docs."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (rule,) = [found for block in blocks for found in yaml.safe_load_all(block) if found["kind"] == "PrometheusRule"]
    return {"groups": rule["spec"]["groups"]}


def program(name: str) -> Path:
    """Return promtool or prometheus, built if it is not in the cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    version = hashlib.sha256((HERE / "go.sum").read_bytes()).hexdigest()[:16]
    built = Path(home) / "kube-reconciler" / "promtool" / version / name
    if not os.access(built, os.X_OK):
        if shutil.which("go") is None:
            sys.exit(f"building {name} needs Go: install it (https://go.dev/dl)")
        sys.stdout.write(f"building {name} into {built.parent}; this takes some minutes\n")
        with tempfile.TemporaryDirectory() as scratch:  # Go may write to the module
            for file in ("go.mod", "go.sum"):
                shutil.copyfile(HERE / file, Path(scratch, file))
            flags = f"{os.environ.get('GOFLAGS', '')} -mod=mod".strip()
            environment = os.environ | {"GOBIN": str(built.parent), "GOFLAGS": flags}
            # Without service discovery: the SDKs of the clouds would take most of the time.
            command = ["go", "install", "-tags", "remove_all_sd", f"github.com/prometheus/prometheus/cmd/{name}"]
            subprocess.run(command, cwd=scratch, env=environment, check=True)
    return built


def main() -> int:
    """Check the rules, and run the cases."""
    tool = str(program("promtool"))
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "rules.yaml").write_text(yaml.safe_dump(rules()))
        shutil.copyfile(CASES, Path(scratch, "cases.yaml"))
        checked = subprocess.run([tool, "check", "rules", "rules.yaml"], cwd=scratch, check=False).returncode
        return checked or subprocess.run([tool, "test", "rules", "cases.yaml"], cwd=scratch, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
