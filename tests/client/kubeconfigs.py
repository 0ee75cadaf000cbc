"""Kubeconfigs and service accounts for tests, and the errors of opening a client with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from reconciler.client import Client
from reconciler.errors import ConfigurationError

SECRET = "hunter2-secret"


def kubeconfig(
    path: Path, *, server: str = "http://127.0.0.1:1", name: str = "main", current: str | None = "main", **user: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": user or {"token": SECRET}}],
    }
    if current is not None:
        document["current-context"] = current
    path.write_text(yaml.safe_dump(document))
    return path


def change(path: Path, section: str, **values: Any) -> None:
    document = yaml.safe_load(path.read_text())
    document[section][0][section.removesuffix("s")] |= values
    path.write_text(yaml.safe_dump(document))


def in_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, token: str | None = SECRET) -> Path:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    if token is not None:
        (folder / "token").write_text(token)
    return folder


async def problem(**options: Any) -> str:
    """Return what opening a client raises, which is one line without secrets."""
    with pytest.raises(ConfigurationError) as caught:
        async with Client.from_config(**options):
            pass
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET not in text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return text
