"""Tools for testing controllers: virtual time, crashes, a pytest plugin, and a real control plane to compare with.

pytest loads the plugin (`reconciler.testing.plugin`) itself. `reconciler.testing.control_plane` finds, builds and
starts a real etcd and kube-apiserver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler._core import lazy_names as _lazy_names
from reconciler.testing.life import Life
from reconciler.testing.virtual_clock import VirtualClock, virtual_time

if TYPE_CHECKING:
    from reconciler.testing.cluster import Cluster
    from reconciler.testing.replaying import Replay, replay

__all__ = ["Cluster", "Life", "Replay", "VirtualClock", "replay", "virtual_time"]


if not TYPE_CHECKING:  # otherwise type checkers accept every name
    # Virtual time needs neither API server nor client.
    __getattr__ = _lazy_names(__name__, {"cluster": "Cluster", "replaying": "Replay replay"})
