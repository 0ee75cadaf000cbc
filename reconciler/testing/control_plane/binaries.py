"""The programs of a control plane: found or built from Go modules, with their command lines and files."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from reconciler.errors import ConfigurationError

_log = logging.getLogger("reconciler.testing")

_MODULE = Path(__file__).parent.parent / "envtest"
_NEEDED = ("etcd", "kube-apiserver")
_PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}
_OPTIONAL = "kube-controller-manager"
_HOW = "build them with 'reconciler envtest build', which needs Go, or set KUBEBUILDER_ASSETS to a directory with them"


class BinariesMissing(ConfigurationError):
    """etcd or kube-apiserver is missing; the message says how to get them."""


def binaries_path() -> Path:
    """Return the directory of etcd and kube-apiserver.

    It is ``KUBEBUILDER_ASSETS`` if set, else the user's cache (``$XDG_CACHE_HOME/kube-reconciler/envtest/<hash of the
    versions>/bin``).

    Raises:
        BinariesMissing: a binary is missing.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    directory = Path(assets) if assets else _cache() / "bin"
    missing = [name for name in _NEEDED if not os.access(directory / name, os.X_OK)]
    if not missing:
        return directory
    source = "KUBEBUILDER_ASSETS, " if assets else ""
    raise BinariesMissing(f"no {' and no '.join(missing)} in {source}{directory}: {_HOW}")


def build(*, controller_manager: bool = False, progress: Callable[[str], object] | None = None) -> Path:
    """Build the binaries into the user's cache unless they exist; return their directory.

    The first build takes some minutes, or longer on a small machine. If another process is building, wait for it.

    Args:
        controller_manager: build kube-controller-manager, too, which takes some more minutes.
        progress: called every second with a line that says how far the build is.

    Raises:
        BinariesMissing: Go is not installed, or the build failed; the message ends with the compiler's output.
    """
    cache = _cache()
    if not _unbuilt(cache / "bin", controller_manager=controller_manager):
        return cache / "bin"
    go = shutil.which("go")
    if go is None:
        raise BinariesMissing(
            "building etcd and kube-apiserver needs Go: install it (https://go.dev/dl), "
            "or set KUBEBUILDER_ASSETS to a directory with them"
        )
    cache.mkdir(parents=True, exist_ok=True)
    say = progress or (lambda _text: None)
    with _locked(cache / "lock", say):
        missing = _unbuilt(cache / "bin", controller_manager=controller_manager)
        if missing:
            _build(go, missing, cache, say)
    return cache / "bin"


def find_or_build(*, controller_manager: bool = False) -> Path:
    """Return the directory of the binaries; build them if they are missing and ``KUBEBUILDER_ASSETS`` is not set.

    Args:
        controller_manager: kube-controller-manager is one of them.

    Raises:
        BinariesMissing: the binaries are missing and cannot be built.
    """
    if not os.environ.get("KUBEBUILDER_ASSETS"):
        return build(controller_manager=controller_manager)
    found = binaries_path()
    if controller_manager and not os.access(found / _OPTIONAL, os.X_OK):
        raise BinariesMissing(f"no {_OPTIONAL} in KUBEBUILDER_ASSETS, {found}: unset it, so that it is built with Go")
    return found


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    root = Path(home) if home else Path.home() / ".cache"
    versions = hashlib.sha256((_MODULE / "go.mod").read_bytes() + (_MODULE / "go.sum").read_bytes()).hexdigest()
    return root / "kube-reconciler" / "envtest" / versions[:16]


def _unbuilt(directory: Path, *, controller_manager: bool) -> list[str]:
    wanted = [name for name in _PACKAGES if controller_manager or name != _OPTIONAL]
    return [name for name in wanted if not os.access(directory / name, os.X_OK)]


@contextlib.contextmanager
def _locked(path: Path, progress: Callable[[str], object]) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is building etcd and kube-apiserver: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(go: str, names: list[str], cache: Path, progress: Callable[[str], object]) -> None:
    # The module is copied, since Go may write to it. The results get their final names only when they are complete.
    with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as scratch:
        module, target = Path(scratch, "module"), Path(scratch, "bin")
        module.mkdir()
        for name in ("go.mod", "go.sum"):
            shutil.copyfile(_MODULE / name, module / name)
        _log.info("building %s into %s", ", ".join(names), cache)
        version = _kubernetes_version((module / "go.mod").read_text())
        flags = f"-s -w -X k8s.io/component-base/version.gitVersion={version}"
        packages = [_PACKAGES[name] for name in names]
        _run([go, "install", "-v", "-ldflags", flags, *packages], module, _environment(target), progress)
        (cache / "bin").mkdir(exist_ok=True)
        for name in names:
            built = target / ("server" if name == "etcd" else name)
            built.rename(cache / "bin" / name)


