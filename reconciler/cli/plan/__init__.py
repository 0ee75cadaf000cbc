"""The commands ``reconciler plan`` and ``reconciler fork``: what an operator would do to the objects of a cluster."""
