"""The commands and their options; each command's work is in a module of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import App, Parameter
from cyclopts.config import Env, Toml, Yaml
from cyclopts.validators import Number

import reconciler
from reconciler.cli.options import (
    KUBECONFIG,
    AccessFlags,
    CheckOptions,
    ConsoleAddress,
    Controllers,
    Data,
    DevOptions,
    ForkOptions,
    ManifestOptions,
    NewKubeconfig,
    OperatorOptions,
    PlanOptions,
    RunOptions,
)
from reconciler.cli.targets import PYPROJECT, read_pyproject
from reconciler.errors import ConfigurationError

Format = Literal["text", "json"]
ControllerManager = Annotated[
    bool, Parameter(help="Include kube-controller-manager: garbage collection, Deployments, Jobs.", negative=())
]


def _version() -> str:
    # An unrelated distribution has the same import name, so print where this one is installed.
    return f"kube-reconciler {reconciler.__version__} ({Path(reconciler.__file__).parent})"


def config_sources(arguments: Sequence[str]) -> tuple[Any, ...]:
    """Return the sources of options that are not on the command line: the environment, then a file.

    The file is that of --config, or for some commands the project's pyproject.toml.

    Unknown keys in the file are errors.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    environment = Env("RECONCILER_")
    if arguments and arguments[0] in _IN_PYPROJECT:
        if read_pyproject() is None:
            return (environment,)
        return environment, Toml(PYPROJECT, root_keys=["tool", "reconciler"])
    file = _config_file(arguments)
    if file is None:
        return (environment,)
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"--config {file}: no such file") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"--config {file}: not a readable YAML file: {reason}") from error
    for key in _keys(document):
        if not isinstance(key, str):  # YAML reads yes, on and null as values
            raise ConfigurationError(f"--config {file}: the key {key} is not the name of an option: write it in quotes")
    return environment, Yaml(file, use_commands_as_keys=False)


def _keys(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value
        for each in value.values():
            yield from _keys(each)


_IN_PYPROJECT = frozenset({"check", "dev", "manifests", "plan"})
"""Commands whose options are in the table ``[tool.reconciler.COMMAND]`` of a project's pyproject.toml."""


def _config_file(arguments: Sequence[str]) -> Path | None:
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return Path(argument.partition("=")[2])
        if argument == "--config" and position + 1 < len(arguments):
            return Path(arguments[position + 1])
    return Path(os.environ["RECONCILER_RUN_CONFIG"]) if "RECONCILER_RUN_CONFIG" in os.environ else None


app = App(
    name="reconciler",
    help=(
        "Run Kubernetes controllers written in Python, and develop and test them without a cluster.\n\n"
        "Environment variables set options too: RECONCILER_RUN_METRICS sets --metrics of 'reconciler run'. The command "
        "line takes precedence."
    ),
    version=_version,
    default_parameter=Parameter(show_env_var=False, negative_iterable=()),
)
add = App(name="add", help="Add a kind or a webhook to the project in the current directory.")
app.command(add)
routes = App(name="routes", help="Test the routing rules of notifications.")
app.command(routes)
recording = App(name="recording", help="Show what an operator recorded, fetch it, and make tests of it.")
app.command(recording)
envtest = App(name="envtest", help="Find, build or start a real etcd and kube-apiserver for tests.")
app.command(envtest)


@app.command(name="--install-completion")
def install_completion(
    *,
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None, Parameter(help="The shell. Default: the one that runs this command.")
    ] = None,
) -> int:
    """Install completion of commands and options in the shell, and have its startup file load it."""
    from cyclopts.completion.detect import ShellDetectionError

    try:
        path = app.install_completion(shell=shell)
    except ShellDetectionError as error:
        raise ConfigurationError("cannot detect the shell: pass --shell bash, zsh or fish") from error
    except OSError as error:
        raise ConfigurationError(f"cannot write {error.filename}: {error.strerror}") from error
    print(f"installed {path}; it takes effect in a new shell")
    return 0


