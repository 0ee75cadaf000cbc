"""The commands about recordings: ``recording show``, ``recording fetch``, ``recording to-test`` and ``replay``."""
