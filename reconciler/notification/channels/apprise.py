"""The Apprise channel: one of the more than a hundred services that the library apprise knows, by its URL.

The library blocks, so each delivery runs in a thread. It reports success or failure only. What failed is learned from
the HTTP responses and errors of the delivery, which pass through `_send` on their way to the library.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import io
import logging
import re
import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from pydantic import Field

from reconciler.clock import current_clock
from reconciler.errors import importing
from reconciler.notification.channel import (
    DeferredDeliveryError,
    DeliveryError,
    DurationSeconds,
    Message,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.channels.address_guard import canonical_host, check_literal, is_local
from reconciler.notification.channels.http import status_error
from reconciler.notification.credentials import Credentials
from reconciler.notification.redaction import visible, visible_line
from reconciler.notification.routing_config import ReceiverConfig

if TYPE_CHECKING:
    import requests

HTTP_PLUGINS = frozenset(
    """
acs africas_talking apprise_api awswhatsapp bale bark betterstack bluesky brevo bulksms bulkvs burstsms chanify
clickatell clicksend cliq cm custom_form custom_json custom_xml d7networks dapnet dingtalk discord dot eight00com
emby enigma2 evolution exotel feishu firehydrant flock flowtriq fluxer fortysixelks freemobile github goalert
google_chat gorush gotify groundmail groupme guilded gupshup home_assistant httpsms humhub ifttt ilert incidentio
infobip instagram jellyfin jira join kakaotalk kaleyra kavenegar kodi kook kumulos lametric lark lauther lfgalarm
line mailersend mailgun mastodon matrix mattermost messagebird misskey mobilemessage msg91 nextcloud nextcloudtalk
notica notifiarr notifico notifyapp notifyre ntfy octopush office365 one_signal onebot opsgenie opsimate pagerduty
pagertree parseplatform pinglet pingram plivo postmark prowl pushbullet pushdeer pushed pushjet pushme pushover
pushplus pushsafer pushward pushy qq reddit resend revolt ringcentral rocketchat ryver sendgrid sendpulse serverchan
serwersms ses seven sfr signal_api signalgrid signl4 simplepush sinch slack smsc smseagle smsmanager smstunnel
smtp2go sns sogs sparkpost spike splunk spugpush squadcast stackfield streamlabs synology techuluspush telegram
telesign telnyx threema trigv twilio twist twitter viber voipms vonage webexteams wechat wecombot whapi whatsapp
workflows wpush wxpusher xmatters youlmk zalo zoom zulip
""".split()  # noqa: SIM905 - a line for each would be long
)
"""Modules below ``apprise.plugins`` that a receiver may use: they use the library requests and read no file.

The address guard sees each of their requests. Others open sockets of their own (irc, mailto, mqtt, rsyslog, nostr),
notify on this machine (syslog, dbus), or read a file that their URL names (fcm, vapid). A plugin of a newer Apprise is
refused until it is added here.
"""


RESPONSE_LIMIT = 65_536
"""Maximum bytes of a response that the library gets to see."""

_DECODINGS = 5
"""How often a URL may be percent-encoded; plugins decode parts of it more than once."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TYPES = {"Critical": "failure", "High": "warning", "Medium": "info", "Low": "info"}


class AppriseConfig(ReceiverConfig):
    """The options of an Apprise receiver."""

    url_credential: str
    """Name of the credential that holds the Apprise URL, such as ``tgram://TOKEN/CHAT``."""

    timeout: DurationSeconds = Field(default=10.0, gt=0, le=300)
    """Timeout of connecting, and of each response, in seconds."""

    allow_local_addresses: bool = False
    """Whether requests may lead to a loopback, link-local or metadata address."""

    def build(self, name: str, credentials: Credentials) -> AppriseChannel:
        """Build a channel of this name.

        Raises:
            MissingExtra: apprise is not installed.
        """
        return AppriseChannel(name, self, credentials)


@dataclass(slots=True)
class _Exchange:
    """The requests of one delivery.

    Attributes:
        through_proxy: whether a proxy resolves the host of the current request and connects to it.
        statuses: HTTP status codes, in order.
        failure: the latest failure: a response that is not a success, or no response.
    """

    config: AppriseConfig
    message: Message
    through_proxy: bool = False
    statuses: list[int] = field(default_factory=list)
    failure: DeliveryError | None = None


