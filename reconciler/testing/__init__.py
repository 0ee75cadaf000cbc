"""Tools for testing controllers: virtual time, crashes, a pytest plugin, and a real control plane to compare with.

pytest loads the plugin (`reconciler.testing.plugin`) itself. `reconciler.testing.control_plane` finds, builds and
starts a real etcd and kube-apiserver.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from reconciler.testing.life import Life
from reconciler.testing.virtual_clock import VirtualClock, virtual_time

if TYPE_CHECKING:
    from reconciler.testing.cluster import Cluster
    from reconciler.testing.replaying import Replay, replay

__all__ = ["Cluster", "Life", "Replay", "VirtualClock", "replay", "virtual_time"]


if not TYPE_CHECKING:  # otherwise type checkers accept every name

    def __getattr__(name: str) -> object:
        if name == "Cluster":  # loads the API server and the client, which virtual time does not need
            return importlib.import_module("reconciler.testing.cluster").Cluster
        if name in ("Replay", "replay"):
            return getattr(importlib.import_module("reconciler.testing.replaying"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
