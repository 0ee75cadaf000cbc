"""The options that several commands have or that are many, and their names in errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from reconciler.cli.output import KUBECONFIG
from reconciler.errors import ConfigurationError

if TYPE_CHECKING:
    from reconciler.manager import EndpointSecurity

Format = Annotated[Literal["text", "json"], Parameter(help="Output format.")]
Target = Annotated[str, Parameter(help="MODULE:ATTR as for 'reconciler run'.")]

CONSOLE_ADDRESS = "127.0.0.1:8082"
"""Where ``--console`` without an address serves the console."""

ConsoleAddress = Annotated[
    str | None,
    Parameter(
        help=f"Serve a page for the browser. HOST:PORT may be omitted: {CONSOLE_ADDRESS}.",
        requires_equals=True,
        show_default=False,
    ),
]
"""The option ``--console[=HOST:PORT]``."""

Authentication = Annotated[
    Literal["kubernetes"] | None,
    Parameter(help="Clients of /metrics, /debug and the console send a token of the cluster; its RBAC decides."),
]

Controllers = Annotated[
    tuple[
        Literal[
            "deployments",
            "statefulsets",
            "daemonsets",
            "jobs",
            "pods",
            "claims",
            "endpoints",
            "disruptionbudgets",
            "all",
            "none",
        ],
        ...,
    ],
    Parameter(
        name="--controller",
        help="Run a stand-in for this controller. Can be repeated. 'all' runs every one, 'none' not even the garbage "
        "collector.",
        show_default=False,
    ),
]
NewKubeconfig = Annotated[Path, Parameter(help="Path of the kubeconfig to write.")]
Data = Annotated[
    Path | None,
    Parameter(help="Keep the objects in this directory, for the next server with it. Default: they are lost."),
]
Workers = Annotated[int, Parameter(help="Concurrent reconciles per controller.")]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], Parameter(help="Lowest level that is logged.")]
Namespaces = Annotated[
    tuple[str, ...],
    Parameter(name="--namespace", help="Watch only this namespace. Can be repeated.", show_default=False),
]
LeaderElection = Annotated[str | None, Parameter(help="Name of the Lease. Without it leader election is disabled.")]

Kubeconfig = Annotated[
    Path | None, Parameter(help="Path of the kubeconfig. Default: KUBECONFIG, in-cluster, ~/.kube/config.")
]
Context = Annotated[str | None, Parameter(help="Context of the kubeconfig. Default: its current context.")]
CopySecrets = Annotated[
    bool, Parameter(help="Copy the values of Secrets. Default: values of the same shape.", negative=())
]

_TYPED = {"security": "--token-file or --authentication", "LeaderElection.namespace": "--leader-election-namespace"}
_MANAGER_OPTIONS = ("leader_election", "metrics", "health", "console", "grace_period")


@Parameter(name="*", group="Notification operator")
@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationFlags:
    """The options of the notification operator: fields of `NotificationOptions`, named as typed.

    Attributes:
        directory: Directory of the channel 'file'; without it the channel is disabled.
        credentials: Directory with one file per credential, such as a mounted Secret.
        routing_file: Routing configuration; reloaded when the file changes.
        routing_config_map: NAMESPACE/NAME of a ConfigMap with the routing configuration in 'routing.yaml'.
        routing_resource: Name of the RoutingConfig object with the routing configuration.
        fallback_channel: Channel for requests that name none and for which routing selects none.
        audit_file: File to which each attempt and each result is appended as a line; '-' is standard output.
        console: Enable the channel 'console'.
        log: Enable the channel 'log'.
        timeout: Timeout of one delivery in seconds.
        max_concurrent: Maximum number of concurrent deliveries.
        redact: Pattern (RE2) of further secrets to redact. Can be repeated.
        policies: Restrict what namespaces may do by the cluster's ChannelPolicies.
        namespace_credentials: Let receivers use credentials from labelled Secrets of a namespace.
    """

    directory: Annotated[Path | None, Parameter(name="--notification-directory")] = None
    credentials: Path | None = None
    routing_file: Path | None = None
    routing_config_map: str | None = None
    routing_resource: str | None = None
    fallback_channel: str | None = None
    audit_file: Path | None = None
    console: Annotated[bool, Parameter(name="--console-channel")] = True
    log: Annotated[bool, Parameter(name="--log-channel")] = True
    timeout: Annotated[float, Parameter(name="--delivery-timeout", validator=Number(gt=0))] = 30.0
    max_concurrent: Annotated[int, Parameter(name="--max-deliveries", validator=Number(gte=1))] = 64
    redact: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    policies: Annotated[bool, Parameter(name="--channel-policies", negative="")] = False
    namespace_credentials: Annotated[bool, Parameter(negative="")] = False


@Parameter(name="*", group="Security of the endpoints")
@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityFlags:
    """The options that protect ``/metrics``, ``/debug`` and the console; see `EndpointSecurity`.

    Attributes:
        token_file: File with a token that clients must send instead; read again when it changes.
        certificates: Directory with tls.crt and tls.key, reloaded when they change. Default: self-signed.
        tls: Serve HTTPS. Default: if another of these options is given.
    """

    authentication: Authentication = None
    token_file: Path | None = None
    certificates: Path | None = None
    tls: Annotated[bool | None, Parameter(negative="--no-tls")] = None

    def to_security(self) -> EndpointSecurity | None:
        """Return the option of the manager; None if nothing protects the endpoints.

        Raises:
            ConfigurationError: the options are invalid.
        """
        from reconciler.manager import EndpointSecurity

        if self.authentication is not None and self.token_file is not None:
            raise ConfigurationError("set only one of --authentication and --token-file")
        if not (self.authentication or self.token_file or self.certificates or self.tls):
            return None
        with options_as_typed(token_file="--token-file", certificates="--certificates"):  # noqa: S106 - no password
            return EndpointSecurity(
                authentication=self.authentication,
                token_file=self.token_file,
                certificates=self.certificates,
                tls=self.tls is not False,
            )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorOptions:
    """The options of ``reconciler explain`` and ``recording fetch`` that choose the operator.

    Attributes:
        endpoint: http://HOST:PORT of --metrics or --health. Default: the operator of 'reconciler dev' here.
    """

    endpoint: str | None = None
    kubeconfig: Kubeconfig = None
    context: Context = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFlags:
    """The options of commands that read the endpoints of an operator.

    Attributes:
        token_file: File with the token to send, such as one of 'kubectl create token'.
        ca_file: PEM file of the CA that signed the certificate of an https:// endpoint.
        insecure_skip_tls_verify: Accept any certificate, such as a self-signed one.
    """

    token_file: Path | None = None
    ca_file: Path | None = None
    insecure_skip_tls_verify: Annotated[bool, Parameter(negative=())] = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of ``reconciler run``.

    Attributes:
        leader_election_namespace: Namespace of the Lease. Default: the pod's namespace, or the only --namespace.
        metrics: HOST:PORT of /metrics and /debug/queue. Without it metrics are not served.
        health: HOST:PORT of /healthz and /readyz. Without it health is not served.
        webhooks: HOST:PORT on which webhooks are served.
        webhook_certificates: Directory with tls.crt and tls.key. Without it webhooks are not served.
        grace_period: Seconds that reconciles in progress have to finish after SIGTERM.
        record: Record the reconciles of the last two hours in this directory, 500 MB at most.
        log_format: Format of the log on standard error.
    """

    kubeconfig: Kubeconfig = None
    context: Context = None
    namespaces: Namespaces = ()
    workers: Workers = 4
    leader_election: LeaderElection = None
    leader_election_namespace: str | None = None
    metrics: str | None = None
    health: str | None = None
    console: ConsoleAddress = None
    webhooks: str = "0.0.0.0:9443"
    webhook_certificates: Path | None = None
    security: SecurityFlags = SecurityFlags()
    grace_period: float = 30.0
    record: Path | None = None
    notification: NotificationFlags = NotificationFlags()
    log_format: Literal["text", "json"] = "text"
    log_level: LogLevel = "info"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The options of ``reconciler plan``.

    Attributes:
        fork: A file of 'reconciler fork', instead of a cluster; needs no kubeconfig.
        only: KIND NAMESPACE/NAME: print only what concerns this object.
        compare: Print only what another version does differently: MODULE:ATTR, the Python of another environment, or a
            file of --output json.
        ask_cluster: Send each change to the cluster with dryRun=All, and print refusals.
        hours: Virtual hours that the operator works at most.
        rounds: Reconciles of an object that are waited for.
        seconds: CPU seconds that the plan takes at most, and seconds without progress.
        log_level: Lowest level of the operator's log that is printed. Default: nothing is.
    """

    kubeconfig: Kubeconfig = None
    context: Context = None
    fork: Path | None = None
    namespaces: Namespaces = ()
    secrets: CopySecrets = False
    only: Annotated[tuple[str, str] | None, Parameter(show_default=False)] = None
    compare: str | None = None
    ask_cluster: Annotated[bool, Parameter(negative=())] = False
    hours: Annotated[float, Parameter(validator=Number(gt=0))] = 1.0
    rounds: Annotated[int, Parameter(validator=Number(gte=1))] = 10
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 600.0
    workers: Workers = 4
    notification: NotificationFlags = NotificationFlags()
    log_level: Literal["debug", "info", "warning", "error"] | None = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ForkOptions:
    """The options of ``reconciler fork``.

    Attributes:
        kinds: Copy this kind. Can be repeated. Default: all but Events.
        namespaces: Copy only this namespace. Can be repeated.
        selectors: KIND:LABELS: of this kind only objects with labels.
    """

    kubeconfig: Kubeconfig = None
    context: Context = None
    kinds: Annotated[tuple[str, ...], Parameter(name="--kind", show_default=False)] = ()
    namespaces: Annotated[tuple[str, ...], Parameter(name="--namespace", show_default=False)] = ()
    selectors: Annotated[tuple[str, ...], Parameter(name="--selector", show_default=False)] = ()
    secrets: CopySecrets = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """The options of ``reconciler dev``.

    Attributes:
        control_plane: Run a real etcd and kube-apiserver instead of the embedded server.
        metrics: HOST:PORT of /metrics and /debug/queue. Default: 127.0.0.1:8080, or a free port.
        console: HOST:PORT of the console, a page for the browser. Default: 127.0.0.1:8082, or a free port.
        check: Run 'reconciler check' with this example after each start, for 5 s of CPU.
    """

    kubeconfig: NewKubeconfig = KUBECONFIG
    control_plane: Annotated[bool, Parameter(negative=())] = False
    data: Data = None
    controllers: Controllers = ()
    namespaces: Namespaces = ()
    workers: Workers = 4
    metrics: str | None = None
    console: Annotated[str | None, Parameter(requires_equals=True)] = None
    check: Path | None = None
    log_level: LogLevel = "info"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """The options of ``reconciler check``.

    Attributes:
        example: YAML file with an object of the operator's kind, and what it needs. Needed without --scenario.
        exec: Command of a program in any language, which finds the server by the variable KUBECONFIG.
        scenario: With --exec: Python file; each 'async def NAME(world)' in it is a scenario.
        objects: Objects that exist before, such as CRDs: YAML or JSON file, directory, MODULE:CLASS; repeatable.
        owns: Kind that the operator's objects own, for a Reconciler class. Can be repeated.
        budget: Seconds of CPU, or with --exec seconds, for everything. Default: 30, or 540.
        runs: Maximum number of disturbed runs of each scenario.
        seed: Seed of everything random.
        settle_timeout: With --exec: seconds until the program connects, and until it rests.
        jobs: With --exec: how many programs run at once. Default: from cores and memory, 4 for each core.
        open: With --exec: do not close the program off from the network and the processes of this machine.
        repeat: Repeat one run: copy the last line of a report.
        junit: Write the results to this file as JUnit XML.
        html: Write a page for each failure into this directory.
    """

    example: Path | None = None
    exec: str | None = None
    scenario: Path | None = None
    objects: Annotated[tuple[str, ...], Parameter(name=("--objects", "--crds"), show_default=False)] = ()
    owns: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    budget: Annotated[float | None, Parameter(validator=Number(gt=0))] = None
    runs: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    seed: int = 0
    settle_timeout: Annotated[float, Parameter(validator=Number(gt=0))] = 30.0
    jobs: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    open: Annotated[bool, Parameter(negative="")] = False
    repeat: str | None = None
    junit: Path | None = None
    html: Path | None = None
    output: Format = "text"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOptions:
    """The options of ``reconciler manifests`` that describe the installation of an operator.

    Attributes:
        name: Name of the service account and the roles. Default: the module's name.
        install_namespace: Namespace in which the operator runs, and of its service account.
        leader_election_namespace: Namespace of the Lease. Default: --install-namespace.
        image: Container image of the Deployment. Default: --name; the overlay replaces it.
        ca_bundle: PEM file of the CA of the webhooks' certificate. Default: cert-manager adds it.
    """

    name: str | None = None
    install_namespace: str = "default"
    namespaces: Namespaces = ()
    leader_election: LeaderElection = None
    leader_election_namespace: str | None = None
    authentication: Authentication = None
    image: str | None = None
    ca_bundle: Path | None = None


@contextlib.contextmanager
def options_as_typed(**names: str) -> Iterator[None]:
    """Name a manager's options in its errors as they are typed on the command line.

    Args:
        names: further parameters and the options that set them.

    Raises:
        ConfigurationError: in place of one with the names of parameters.
    """
    typed = {name: "--" + name.replace("_", "-") for name in _MANAGER_OPTIONS} | _TYPED | names
    pattern = re.compile(rf"\b({'|'.join(typed)})(?==| must)")
    try:
        yield
    except ConfigurationError as error:
        text = pattern.sub(lambda match: typed[match[1]], str(error))
        raise ConfigurationError(text.removesuffix("=")) from error


def with_console_address(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line with the address of each ``--console`` joined to it, or the default one.

    The argument after ``--console`` is its address if it ends with a port, which a MODULE:ATTR never does.
    """
    joined: list[str] = []
    for each in arguments:
        if joined[-1:] == ["--console"] and each.rpartition(":")[2].isdecimal():
            joined[-1] += f"={each}"
        else:
            joined.append(each)
    return [f"--console={CONSOLE_ADDRESS}" if each == "--console" else each for each in joined]