_exchange: contextvars.ContextVar[_Exchange | None] = contextvars.ContextVar("apprise_exchange", default=None)


class AppriseChannel:
    """A channel that delivers over the service of an Apprise URL. Attachments are never sent.

    At most ``max_concurrent`` threads run. If all are busy because a service hangs, deliveries are deferred.

    Raises:
        MissingExtra: apprise is not installed.
    """

    def __init__(self, name: str, config: AppriseConfig, credentials: Credentials) -> None:
        _library()
        self.name = name
        self._config = config
        self._credentials = credentials
        self._threads = ThreadPoolExecutor(config.max_concurrent, thread_name_prefix=name)
        self._free = threading.Semaphore(config.max_concurrent)

    async def deliver(self, message: Message) -> None:
        """Send the message. Cancellation does not stop a thread that is sending.

        Raises:
            PermanentDeliveryError: the URL is not valid, or the service rejects the message permanently.
            DeferredDeliveryError: the service responds with 429, or all threads are busy.
            RetryableDeliveryError: the service rejects the message temporarily, or is unreachable.
            UnknownDeliveryError: the connection was lost after the message was sent.
        """
        url = self._credentials.get(self._config.url_credential)
        if not self._free.acquire(blocking=False):
            raise DeferredDeliveryError(f"all {self._config.max_concurrent} threads are busy", retry_after=5)
        future = self._threads.submit(self._deliver, url, message)
        future.add_done_callback(lambda _: self._free.release())
        await asyncio.wrap_future(future)

    def close(self) -> None:
        """Stop accepting messages. Threads that are sending end by their timeouts."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _deliver(self, url: str, message: Message) -> None:
        library = _library()
        exchange = _Exchange(self._config, message)
        token = _exchange.set(exchange)
        try:
            plugin = self._plugin(url)
            service = library.Apprise(asset=plugin.asset)
            service.add(plugin)
            delivered = service.notify(
                title=visible_line(message.subject),
                body=visible(message.body),
                notify_type=_TYPES.get(message.priority, "info"),
                body_format="text",
            )
        finally:
            _exchange.reset(token)
        if not delivered:
            raise _failure(exchange, str(plugin.service_name))

    def _plugin(self, url: str) -> Any:
        """Return the plugin of a URL, with the options that the URL must not change."""
        library = _library()
        if not _is_plain(url):
            raise PermanentDeliveryError(f"credential {self._config.url_credential!r} contains a control character")
        asset = library.AppriseAsset(
            async_mode=False, service_timeout=0, storage_mode="memory", http_redirects=False, allow_templates=False
        )
        plugin = library.Apprise.instantiate(url, asset=asset)
        if plugin is None:
            raise PermanentDeliveryError(
                f"credential {self._config.url_credential!r} is not a valid Apprise URL of an installed service"
            )
        module = type(plugin).__module__.removeprefix("apprise.plugins.").partition(".")[0]
        if module not in HTTP_PLUGINS:
            raise PermanentDeliveryError(f"{plugin.service_name} is not a service that is reached over HTTP only")
        if any(isinstance(member, library.AppriseAttachment) and len(member) for member in vars(plugin).values()):
            raise PermanentDeliveryError("the Apprise URL names a file, such as a template, which is disabled")
        plugin.retry, plugin.optional, plugin.redirects = 0, False, False
        plugin.overflow_mode = library.OverflowMode.TRUNCATE
        plugin.socket_connect_timeout = plugin.socket_read_timeout = self._config.timeout
        return plugin


@functools.cache
def _library() -> Any:
    """Return the library, with its requests observed and its log records dropped: they contain URLs and payloads."""
    with importing(extra="apprise", purpose="a receiver of apprise_configs"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of modules that apprise replaces where they are gone
        import apprise
        import requests
        import urllib3.util.connection

        apprise.Apprise.instantiate("json://localhost")  # loads all plugins, here and not in a delivery
    original = requests.Session.send

    @functools.wraps(original)
    def send(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        exchange = _exchange.get()
        if exchange is None:
            return original(session, request, **options)
        return _send(exchange, functools.partial(original, session), request, options)

    session_class: Any = requests.Session
    session_class.send = send
    sockets: Any = urllib3.util.connection
    sockets.create_connection = functools.partial(_connect, sockets.create_connection)
    for name in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(name).addFilter(lambda _: _exchange.get() is None)
    return apprise


def _is_plain(url: str) -> bool:
    """Return whether no control character is in a URL, however often a plugin decodes it."""
    for _ in range(_DECODINGS):
        if _CONTROL.search(url):
            return False
        before, url = url, unquote(url)
        if url == before:
            return True
    return False


def _send(
    exchange: _Exchange, send: Any, request: requests.PreparedRequest, options: dict[str, Any]
) -> requests.Response:
    """Send one request of a delivery within the limits, and record what came of it."""
    import requests

    timeout = exchange.config.timeout
    try:
        if not exchange.config.allow_local_addresses:
            _check_address(request.url or "")
        proxies = {**(options.get("proxies") or {})}
        exchange.through_proxy = requests.utils.select_proxy(request.url or "", proxies) is not None
        exchange.message.mark_sent()
        deadline = current_clock().monotonic() + timeout
        options = {**options, "timeout": timeout, "allow_redirects": False, "stream": True}
        response = _read(send(request, **options), deadline)
    except DeliveryError as error:
        exchange.failure = error
        raise requests.ConnectionError("blocked") from None
    except requests.RequestException as error:
        exchange.failure = _no_response(error, timeout)
        raise
    exchange.statuses.append(response.status_code)
    if not response.ok or response.is_redirect:
        exchange.failure = status_error(response.status_code, "", response.headers)
    return response


def _read(response: requests.Response, deadline: float) -> requests.Response:
    """Read the content of a response within the limits, and return a copy with it."""
    import requests

    content = bytearray()
    for chunk in response.iter_content(8192):
        content += chunk
        if len(content) > RESPONSE_LIMIT or current_clock().monotonic() > deadline:
            break
    response.close()
    copy = requests.Response()
    copy.raw = io.BytesIO(content[:RESPONSE_LIMIT])
    for name in ("status_code", "headers", "url", "reason", "encoding", "request", "elapsed", "cookies"):
        setattr(copy, name, getattr(response, name))
    return copy


def _check_address(url: str) -> None:
    from yarl import URL

    target = URL(url)
    host = canonical_host(target.host or "")
    check_literal(host)
    with contextlib.suppress(OSError, UnicodeError):  # then the request fails by itself
        _resolve(host, target.port)


def _resolve(host: str, port: int | None) -> list[str]:
    """Resolve a host, and refuse local addresses."""
    addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in addresses:
        if is_local(address):
            raise PermanentDeliveryError(f"the service has the local address {address}, which is blocked")
    return addresses


def _connect(connect: Any, address: tuple[str, int], *arguments: Any, **options: Any) -> socket.socket:
    """Connect to one of the addresses that were checked: the name may have others when it is resolved again."""
    exchange = _exchange.get()
    if exchange is None or exchange.config.allow_local_addresses or exchange.through_proxy:
        return cast("socket.socket", connect(address, *arguments, **options))
    host, port = address
    failure: OSError | None = None
    for each in _resolve(host.strip("[]"), port):
        try:
            return cast("socket.socket", connect((each, port), *arguments, **options))
        except OSError as error:
            failure = error
    raise failure or OSError(f"{host} has no address")


def _no_response(error: Exception, timeout: float) -> DeliveryError:
    import requests
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    inner = error.args[0] if error.args else None
    cause = inner.reason if isinstance(inner, MaxRetryError) else inner
    if isinstance(error, (requests.ConnectTimeout, requests.exceptions.SSLError, requests.exceptions.ProxyError)):
        return RetryableDeliveryError(f"cannot connect: {type(error).__name__}")
    if isinstance(cause, NewConnectionError):
        return RetryableDeliveryError("cannot connect")
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader)):
        return PermanentDeliveryError("the Apprise URL leads to an invalid request")
    if isinstance(error, requests.Timeout):
        return UnknownDeliveryError(f"no response within {timeout:g} s")
    return UnknownDeliveryError(f"connection lost: {type(error).__name__}")


def _failure(exchange: _Exchange, service: str) -> DeliveryError:
    """Return the error of a delivery that failed."""
    failure = exchange.failure
    if failure is None:
        text = f"{service}: not delivered; apprise gives no reason"
        return RetryableDeliveryError(text, doubtful=bool(exchange.statuses))
    if any(200 <= status < 300 for status in exchange.statuses):
        return UnknownDeliveryError(f"{service}: delivered in part; then {failure}")
    failure.args = (f"{service}: {failure}",)
    return failure
