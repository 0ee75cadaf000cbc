"""The notification operator: the reconciler with channels, routing, credentials, audit and metrics from options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from reconciler._core.durations import Seconds
from reconciler.controller import Permission
from reconciler.errors import ConfigurationError
from reconciler.manager import Manager
from reconciler.notification.api import ChannelPolicy
from reconciler.notification.audit import AuditLog
from reconciler.notification.channel import Channel, ChannelRegistry, installed_channels
from reconciler.notification.channels.local import ConsoleChannel, FileChannel, LogChannel
from reconciler.notification.channels.services import RECEIVER_KINDS, build_channel, missing_credentials
from reconciler.notification.credentials import Credentials, SecretSource
from reconciler.notification.observers import NotificationMetrics, Observer
from reconciler.notification.policies import PolicySource, PolicyTable, PolicyValidator
from reconciler.notification.reconciler import NotificationReconciler
from reconciler.notification.redaction import Redactor
from reconciler.notification.router import ConfigMapSource, FileSource, RoutingConfigReconciler, RoutingTable
from reconciler.recording import Recording


@dataclass(frozen=True, kw_only=True)
class NotificationOptions:
    """The options of the operator.

    Attributes:
        console: whether to add the channel ``console``. Default True.
        log: whether to add the channel ``log``. Default True.
        directory: directory of the channel ``file``; None for no such channel. Default None.
        credentials: directory of the credentials. Default None.
        routing_file: file with the routing configuration. Default None.
        routing_config_map: ``NAMESPACE/NAME`` of a ConfigMap with the routing configuration in its key
            ``routing.yaml``. Default None.
        routing_resource: name of the RoutingConfig object with the routing configuration. Default None.
        fallback_channel: name of the channel for requests that name no channels and for which routing selects none;
            ``console``, ``log``, ``file`` or one of `channels`. Default None: such requests end ``Failed``.
        audit_file: file of the audit log; ``-`` for standard output. Default None.
        timeout: the duration (seconds, a timedelta or ``"30s"``) that one delivery may take. Default 30 s.
        max_concurrent: maximum concurrent deliveries. Default 64.
        workers: requests that are reconciled concurrently. Default 10.
        redact: regular expressions (RE2) of further secrets to redact; see `Redactor`. Default none.
        policies: whether ChannelPolicies restrict what namespaces may do. Default False. A manager with
            `webhook_certificates` then also serves a webhook that refuses requests which a policy does not allow.
        namespace_credentials: whether receivers may use credentials of the request's namespace, from Secrets with the
            label ``notify.reconciler.dev/credentials=true``. Default False.
        channels: additional channels. Channels of installed distributions are always added.
    """

    console: bool = True
    log: bool = True
    directory: Path | None = None
    credentials: Path | None = None
    routing_file: Path | None = None
    routing_config_map: str | None = None
    routing_resource: str | None = None
    fallback_channel: str | None = None
    audit_file: Path | None = None
    timeout: Seconds = Seconds(30.0)
    max_concurrent: int = 64
    workers: int = 10
    redact: Sequence[str] = ()
    policies: bool = False
    namespace_credentials: bool = False
    channels: Iterable[Channel] = field(default=())

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.routing_file, self.routing_config_map, self.routing_resource)) > 1:
            raise ConfigurationError("set only one of the routing file, the routing ConfigMap and the RoutingConfig")
        if self.routing_config_map is not None:
            namespace, slash, name = self.routing_config_map.partition("/")
            if not (namespace and slash and name) or "/" in name:
                raise ConfigurationError(
                    f"{self.routing_config_map!r} is not a valid ConfigMap name: use NAMESPACE/NAME"
                )


class NotificationOperator:
    """The operator for NotificationRequests, as `NotificationOptions` describes it.

    Create it before the manager, so that invalid options are reported before anything starts.

    Args:
        options: the options.

    Raises:
        ConfigurationError: a directory or file cannot be used, or the routing file is invalid, or needs a library that
            is not installed.
    """

    def __init__(self, options: NotificationOptions) -> None:
        self._options = options
        self.credentials = Credentials(options.credentials)
        self.credentials.check()
        self.redactor = Redactor(
            self.credentials.values, of_namespace=self.credentials.values_of_namespace, patterns=options.redact
        )
        self.channels = ChannelRegistry(_channels(options), close_after=2 * options.timeout)
        self.audit: AuditLog | None = None
        if options.audit_file is not None:
            self.audit = AuditLog(options.audit_file, redact=self.redactor.redact)
            self.audit.check()
        self.policies = PolicyTable()
        self.routing: RoutingTable | None = None
        self._file: FileSource | None = None
        if options.fallback_channel is not None and options.fallback_channel not in self.channels:
            known = ", ".join(self.channels) or "none"
            raise ConfigurationError(f"unknown fallback channel {options.fallback_channel!r}; channels: {known}")
        if options.routing_file or options.routing_config_map or options.routing_resource:
            self.routing = RoutingTable(
                self.channels,
                kinds=RECEIVER_KINDS,
                build=partial(build_channel, credentials=self.credentials),
                check=partial(missing_credentials, credentials=self.credentials),
            )
            if options.routing_file is not None:
                self._file = FileSource(options.routing_file, self.routing)
                self._file.load()

    def add_to(self, manager: Manager) -> NotificationReconciler:
        """Add the controller and its runnables to a manager; return the reconciler.

        Raises:
            ConfigurationError: an option is invalid.
        """
        metrics = NotificationMetrics(manager.metrics.registry)
        observers: list[Observer] = [metrics]
        if self.audit is not None:
            manager.add(self.audit)
            observers.append(self.audit)
        history: History | None = None
        if manager.console is not None:
            from reconciler.notification.console_page import History  # needs the extra `console`

            history = History()
            observers.append(history)
        reconciler = _reconciler_class(self._options)(
            self.channels,
            router=self.routing,
            observers=observers,
            redactor=self.redactor,
            timeout=self._options.timeout,
            max_concurrent=self._options.max_concurrent,
            policies=self.policies,
            fallback=self._options.fallback_channel,
        )
        metrics.watch(reconciler=reconciler, channels=self.channels, routing=self.routing, audit=self.audit)
        manager.add(self.channels)
        if self.routing is not None:
            self._add_routing(manager, self.routing)
        self._add_tenancy(manager)
        manager.add_controller(reconciler, workers=self._options.workers)
        if manager.console is not None and history is not None:
            from reconciler.notification.console_page import receivers_page

            manager.console.add(receivers_page(self.channels, history, reconciler.waiting))
            manager.console.redact = self.redactor.redact
        if isinstance(manager.recording, Recording):
            manager.recording.redact(self.redactor.redact)
        return reconciler

    def _add_routing(self, manager: Manager, routing: RoutingTable) -> None:
        options = self._options
        if self._file is not None:
            manager.add(self._file)
        if options.routing_config_map is not None:
            namespace, _, name = options.routing_config_map.partition("/")
            manager.add(ConfigMapSource(manager.cache, namespace, name, routing))
        if options.routing_resource is not None:
            loader = RoutingConfigReconciler(options.routing_resource, routing, redact=self.redactor.redact)
            manager.add_controller(loader)

    def _add_tenancy(self, manager: Manager) -> None:
        options = self._options
        if options.policies:
            manager.add(PolicySource(manager.cache, self.policies))
            manager.add_webhooks(PolicyValidator(self.policies, self.routing))
        if options.namespace_credentials:
            manager.add(SecretSource(manager.cache, self.credentials))


def _reconciler_class(options: NotificationOptions) -> type[NotificationReconciler]:
    """Return the reconciler with the permissions that these options need."""
    needed = list(NotificationReconciler.permissions or ())
    if options.policies:
        needed.append(Permission(ChannelPolicy, "get", "list", "watch"))
    if options.namespace_credentials:
        needed.append(Permission("v1/Secret", "get", "list", "watch"))

    class WithPermissions(NotificationReconciler):
        permissions = tuple(needed)

    WithPermissions.__name__ = NotificationReconciler.__name__
    return WithPermissions


def _channels(options: NotificationOptions) -> list[Channel]:
    channels: list[Channel] = []
    if options.console:
        channels.append(ConsoleChannel())
    if options.log:
        channels.append(LogChannel())
    if options.directory is not None:
        file = FileChannel(options.directory)
        file.check()
        channels.append(file)
    return [*channels, *options.channels, *installed_channels()]