@app.command
def demo(
    *,
    speed: Annotated[float, Parameter(help="Virtual seconds per real second; 0 shows the result at once.")] = 75.0,
    naive: Annotated[
        bool, Parameter(help="Show only the naive way: a controller without the library's protections.")
    ] = False,
    output: Annotated[Format, Parameter(help="Output format; 'json' prints only the facts.")] = "text",
    console: ConsoleAddress = None,
    record: Annotated[
        Path | None, Parameter(help="With --naive: record the reconciles in this directory, for 'reconciler replay'.")
    ] = None,
) -> int:
    """Show how a failed notification is retried, the naive way and with this library. Needs no cluster.

    With 'json' the facts are those of this library; with --naive, those of the naive way. With --console the browser
    shows one of them, with short delays and in real time, until interrupted.
    """
    if console is not None:
        from reconciler.cli.demo_timeline import run_live

        return run_live(console, naive=naive)
    from reconciler.cli.demo_timeline import run_demo

    return run_demo(speed=speed, naive=naive, as_json=output == "json", record=record)


Versions = Annotated[
    str,
    Parameter(help="Versions of the kind, separated by commas. The last is stored, the others are converted to it."),
]
ByKey = Annotated[
    bool, Parameter(help="Write a reconciler that gets the name of an object instead of the object.", negative=())
]


