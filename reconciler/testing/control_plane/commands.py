"""The command lines of the programs of a control plane, and the files that they read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

__all__ = [
    "ETCD_DATA",
    "apiserver_command",
    "etcd_command",
    "manager_certificate",
    "manager_command",
    "write_manager_kubeconfig",
    "write_private",
]

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
