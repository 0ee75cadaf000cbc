"""The cost of importing the client, and its exported names."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import reconciler.client

PROGRAM = """
import sys
{program}
heavy = ("aiohttp", "kubernetes_asyncio", "tenacity", "yaml")
print(*(name for name in heavy if name in sys.modules))
"""


@pytest.mark.parametrize(
    "program",
    [
        "import reconciler.client",
        "import reconciler; reconciler.Manager",
        "from reconciler import Client; Client.from_config(kubeconfig='/nowhere', context='x')",
    ],
)
def test_nothing_heavy_is_loaded_before_a_client_is_opened(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(program=program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_the_exported_names_are_what_is_visible() -> None:
    names = reconciler.client.__all__
    assert names == sorted(names)
    assert all(getattr(reconciler.client, name) is not None for name in names)
    shown = {name: value for name, value in vars(reconciler.client).items() if not name.startswith("_")}
    visible = {name for name, value in shown.items() if not isinstance(value, types.ModuleType)}
    assert visible - set(names) <= {"TYPE_CHECKING", "annotations"}
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        _ = reconciler.client.Nope  # type: ignore[attr-defined]
