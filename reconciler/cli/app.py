"""Declare the commands; each one's work is in a module of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.config import Env, Yaml
from cyclopts.validators import Number

import reconciler
from reconciler.cli.options import NotificationFlags
from reconciler.errors import ConfigurationError

__all__ = ["app"]

Format = Literal["text", "json"]


def _version() -> str:
    # An unrelated distribution has the same import name, so say which one this is.
    return f"kube-reconciler {reconciler.__version__} ({Path(reconciler.__file__).parent})"


def configured_by(arguments: Sequence[str]) -> tuple[Any, ...]:
    """Return where options come from that are not on the command line: the environment, then the file of --config.

    Unknown keys in the file are errors.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    environment = Env("RECONCILER_")
    file = _config_file(arguments)
    if file is None:
        return (environment,)
    if not file.is_file():
        raise ConfigurationError(f"--config {file}: there is no such file")
    return environment, Yaml(file, use_commands_as_keys=False)


def _config_file(arguments: Sequence[str]) -> Path | None:
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return Path(argument.partition("=")[2])
        if argument == "--config" and position + 1 < len(arguments):
            return Path(arguments[position + 1])
    return Path(os.environ["RECONCILER_RUN_CONFIG"]) if "RECONCILER_RUN_CONFIG" in os.environ else None


app = App(
    name="reconciler",
    help="Run Kubernetes reconcilers in Python, and see what they do.",
    version=_version,
)
routes = App(name="routes", help="Look where the routing rules of notifications lead.")
app.command(routes)
envtest = App(name="envtest", help="Find, build or start a real etcd and kube-apiserver for tests.")
app.command(envtest)


@app.command
def demo(
    *,
    speed: Annotated[float, Parameter(help="Virtual seconds shown in one real second; 0 shows all at once.")] = 45.0,
    naive: Annotated[bool, Parameter(help="Show what happens without the library's protections.")] = False,
    output: Annotated[Format, Parameter(help="'json' prints the facts and nothing else.")] = "text",
) -> int:
    """Show a notification retried with exponential backoff and one status write a cycle. Needs no cluster."""
    from reconciler.cli.demo.demo import run_demo

    return run_demo(speed=speed, naive=naive, as_json=output == "json")


@app.command
def run(
    target: Annotated[str, Parameter(help="MODULE:ATTR, or 'notification' for the operator that comes along.")],
    /,
    *,
    kubeconfig: Annotated[Path | None, Parameter(help="Defaults to KUBECONFIG, in-cluster, ~/.kube/config.")] = None,
    context: Annotated[str | None, Parameter(help="A context of the kubeconfig; defaults to its current one.")] = None,
    namespace: Annotated[tuple[str, ...], Parameter(help="Watch only this namespace; can be repeated.")] = (),
    workers: Annotated[int, Parameter(help="Reconciles side by side, for each controller.")] = 4,
    leader_election: Annotated[str | None, Parameter(help="Name of the Lease; off unless given.")] = None,
    leader_election_namespace: Annotated[
        str | None, Parameter(help="Where the Lease is; defaults to the pod's namespace, or the only --namespace.")
    ] = None,
    metrics: Annotated[str | None, Parameter(help="HOST:PORT of /metrics; off unless given.")] = None,
    health: Annotated[str | None, Parameter(help="HOST:PORT of /healthz and /readyz; off unless given.")] = None,
    grace_period: Annotated[float, Parameter(help="Seconds that work in progress has to end after SIGTERM.")] = 30.0,
    notification: NotificationFlags = NotificationFlags(),  # noqa: B008 - frozen
    config: Annotated[  # noqa: ARG001 - read by `configured_by`, before the command line is
        Path | None, Parameter(help="YAML file with these options by their names, without dashes in front.")
    ] = None,
    log_format: Annotated[Format, Parameter(help="Form of the log lines on standard error.")] = "text",
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Parameter(help="Least level shown.")] = "info",
) -> int:
    """Run reconcilers against a cluster until SIGTERM.

    ATTR is a Reconciler (class or instance), a sequence of them, or a function, plain or async, that is given the
    Manager and adds controllers to it. An option on the command line stands over the environment, which stands over the
    file of --config.
    """
    from reconciler.cli.run import RunOptions, run_target

    return run_target(
        target,
        RunOptions(
            kubeconfig=kubeconfig,
            context=context,
            namespaces=namespace,
            workers=workers,
            leader_election=leader_election,
            leader_election_namespace=leader_election_namespace,
            metrics=metrics,
            health=health,
            grace_period=grace_period,
            notification=notification,
            log_format=log_format,
            log_level=log_level,
        ),
    )


