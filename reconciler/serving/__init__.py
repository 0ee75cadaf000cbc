"""An HTTP/1.1 server with bounds: it cuts off clients that are slow, idle, too many or too large.

`reconciler.serving.server` imports aiohttp, so import it where a server is started.
"""

from reconciler.serving.limits import MOST_LEVELS, BadBody, Limits, is_deep

__all__ = ["MOST_LEVELS", "BadBody", "Limits", "is_deep"]
