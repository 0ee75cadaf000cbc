"""A pytest plugin with what the suites of the Python clients expect beside them: a cluster, and its configuration."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Cluster:
    """The cluster of the kubeconfig, with the interface of pytest-kind, on which kr8s's suite runs."""

    def __init__(self) -> None:
        self.name = "peers"
        self.kubeconfig_path = Path(os.environ["KUBECONFIG"])
        self.kubectl_path = Path(shutil.which("kubectl") or "kubectl")

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """Run kubectl and return its output."""
        command = ["kubectl", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


@pytest.fixture(scope="session")
def k8s_cluster() -> Cluster:
    cluster = Cluster()
    # What the controllers of a cluster would have made.
    for command in ("create serviceaccount default", "run coredns --image=coredns --namespace=kube-system"):
        subprocess.run(["kubectl", *command.split()], check=False, capture_output=True)
    return cluster


@pytest.fixture
def ensure_gc() -> Iterator[None]:
    gc.collect()
    yield
    gc.collect()


def _provide_end_to_end(package: str) -> None:
    """Provide ``e2e_test.base`` of a client, which its distribution lacks: the configuration of the tests' cluster."""
    base = types.ModuleType(f"{package}.e2e_test.base")

    def get_e2e_configuration() -> Any:
        client, config = (importlib.import_module(f"{package}.{name}") for name in ("client", "config"))
        configuration = client.Configuration()
        loaded = config.load_kube_config(client_configuration=configuration)
        if loaded is not None:  # the asynchronous clients load it in a coroutine, which waits for nothing
            with contextlib.suppress(StopIteration):
                loaded.send(None)
        return configuration

    base.get_e2e_configuration = get_e2e_configuration  # type: ignore[attr-defined]
    parent = types.ModuleType(f"{package}.e2e_test")
    parent.base = base  # type: ignore[attr-defined]
    sys.modules |= {parent.__name__: parent, base.__name__: base}


for name in ("kubernetes", "kubernetes.aio", "kubernetes_asyncio"):
    _provide_end_to_end(name)
