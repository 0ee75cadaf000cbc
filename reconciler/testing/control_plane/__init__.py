"""A real control plane, etcd and kube-apiserver, as the reference for the embedded server.

Its binaries are those in ``KUBEBUILDER_ASSETS``, or are built once per user from Go modules whose versions and hashes
this package contains. Several control planes may run side by side. Each has its own ports, credentials and data, writes
an audit log, and leaves nothing behind. There are no controllers in it: no garbage collection, no pods.
"""

from reconciler.testing.control_plane.binaries import build
from reconciler.testing.control_plane.plane import ControlPlane

__all__ = ["ControlPlane", "build"]
