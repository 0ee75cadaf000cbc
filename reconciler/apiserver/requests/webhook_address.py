"""The address in the ``clientConfig`` of a webhook."""

from __future__ import annotations

import posixpath
from typing import NamedTuple
from urllib.parse import urlsplit

from reconciler.wire import JSONObject

__all__ = ["WebhookAddress", "webhook_address"]


class WebhookAddress(NamedTuple):
    """The address of a webhook.

    Attributes:
        url: its URL, as messages show it; as on the real server, without empty segments and a slash at the end.
        path: the path in the URL.
        origin: ``namespace/name`` of its Service, or scheme and host of its URL; see `APIServer.connect_webhooks`.
        service: the name of its Service, or empty.
    """

    url: str
    path: str
    origin: str
    service: str


def webhook_address(client: JSONObject) -> WebhookAddress:
    """Return the address in a ``clientConfig``."""
    service = client.get("service")
    if service:
        namespace, name, path = service["namespace"], service["name"], service.get("path") or "/"
        url = f"https://{name}.{namespace}.svc:{service.get('port', 443)}{path}"
        return WebhookAddress(url, path, f"{namespace}/{name}", name)
    parts = urlsplit(str(client["url"]))
    origin, path = f"{parts.scheme}://{parts.netloc}", posixpath.normpath("/" + parts.path.lstrip("/"))
    return WebhookAddress(origin + path, path, origin, "")
