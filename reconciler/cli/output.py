"""The output of commands: exit codes, one line for each error, JSON, and files that are written all or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from reconciler.errors import ConfigurationError, ReconcilerError, importing

KUBECONFIG = Path("reconciler.kubeconfig")
"""The kubeconfig that a server writes by default."""

_OWN_CLUSTERS = ("reconciler", "control-plane")
"""The names of the clusters in kubeconfigs of this library's servers."""


def write_files(
    directory: Path, files: Mapping[str, str], *, known: Mapping[str, str] | None = None, mode: int = 0o666
) -> None:
    """Write files below a directory; after a failure or an interrupt, everything is as before.

    Args:
        directory: created if it does not exist.
        files: texts by path.
        known: the present texts of those that are changed; all others must not exist.
        mode: the permissions of new files, before the umask.

    Raises:
        ConfigurationError: a file exists, has changed since it was read, or cannot be written.
    """
    undo = contextlib.ExitStack()
    try:
        for name, text in files.items():
            path, before = directory / name, (known or {}).get(name)
            for folder in [each for each in path.parents if not each.exists()][::-1]:
                folder.mkdir()
                undo.callback(folder.rmdir)
            if before is None:
                path.touch(mode, exist_ok=False)
                undo.callback(path.unlink)
            elif path.read_bytes() == before.encode():
                undo.callback(path.write_bytes, before.encode())
            else:
                raise ConfigurationError(f"{path} has just been changed by something else: try again")
            path.write_bytes(text.encode())
    except BaseException as error:
        with contextlib.suppress(OSError):
            undo.close()
        if isinstance(error, FileExistsError):
            raise ConfigurationError(f"{error.filename} exists, and is not overwritten") from error
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise ConfigurationError(f"cannot write {error.filename or directory}: {reason}") from error
        raise


def write_kubeconfig(write: Callable[[Path], object], path: Path) -> None:
    """Write the kubeconfig of a server of this library; only an earlier one is overwritten.

    Args:
        write: writes it to a path.
        path: of ``--kubeconfig``.

    Raises:
        ConfigurationError: another file exists, or it cannot be written.
    """
    try:
        if path.is_file() and not _is_own_kubeconfig(path.read_bytes()):
            raise ConfigurationError(
                f"--kubeconfig {path} exists and is not that of an earlier run, so it is not overwritten: it is the "
                "file to write, so choose another path"
            )
        write(path)
    except OSError as error:
        raise ConfigurationError(
            f"--kubeconfig {path}: cannot write the file: {error.strerror}; choose another path"
        ) from error


def _is_own_kubeconfig(content: bytes) -> bool:
    import yaml  # 'kubectl config' writes YAML

    try:
        document = yaml.safe_load(content)
        return document is None or all(cluster["name"] in _OWN_CLUSTERS for cluster in document["clusters"])
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError):
        return False


_EXTENSION = "reconciler.dev"
"""The name of the extension of a kubeconfig that names the endpoint of an operator."""


def note_endpoint(kubeconfig: Path, url: str) -> None:
    """Write the address of an operator's endpoint into the kubeconfig of its server, for `noted_endpoint`."""
    import yaml

    document = yaml.safe_load(kubeconfig.read_bytes()) | {
        "extensions": [{"name": _EXTENSION, "extension": {"endpoint": url}}]
    }
    kubeconfig.write_text(yaml.safe_dump(document), encoding="utf-8")  # with the permissions that it has


def noted_endpoint(kubeconfig: Path) -> str | None:
    """Return the endpoint of the operator that ``reconciler dev`` runs now on the server of a kubeconfig, if any."""
    import yaml

    try:
        document = yaml.safe_load(kubeconfig.read_bytes())
        (found,) = (each for each in document.get("extensions") or () if each["name"] == _EXTENSION)
        url = urlsplit(str(found["extension"]["endpoint"]))
        with socket.create_connection((url.hostname or "", url.port or 0), timeout=1):
            return url.geturl()
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def running_dev(kubeconfig: Path | None, context: str | None) -> tuple[Path, str] | None:
    """Return kubeconfig and endpoint of a running ``reconciler dev``: on the chosen server, or of this directory.

    Args:
        kubeconfig: the option; None for the variable KUBECONFIG or the file that ``reconciler dev`` writes by default.
        context: the option; one that is chosen is not that of ``reconciler dev``.
    """
    file = kubeconfig or Path(os.environ.get("KUBECONFIG") or KUBECONFIG)
    endpoint = None if context is not None else noted_endpoint(file)
    return None if endpoint is None else (file, endpoint)


def free_address(preferred: str) -> str:
    """Return an address of the loopback interface, with another port if this one is in use."""
    return f"127.0.0.1:{free_port(int(preferred.rpartition(':')[2]))}"


def free_port(preferred: int) -> int:
    """Return the preferred port of the loopback interface, or another one if it is in use."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as free:
            return int(free.getsockname()[1])
    raise ConfigurationError("no free port on 127.0.0.1")


def width() -> int | None:
    """Return the columns of the terminal; None elsewhere, where lines are not wrapped, unless COLUMNS is set."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None


def program() -> str:
    """Return how to call this program in a shell: by its name, or else by its path if that finds another or none."""
    called, found = Path(sys.argv[0]), shutil.which("reconciler")
    if called.name != "reconciler" or (found and Path(found).resolve() == called.resolve()):
        return "reconciler"
    return shlex.quote(os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called))


def render(template: str, *, as_json: bool = False, **values: object) -> str:
    """Return the text of a template.

    Args:
        template: its path below ``templates``, without the suffix ``.jinja``.
        as_json: write each value as JSON, for templates of YAML.
        values: the values that it names.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    with importing(extra="cli", purpose="templates"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    environment = Environment(  # noqa: S701 - it is not HTML
        loader=PackageLoader("reconciler.cli"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=as_json,
        finalize=(lambda value: msgspec.json.encode(value).decode()) if as_json else None,
    )
    return environment.get_template(f"{template}.jinja").render(values)


def print_json(document: object) -> None:
    """Print a document, indented."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")


class ThreadsLeft(SystemExit):
    """The exit of a command that leaves threads which may never end, and for which Python would wait."""


_STOP_SECONDS = 4
"""Seconds after a signal in which a command must have ended."""


def end_at_signals() -> None:
    """Let SIGINT and SIGTERM interrupt the command of this process, and end the process if that takes too long.

    The interrupt is raised where the command is, since code that does not return to its event loop cannot be cancelled.
    """

    def interrupt(number: int, _frame: object) -> None:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + number))
        signal.setitimer(signal.ITIMER_REAL, _STOP_SECONDS)
        raise KeyboardInterrupt(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell ignores SIGINT for what runs in the background
            signal.signal(number, interrupt)


def exit_with(command: Callable[[], int]) -> None:
    """Run a command and exit with its result, or with one line for an error.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        code = command()
        sys.stdout.flush()
        sys.exit(code)
    except ReconcilerError as error:
        print(f"reconciler: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        (number,) = interrupt.args or (signal.SIGINT,)
        sys.exit(128 + number)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            print(f"reconciler: cannot write the output: {error.strerror}", file=sys.stderr)
        elif not isinstance(error, BrokenPipeError):  # the reader of the output, such as `head`, has stopped reading
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