def _environment(target: Path) -> Mapping[str, str]:
    flags = f"{os.environ.get('GOFLAGS', '')} -mod=mod".strip()
    return os.environ | {"GOBIN": str(target), "GOFLAGS": flags}


def _kubernetes_version(module: str) -> str:
    found = re.search(r"^require k8s\.io/kubernetes (v\S+)", module, re.MULTILINE)
    if found is None:
        raise BinariesMissing(f"{_MODULE / 'go.mod'} does not require k8s.io/kubernetes: reinstall the package")
    return found[1]


def _run(
    command: list[str], directory: Path, environment: Mapping[str, str], progress: Callable[[str], object]
) -> None:
    messages: deque[str] = deque(maxlen=5)
    modules = packages = 0

    def read(stream: TextIO) -> None:
        nonlocal modules, packages
        for line in map(str.strip, stream):
            modules += line.startswith(_DOWNLOAD)
            packages += is_package(line)
            if line and not is_package(line):
                messages.append(line)

    with subprocess.Popen(  # noqa: S603 - ours
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",  # else the reader ends, and Go waits for it when the pipe is full
    ) as process:
        reader = threading.Thread(target=read, args=[process.stderr], name="output of go")
        reader.start()
        try:
            while _is_running(process):
                counts = f"modules downloaded: {modules}, packages compiled: {packages}"
                progress(f"building etcd and kube-apiserver: {counts}")
        except BaseException:
            process.kill()
            raise
        finally:
            reader.join()
    if process.returncode:
        words = " | ".join(messages) or f"exit code {process.returncode}"
        raise BinariesMissing(f"'{' '.join(command[:2])}' of the control plane failed: {words}")


def _is_running(process: subprocess.Popen[str]) -> bool:
    """Wait for a process for a second; return whether it still runs."""
    try:
        process.wait(_PERIOD)
    except subprocess.TimeoutExpired:
        return True
    return False


ETCD_DATA = "etcd"
_MANAGER = "kube-controller-manager"
_MANAGER_KUBECONFIG = f"{_MANAGER}.kubeconfig"


def etcd_command(binaries: Path, directory: Path, url: str) -> list[str]:
    """Return the command line of etcd."""
    return [
        str(binaries / "etcd"),
        f"--data-dir={directory / ETCD_DATA}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_command(binaries: Path, directory: Path, etcd: str, port: int, flags: Sequence[str]) -> list[str]:
    """Return the command line of kube-apiserver."""
    return [
        str(binaries / "kube-apiserver"),
        f"--etcd-servers={etcd}",
        f"--cert-dir={directory / 'certificates'}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        # The server draws from the upper part of a range first, so the lower one is free for addresses and node ports
        # that a Service names: 10.0.0.1 to 10.0.0.255, and 30000 to 30085.
        "--service-cluster-ip-range=10.0.0.0/16",
        "--service-account-issuer=https://control-plane.invalid",
        f"--service-account-signing-key-file={directory / 'accounts.key'}",
        f"--service-account-key-file={directory / 'accounts.key'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        # It waits for token secrets that no controller creates here; envtest disables it, too.
        "--disable-admission-plugins=ServiceAccount",
        "--allow-privileged=true",
        "--profiling=false",
        f"--audit-policy-file={directory / 'policy.json'}",
        f"--audit-log-path={directory / 'audit.log'}",
        *flags,
    ]


def manager_command(binaries: Path, directory: Path, port: int) -> list[str]:
    """Return the command line of kube-controller-manager."""
    return [
        str(binaries / _MANAGER),
        f"--kubeconfig={directory / _MANAGER_KUBECONFIG}",
        f"--cert-dir={manager_certificate(directory).parent}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        f"--service-account-private-key-file={directory / 'accounts.key'}",
        f"--root-ca-file={directory / 'certificates' / 'apiserver.crt'}",
        "--profiling=false",
    ]


def manager_certificate(directory: Path) -> Path:
    """Return the certificate that kube-controller-manager creates for its own endpoint."""
    return directory / _MANAGER / f"{_MANAGER}.crt"


def write_manager_kubeconfig(directory: Path, url: str, token: str) -> None:
    """Write the kubeconfig of kube-controller-manager."""
    authority = str(directory / "certificates" / "apiserver.crt")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": {"server": url, "certificate-authority": authority}}],
        "users": [{"name": "a", "user": {"token": token}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    write_private(directory / _MANAGER_KUBECONFIG, msgspec.json.encode(config))


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)


_PERIOD = 1.0
"""Seconds between two reports of a build's progress."""

_PACKAGE = re.compile(r"[\w.~+-]+(/[\w.~+-]+)*")
_DOWNLOAD = "go: downloading "


def is_package(line: str) -> bool:
    """Return whether a line of ``go install -v`` is the name of a compiled package, not a message."""
    return _PACKAGE.fullmatch(line) is not None