@app.command
def crd(
    target: Annotated[str, Parameter(help="MODULE:CLASS of a Resource, or 'notification'.")],
    /,
    *,
    output: Annotated[Literal["yaml", "json"], Parameter(help="Form of the document.")] = "yaml",
) -> int:
    """Print the CustomResourceDefinition of a Resource class."""
    from reconciler.cli.crd import print_crd

    return print_crd(target, as_json=output == "json")


@app.command
def manifests(
    target: Annotated[
        str, Parameter(help="MODULE:ATTR, as of 'reconciler run', or 'notification' for all that runs that operator.")
    ],
    /,
    *,
    name: Annotated[
        str | None, Parameter(help="Name of the service account and the roles; defaults to the module's.")
    ] = None,
    install_namespace: Annotated[str, Parameter(help="Where the operator runs: the service account's.")] = "default",
    namespace: Annotated[tuple[str, ...], Parameter(help="Watch only this namespace; can be repeated.")] = (),
    leader_election: Annotated[str | None, Parameter(help="Name of the Lease; off unless given.")] = None,
    leader_election_namespace: Annotated[
        str | None, Parameter(help="Where the Lease is; defaults to --install-namespace.")
    ] = None,
    image: Annotated[
        str, Parameter(help="Container image of the Deployment of 'notification'.")
    ] = "kube-reconciler:latest",
    output: Annotated[Literal["yaml", "json"], Parameter(help="Form of the documents.")] = "yaml",
) -> int:
    """Print the service account, roles and bindings that an operator needs. Needs no cluster.

    The roles hold what the controllers watch, their status, finalizers and events, the Lease, and what the reconcilers
    declare in 'permissions'. Give --namespace and --leader-election as to 'reconciler run'. For 'notification' the CRD,
    Deployment, PodDisruptionBudget, NetworkPolicy and ServiceMonitor are there as well.
    """
    from reconciler.cli.manifests import print_manifests

    return print_manifests(
        target,
        name=name,
        install_namespace=install_namespace,
        namespaces=namespace,
        leader_election=leader_election,
        leader_election_namespace=leader_election_namespace,
        image=image,
        as_json=output == "json",
    )


@app.command
def apiserver(
    *things: Annotated[
        str,
        Parameter(help="Created at the start: a YAML or JSON file, a directory of them, MODULE:CLASS, 'notification'."),
    ],
    port: Annotated[
        int, Parameter(help="Port on the loopback interface; 0 takes a free one.", validator=Number(gte=0, lte=65535))
    ] = 0,
    kubeconfig: Annotated[Path, Parameter(help="Where to write the kubeconfig.")] = Path("reconciler.kubeconfig"),
    log: Annotated[
        Literal["none", "writes", "requests"], Parameter(help="Requests to print, a line each: who, what, outcome.")
    ] = "none",
    chaos: Annotated[
        float, Parameter(help="Share of the requests to let go wrong, from 0 to 1.", validator=Number(gte=0, lte=1))
    ] = 0.0,
    seed: Annotated[int, Parameter(help="Of uids, generated names and all chance in --chaos.")] = 0,
) -> int:
    """Serve the embedded API server on the loopback interface until interrupted.

    Its data is lost at the end. kubectl and any other client reach it by the kubeconfig.
    """
    from reconciler.cli.servers import ServeOptions, serve

    return serve(things, ServeOptions(port=port, kubeconfig=kubeconfig, log=log, chaos=chaos, seed=seed))


@routes.command(name="test")
def routes_test(
    file: Annotated[Path, Parameter(help="The routing configuration.")],
    /,
    *attributes: Annotated[str, Parameter(help="NAME=VALUE of a request: type, priority, namespace, an extension.")],
    request: Annotated[Path | None, Parameter(help="A NotificationRequest in YAML, to take attributes from.")] = None,
    output: Annotated[Format, Parameter(help="Form of the answer.")] = "text",
) -> int:
    """Print which receivers, and so which channels, a request would reach.

    A file that cannot be used is an error that lists every mistake in it with its line.
    """
    from reconciler.cli.routes import print_routes

    return print_routes(file, attributes, request=request, as_json=output == "json")


@envtest.command
def path(*, output: Annotated[Format, Parameter(help="Form of the answer.")] = "text") -> int:
    """Print the directory that holds etcd, kube-apiserver and kubectl."""
    from reconciler.cli.envtest import print_path

    return print_path(as_json=output == "json")


@envtest.command
def build() -> int:
    """Build etcd, etcdutl, kube-apiserver and kubectl with Go, once, into the user's cache."""
    from reconciler.cli.envtest import build_binaries

    return build_binaries()


@envtest.command
def up(
    *,
    kubeconfig: Annotated[Path, Parameter(help="Where to write the kubeconfig.")] = Path("reconciler.kubeconfig"),
) -> int:
    """Start a real control plane on the loopback interface until interrupted."""
    from reconciler.cli.envtest import bring_up

    return bring_up(kubeconfig=kubeconfig)
