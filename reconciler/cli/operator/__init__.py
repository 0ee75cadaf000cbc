"""The commands ``explain`` and ``top``, which ask a running operator, and the port of its pod that they forward."""
