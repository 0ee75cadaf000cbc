"""Test controllers: virtual time, a pytest plugin, and a real control plane to compare with."""

from reconciler.testing._virtual_time import VirtualClock, new_virtual_loop, virtual_time

__all__ = ["VirtualClock", "new_virtual_loop", "virtual_time"]