@app.command
def new(
    name: Annotated[str, Parameter(help="Name of the package, such as 'my_operator'.")],
    /,
    *,
    directory: Annotated[
        Path | None, Parameter(help="Directory of the project; empty if it exists. Default: NAME.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None, Parameter(help="The kind in CamelCase, such as 'Database'. Default: named after the package.")
    ] = None,
    group: Annotated[str, Parameter(help="API group of the kind: a domain of yours.")] = "example.com",
    versions: Versions = "v1alpha1",
    webhook: Annotated[
        bool, Parameter(help="Add a validating and a defaulting webhook with configuration.", negative=())
    ] = False,
    by_key: ByKey = False,
    external: Annotated[
        bool, Parameter(help="Write a reconciler of something outside the cluster, behind an HTTP API.", negative=())
    ] = False,
) -> int:
    """Write a small operator project that works at once: a kind, a reconciler, tests and manifests.

    Needs no cluster. Afterwards 'pytest', 'reconciler run' and 'kubectl apply -f' work in this order; the output has
    the commands. With several --versions there is a conversion webhook, too. 'reconciler add' adds more later.
    """
    from reconciler.cli.scaffold.project import ProjectOptions, create_project

    options = ProjectOptions(
        kind=kind, group=group, versions=versions.split(","), by_key=by_key, webhook=webhook, external=external
    )
    return create_project(name, directory, options)


@add.command(name="kind")
def add_kind(
    name: Annotated[str, Parameter(help="The kind in CamelCase, such as 'Database'.")],
    /,
    *,
    group: Annotated[str | None, Parameter(help="API group of the kind. Default: that of the project's kinds.")] = None,
    versions: Versions = "v1alpha1",
    by_key: ByKey = False,
) -> int:
    """Add a kind with its reconciler, tests and an example to the project in the current directory.

    Existing files are not overwritten: the function that adds the controllers gets one more line and an import, and the
    manifests are generated again.
    """
    from reconciler.cli.scaffold.project import add_kind

    return add_kind(name, group=group, versions=versions.split(","), by_key=by_key)


@add.command(name="webhook")
def add_webhook(
    kind: Annotated[str, Parameter(help="The name of a Resource class of the project.")],
    /,
) -> int:
    """Add a validating and a defaulting webhook of a kind to the project in the current directory.

    Existing files are not overwritten: the function that adds the controllers gets one more line and an import, and
    the manifests are generated again.
    """
    from reconciler.cli.scaffold.project import add_webhook

    return add_webhook(kind)


@app.command
def run(
    target: Annotated[str, Parameter(help="MODULE:ATTR, or 'notification' for the built-in notification operator.")],
    /,
    *,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    config: Annotated[  # noqa: ARG001 - read by `config_sources` before the command line is parsed
        Path | None, Parameter(help="YAML file with these options as keys, without the leading dashes.")
    ] = None,
) -> int:
    """Run controllers against a cluster until SIGTERM.

    ATTR is a Reconciler (class or instance), a sequence of them, or a function, plain or async, that takes the Manager
    and adds controllers to it. The command line takes precedence over environment variables, which take precedence over
    the file of --config.
    """
    from reconciler.cli.run import run_target

    return run_target(target, options)


@app.command
def dev(
    target: Annotated[str, Parameter(help="MODULE:ATTR as for 'reconciler run'.")],
    *,
    options: DevOptions = DevOptions(),  # noqa: B008 - frozen
) -> int:
    """Run an operator while you write it: on an API server of its own, restarted when a file changes.

    The CRDs of the operator's own kinds and its webhooks are installed at each start, with a development certificate.
    Validators and defaulters are called on both servers, converters on that of --control-plane only: the embedded
    server calls a converter only in its own process, as tests do. The server and its objects stay while the operator
    restarts. If the operator cannot start, the error is shown, and the next change starts it again. Python, YAML, JSON
    and TOML files below the current directory are watched. Ctrl-C ends everything. In a project of 'reconciler new' the
    target is in pyproject.toml.
    """
    from reconciler.cli.dev import run_dev

    return run_dev(target, options)


@app.command
def check(
    target: Annotated[str | None, Parameter(help="MODULE:ATTR as for 'reconciler run'. Omit it with --exec.")] = None,
    *,
    options: CheckOptions,
) -> int:
    """Prove that an operator survives crashes, late events, lost responses and other writers. Needs no cluster.

    Creates the example, changes each field of its spec, and deletes it, on an API server of its own and in virtual
    time; then again and again, each time with one disturbance. What must be true after each run needs no code: the
    state is that of an undisturbed run, nothing is left behind, and so on. The exit code is 1 if something is found.
    The report ends with a command that repeats the run, in which breakpoints work.

    With --exec the operator is a program in any language. It runs in real time, so there are fewer runs; a crash is
    SIGKILL. Pass its CustomResourceDefinitions with --objects. In a project of 'reconciler new' target and example are
    in pyproject.toml.
    """
    from reconciler.cli.check import run_check

    return run_check(target, options)


@app.command
def plan(
    target: Annotated[str, Parameter(help="MODULE:ATTR as for 'reconciler run', or 'notification'.")],
    *,
    options: PlanOptions = PlanOptions(),  # noqa: B008 - frozen
    output: Annotated[Format, Parameter(help="Output format.")] = "text",
) -> int:
    """Print what an operator would do to the objects of a cluster, without doing it.

    The operator runs on a copy of the cluster in this process, in virtual time, until nothing happens any more. The
    cluster is only read: objects of a kind are copied when the operator first asks for them. Effects that are declared
    with @effect are listed instead of called. The exit code is 0 if nothing would change, 2 if something would, 1 after
    an error.
    """
    from reconciler.cli.plan.command import print_plan

    return print_plan(target, options, as_json=output == "json")


@app.command
def fork(
    *,
    output: Annotated[Path, Parameter(help="The file to write; only its owner can read it.")],
    options: ForkOptions = ForkOptions(),  # noqa: B008 - frozen
) -> int:
    """Copy the objects of a cluster into a file, for 'reconciler plan --fork' and for tests.

    The cluster is only read. The file is a snapshot of the embedded API server, for its method restore().
    """
    from reconciler.cli.plan.command import write_fork

    return write_fork(output, options)


@app.command
def certificates(
    directory: Annotated[Path, Parameter(help="Directory for ca.crt, tls.crt and tls.key.")],
    /,
    *,
    host: Annotated[
        tuple[str, ...], Parameter(help="Host name or address of the webhooks. Can be repeated.", show_default=False)
    ] = ("localhost", "127.0.0.1"),
) -> int:
    """Make a development certificate for webhooks, and a CA for it. Existing files are not overwritten.

    In a cluster the host is that of the webhooks' Service, such as 'my-operator-webhook.default.svc'. In production let
    cert-manager make and renew the certificate.
    """
    from reconciler.cli.dev import print_certificates

    return print_certificates(directory, host)


@app.command
def explain(
    kind: Annotated[
        str, Parameter(help="Kind, plural or short name, with or without .GROUP; or the name of a controller.")
    ],
    key: Annotated[str, Parameter(name="object", help="NAME or NAMESPACE/NAME.")],
    /,
    *,
    namespace: Annotated[
        str | None,
        Parameter(name=["--namespace", "-n"], help="Namespace of the object. Default: that of the context."),
    ] = None,
    operator: OperatorOptions = OperatorOptions(),  # noqa: B008 - frozen
    access: AccessFlags = AccessFlags(),  # noqa: B008 - frozen
    output: Annotated[Format, Parameter(help="Output format.")] = "text",
) -> int:
    """Explain the state of an object: its last reconcile, the result, and the time and reason of the next one.

    Asks a running operator, through a forwarded port of its pod or at --endpoint. It must serve --metrics or --health.
    """
    from reconciler.cli.explain import print_explanation
    from reconciler.cli.forward import reached

    with reached(operator, access) as found:
        return print_explanation(
            kind,
            key,
            endpoint=found.endpoint,
            namespace=namespace,
            default_namespace=found.namespace,
            access=access,
            as_json=output == "json",
        )


Recorded = Annotated[Path, Parameter(help="Directory of the recording, or one of its segments.")]
ObjectOption = Annotated[
    tuple[str, str] | None,
    Parameter(help="KIND and NAMESPACE/NAME of an object; the name of a controller may stand for the kind."),
]
SinceOption = Annotated[
    str | None, Parameter(name="--from", help="From this time on, in UTC: 03:12, or 2026-01-31T03:12.")
]
UntilOption = Annotated[str | None, Parameter(name="--to", help="Up to this time.")]
ReconcileOption = Annotated[str | None, Parameter(help="Id of a reconcile, or its beginning.")]


@recording.command(name="show")
def recording_show(
    directory: Recorded,
    kind: Annotated[str | None, Parameter(help="Kind of the object, or name of the controller.")] = None,
    key: Annotated[str | None, Parameter(name="object", help="NAMESPACE/NAME or NAME.")] = None,
    /,
    *,
    reconcile: ReconcileOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    html: Annotated[Path | None, Parameter(help="Write the timeline to this file, as a page for the browser.")] = None,
    output: Annotated[Format, Parameter(help="Output format.")] = "text",
) -> int:
    """Show what was recorded: the objects, or the reconciles of one, with the fields that each of them wrote."""
    from reconciler.cli.recording.show import Selection, show_recording

    selection = Selection(kind=kind, key=key, since=since, until=until, reconcile=reconcile)
    return show_recording(directory, selection, html=html, as_json=output == "json")


@recording.command(name="fetch")
def recording_fetch(
    directory: Annotated[Path, Parameter(help="New or empty directory for the copy.")],
    /,
    *,
    operator: OperatorOptions = OperatorOptions(),  # noqa: B008 - frozen
    access: AccessFlags = AccessFlags(),  # noqa: B008 - frozen
) -> int:
    """Copy the recording of a running operator.

    Asks a running operator, through a forwarded port of its pod or at --endpoint. It must serve --metrics or --health.
    """
    from reconciler.cli.forward import reached
    from reconciler.cli.recording.replay import fetch_recording

    with reached(operator, access) as found:
        return fetch_recording(found.endpoint, access, directory)


@recording.command(name="to-test")
def recording_to_test(
    directory: Recorded,
    target: Annotated[str, Parameter(help="MODULE:ATTR as for 'reconciler run'.")],
    /,
    *,
    reconcile: ReconcileOption = None,
    object: ObjectOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    output: Annotated[Path | None, Parameter(help="The test file. Default: test_NAME.py.")] = None,
) -> int:
    """Write a pytest file that replays one reconcile, or those of one object, and the recording cut down to them."""
    from reconciler.cli.recording.replay import write_test
    from reconciler.cli.recording.show import Selection

    kind, key = object or (None, None)
    selection = Selection(kind=kind, key=key, since=since, until=until, reconcile=reconcile)
    return write_test(directory, selection, target, output)


@app.command
def replay(
    directory: Recorded,
    target: Annotated[str, Parameter(help="MODULE:ATTR as for 'reconciler run', or 'notification'.")],
    /,
    *,
    reconcile: ReconcileOption = None,
    object: ObjectOption = None,
    all: Annotated[bool, Parameter(help="Replay every reconcile of the recording.", negative=())] = False,
    since: SinceOption = None,
    until: UntilOption = None,
    output: Annotated[Format, Parameter(help="Output format.")] = "text",
) -> int:
    """Run recorded reconciles again on this machine, without a cluster, and compare what they do.

    Reads, responses, times and random numbers are those of the recording, in virtual time; breakpoints work. The exit
    status is 1 if one does something else.
    """
    from reconciler.cli.recording.replay import check_choice, replay_recording
    from reconciler.cli.recording.show import Selection

    kind, key = object or (None, None)
    selection = Selection(kind=kind, key=key, since=since, until=until, reconcile=reconcile)
    check_choice(selection, everything=all)
    return replay_recording(directory, selection, target, as_json=output == "json")


@app.command
def top(
    *,
    operator: OperatorOptions = OperatorOptions(),  # noqa: B008 - frozen
    access: AccessFlags = AccessFlags(),  # noqa: B008 - frozen
    watch: Annotated[float | None, Parameter(help="Update every so many seconds until interrupted.")] = None,
    output: Annotated[
        Format, Parameter(help="Output format; 'json' with --watch prints one line per update.")
    ] = "text",
) -> int:
    """Print the controllers of a running operator: queues, workers, failing keys and hot keys.

    Asks a running operator, through a forwarded port of its pod or at --endpoint. It must serve --metrics or --health.
    """
    from reconciler.cli.forward import reached
    from reconciler.cli.top import print_top

    with reached(operator, access) as found:
        return print_top(endpoint=found.endpoint, watch=watch, access=access, as_json=output == "json")


@app.command
def crd(
    target: Annotated[str, Parameter(help="MODULE:CLASS of a Resource, 'notification', or a YAML file of CRDs.")],
    /,
    *versions: Annotated[str, Parameter(help="MODULE:CLASS of each further version, or of another kind.")],
    check: Annotated[
        Path | None,
        Parameter(help="Instead of printing, compare with the definitions in this YAML file; exit 1 if one is broken."),
    ] = None,
    output: Annotated[
        Literal["yaml", "json"] | None, Parameter(help="Output format. Default: yaml; with --check text.")
    ] = None,
) -> int:
    """Print the CustomResourceDefinition of a Resource class. Needs no cluster.

    Classes of the same group and kind are versions of one definition. With --check OLD.yaml nothing is printed but the
    changes from that file, each with its path and whether it is breaking or harmless: breaking is what refuses, prunes
    or changes the meaning of an existing object, or lets a request fail. To check against a cluster, write the file
    with 'kubectl get crd NAME -o yaml'; then versions that are still stored are checked, too.
    """
    from reconciler.cli.crd import check_crd, print_crd

    targets = [target, *versions]
    if check is not None:
        return check_crd(targets, check, as_json=output == "json")
    return print_crd(targets, as_json=output == "json")


@app.command
def manifests(
    target: Annotated[
        str, Parameter(help="MODULE:ATTR as for 'reconciler run', or 'notification' for the complete installation.")
    ],
    *,
    directory: Annotated[
        Path | None, Parameter(help="Write a kustomize base into this directory, and print what changes.")
    ] = None,
    check: Annotated[
        bool, Parameter(help="With --directory: write nothing, exit 1 if something would change.", negative=())
    ] = False,
    options: ManifestOptions = ManifestOptions(),  # noqa: B008 - frozen
    output: Annotated[Literal["yaml", "json"], Parameter(help="Output format of what is printed.")] = "yaml",
) -> int:
    """Print or write the manifests of an operator. Needs no cluster.

    Without --directory the service account, roles and bindings are printed; for 'notification' also the CRD,
    ConfigMaps, Deployment, PodDisruptionBudget, Service, NetworkPolicy and ServiceMonitor. The roles cover what the
    controllers watch, their status, finalizers and events, the Lease, and the 'permissions' of the reconcilers. Give
    the same --namespace, --leader-election and --authentication as to 'reconciler run'.

    With --directory a kustomize base is written: the CRDs of the operator's own kinds, the roles, the Deployment with a
    PodDisruptionBudget, the Services, and the configuration of its webhooks. It is kept current by running the command
    again. Options and target can be in the table [tool.reconciler.manifests] of the pyproject.toml in the current
    directory.
    """
    from reconciler.cli.manifests import print_manifests, write_manifests

    if directory is not None:
        return write_manifests(target, options, directory, check=check)
    if check:
        raise ConfigurationError("--check needs --directory: the directory to compare with")
    return print_manifests(target, options, as_json=output == "json")


@app.command(usage="Usage: reconciler apiserver [OPTIONS] [OBJECTS...]")
def apiserver(
    *objects: Annotated[
        str,
        Parameter(help="Objects to create at the start: YAML or JSON file, directory, MODULE:CLASS, 'notification'."),
    ],
    port: Annotated[
        int, Parameter(help="Port on the loopback interface; 0 for a free one.", validator=Number(gte=0, lte=65535))
    ] = 0,
    kubeconfig: NewKubeconfig = KUBECONFIG,
    log: Annotated[
        Literal["none", "writes", "requests"], Parameter(help="Requests to print: who, what and result, one per line.")
    ] = "none",
    chaos: Annotated[
        float, Parameter(help="Fraction of requests that fail, from 0 to 1.", validator=Number(gte=0, lte=1))
    ] = 0.0,
    seed: Annotated[int, Parameter(help="Seed of uids, generated names and --chaos.")] = 0,
    data: Data = None,
    controllers: Controllers = (),
    tls: Annotated[bool, Parameter(help="Serve over TLS; the kubeconfig contains the CA.", negative=())] = False,
    rbac: Annotated[
        bool,
        Parameter(
            help="Users may do only what roles allow. The user of the kubeconfig may do everything.", negative=""
        ),
    ] = False,
    command: Annotated[
        str | None,
        Parameter(name="--exec", help="Run this shell command with KUBECONFIG set, then stop with its exit code."),
    ] = None,
) -> int:
    """Run the embedded API server on the loopback interface until interrupted, or for one command.

    kubectl and any other client can use it through the kubeconfig. Without --data, its data is lost when it stops.
    """
    from reconciler.cli.servers import APIServerOptions, run_apiserver

    options = APIServerOptions(port, kubeconfig, log, chaos, seed, data, controllers, rbac, tls, command)
    return run_apiserver(objects, options)


@app.command(usage="Usage: reconciler audit [OPTIONS] FILE")
def audit(
    file: Annotated[Path, Parameter(help="The audit file; '-' for standard input.")],
    /,
    *,
    request: Annotated[str | None, Parameter(help="Only the request NAME, or NAMESPACE/NAME.")] = None,
    namespace: Annotated[str | None, Parameter(help="Only requests in this namespace.")] = None,
    output: Annotated[Format, Parameter(help="Output format; json prints the records as they are.")] = "text",
    expect: Annotated[str | None, Parameter(help="A hash that this command printed earlier for the file.")] = None,
    key_file: Annotated[Path | None, Parameter(help="File with the key of the chain (--audit-key).")] = None,
) -> int:
    """Print who was told what, and when, from an audit file of the notification operator; check its hash chain.

    The exit code is 1 if a line does not follow the one before it, or if no line has the expected hash.
    """
    from reconciler.cli.notification import print_audit

    as_json = output == "json"
    return print_audit(file, request=request, namespace=namespace, as_json=as_json, expect=expect, key_file=key_file)


@routes.command(name="test", usage="Usage: reconciler routes test [OPTIONS] FILE [ATTRIBUTES...]")
def routes_test(
    file: Annotated[Path, Parameter(help="The routing configuration.")],
    /,
    *attributes: Annotated[
        str, Parameter(help="NAME=VALUE of a notification: type, priority, namespace or an extension.")
    ],
    request: Annotated[Path | None, Parameter(help="YAML file of a NotificationRequest, for its attributes.")] = None,
    output: Annotated[Format, Parameter(help="Output format.")] = "text",
) -> int:
    """Print the receivers and channels that a notification with these attributes would reach.

    For an invalid configuration, print every mistake with its line.
    """
    from reconciler.cli.notification import print_routes

    return print_routes(file, attributes, request=request, as_json=output == "json")


@envtest.command
def path(*, output: Annotated[Format, Parameter(help="Output format.")] = "text") -> int:
    """Print the directory of the etcd, kube-apiserver and kubectl binaries."""
    from reconciler.cli.servers import print_binaries_path

    return print_binaries_path(as_json=output == "json")


@envtest.command
def build(
    *,
    controller_manager: ControllerManager = False,
) -> int:
    """Build etcd, etcdutl, kube-apiserver and kubectl with Go into the user's cache, unless they exist."""
    from reconciler.cli.servers import build_binaries

    return build_binaries(controller_manager=controller_manager)


@envtest.command
def up(
    *,
    kubeconfig: NewKubeconfig = KUBECONFIG,
    controller_manager: ControllerManager = False,
) -> int:
    """Run a real control plane on the loopback interface until interrupted."""
    from reconciler.cli.servers import run_control_plane

    return run_control_plane(kubeconfig=kubeconfig, controller_manager=controller_manager)
