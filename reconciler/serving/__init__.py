"""An HTTP/1.1 server with limits: it disconnects clients that are slow, idle, too many, or send too much.

`reconciler.serving.server` imports aiohttp, so import it where a server is started.
"""

from reconciler.serving.limits import MAX_LEVELS, BadBody, Limits, exceeds_max_levels

__all__ = ["MAX_LEVELS", "BadBody", "Limits", "exceeds_max_levels"]
