"""An HTTP/1.1 server with bounds: it cuts off clients that are slow, idle, too many or too large.

`reconciler._serving._server` imports aiohttp, so import it where a server is started.
"""

from reconciler._serving._limits import MOST_LEVELS, BadBody, Limits, is_deep

__all__ = ["MOST_LEVELS", "BadBody", "Limits", "is_deep"]
