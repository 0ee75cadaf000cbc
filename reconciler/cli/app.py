"""The commands and their options; each command's work is in a module of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import App, Parameter
from cyclopts.config import Env, Toml, Yaml

import reconciler
from reconciler.cli.options import (
    AccessFlags,
    CheckOptions,
    ConsoleAddress,
    ForkOptions,
    Format,
    OperatorOptions,
    PlanOptions,
    Target,
)
from reconciler.cli.targets import PYPROJECT, read_pyproject
from reconciler.errors import ConfigurationError


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
    suppress_keyboard_interrupt=False,  # `exit_with` tells the signals apart
    default_parameter=Parameter(show_env_var=False, negative_iterable=()),
)
routes = App(name="routes", help="Test the routing rules of notifications.")
app.command(routes)
recording = App(name="recording", help="Show what an operator recorded, fetch it, and make tests of it.")
app.command(recording)


for command in (
    "project:new",
    "run:run",
    "dev:dev",
    "dev:certificates",
    "explain:explain",
    "crd:crd",
    "manifests:manifests",
    "servers:envtest",
):
    app.command(f"reconciler.cli.{command}")
app.command("reconciler.cli.servers:apiserver", usage="Usage: reconciler apiserver [OPTIONS] [OBJECTS...]")


def import_commands() -> None:
    """Import the modules of all commands; the help of the program shows the first lines of their docstrings."""
    for name in app:
        app[name]


@app.command(name="--install-completion")
def install_completion(
    *,
    shell: Literal["bash", "zsh", "fish"] | None = None,
) -> int:
    """Install completion of commands and options in the shell, and have its startup file load it.

    Args:
        shell: The shell. Default: the one that runs this command.
    """
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
    speed: float = 75.0,
    naive: bool = False,
    output: Annotated[Format, Parameter(help="Output format; 'json' prints only the facts.")] = "text",
    console: ConsoleAddress = None,
    record: Path | None = None,
) -> int:
    """Show how a failed notification is retried, the naive way and with this library. Needs no cluster.

    With 'json' the facts are those of this library; with --naive, those of the naive way. With --console the browser
    shows one of them, with short delays and in real time, until interrupted.

    Args:
        speed: Virtual seconds per real second; 0 shows the result at once.
        naive: Show only the naive way: a controller without the library's protections.
        record: With --naive: record the reconciles in this directory, for 'reconciler replay'.
    """
    if console is not None:
        from reconciler.cli.demo import run_live

        return run_live(console, naive=naive)
    from reconciler.cli.demo import run_demo

    return run_demo(speed=speed, naive=naive, as_json=output == "json", record=record)


@app.command
def check(
    target: str | None = None,
    *,
    options: CheckOptions = CheckOptions(),  # noqa: B008 - frozen
) -> int:
    """Prove that an operator survives crashes, late events, lost responses and other writers. Needs no cluster.

    Creates the example, changes each field of its spec, and deletes it, on an API server of its own and in virtual
    time; then again and again, each time with one disturbance. What must be true after each run needs no code: the
    state is that of an undisturbed run, nothing is left behind, and so on. The exit code is 1 if something is found.
    The report ends with a command that repeats the run, in which breakpoints work.

    With --exec the operator is a program in any language. It runs in real time, so there are fewer runs; a crash is
    SIGKILL. Pass its CustomResourceDefinitions with --objects. In a project of 'reconciler new' target and example are
    in pyproject.toml.

    Args:
        target: MODULE:ATTR as for 'reconciler run'. Omit it with --exec.
    """
    from reconciler.cli.check import run_check

    return run_check(target, options)


@app.command
def plan(
    target: Annotated[str, Parameter(help="MODULE:ATTR as for 'reconciler run', or 'notification'.")],
    *,
    options: PlanOptions = PlanOptions(),  # noqa: B008 - frozen
    output: Format = "text",
) -> int:
    """Print what an operator would do to the objects of a cluster, without doing it.

    The operator runs on a copy of the cluster in this process, in virtual time, until nothing happens any more. The
    cluster is only read: objects of a kind are copied when the operator first asks for them. Effects that are declared
    with @effect are listed instead of called. The exit code is 0 if nothing would change, 2 if something would, 1 after
    an error or if the plan did not come to its end.
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
    output: Format = "text",
) -> int:
    """Show what was recorded: the objects, or the reconciles of one, with the fields that each of them wrote."""
    from reconciler.cli.recording import Selection, show_recording

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

    Asks a running operator at --endpoint. It must serve --metrics or --health.
    """
    from reconciler.cli.endpoint import find_operator
    from reconciler.cli.recording import fetch_recording

    return fetch_recording(find_operator(operator).endpoint, access, directory)


@recording.command(name="to-test")
def recording_to_test(
    directory: Recorded,
    target: Target,
    /,
    *,
    reconcile: ReconcileOption = None,
    object: ObjectOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    output: Annotated[Path | None, Parameter(help="The test file. Default: test_NAME.py.")] = None,
) -> int:
    """Write a pytest file that replays one reconcile, or those of one object, and the recording cut down to them."""
    from reconciler.cli.recording import Selection, write_test

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
    output: Format = "text",
) -> int:
    """Run recorded reconciles again on this machine, without a cluster, and compare what they do.

    Reads, responses, times and random numbers are those of the recording, in virtual time; breakpoints work. The exit
    status is 1 if one does something else.
    """
    from reconciler.cli.recording import Selection, check_choice, replay_recording

    kind, key = object or (None, None)
    selection = Selection(kind=kind, key=key, since=since, until=until, reconcile=reconcile)
    check_choice(selection, everything=all)
    return replay_recording(directory, selection, target, as_json=output == "json")


@routes.command(name="test", usage="Usage: reconciler routes test [OPTIONS] FILE [ATTRIBUTES...]")
def routes_test(
    file: Path,
    /,
    *attributes: str,
    request: Path | None = None,
    output: Format = "text",
) -> int:
    """Print the receivers and channels that a notification with these attributes would reach.

    For an invalid configuration, print every mistake with its line.

    Args:
        file: The routing configuration.
        attributes: NAME=VALUE of a notification: type, priority, namespace or an extension.
        request: YAML file of a NotificationRequest, for its attributes.
    """
    from reconciler.cli.notification import print_routes

    return print_routes(file, attributes, request=request, as_json=output == "json")
