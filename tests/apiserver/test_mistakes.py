"""Invalid arguments: the error names the argument and says what to do."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError, MissingExtra


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"kind: [", "is not valid YAML: see line 1, column 8"),
        (b"[" * 3000, "a value that cannot be read"),
        (b"apiVersion: v1\nkind: A\nspec: 2026-13-01\n", "a value that cannot be read: month must be"),
        (b"- a\n", "which is not an object"),
        (b"kind: Thing\n", "without apiVersion or kind"),
        (b"apiVersion: v1\n", "without apiVersion or kind"),
        (b"\xff\xfe\xff", "is not valid UTF-8"),
        (b"apiVersion: example.com/v1\nkind: Thing\n", "apply its CustomResourceDefinition first"),
    ],
)
async def test_file_that_cannot_be_applied(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "things.yaml"
    path.write_bytes(content)
    async with APIServer() as server:
        with pytest.raises(ConfigurationError) as raised:
            await server.apply(path)
    assert says in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


async def test_missing_file(tmp_path: Path) -> None:
    async with APIServer() as server:
        with pytest.raises(ConfigurationError, match="No such file"):
            await server.apply(tmp_path / "absent.yaml")


@pytest.mark.parametrize("port", [-1, 65536])
async def test_invalid_port(port: int) -> None:
    async with APIServer() as server:
        with pytest.raises(ConfigurationError, match="0 to 65535"):
            await server.listen(port=port)
        assert (await server.listen()).startswith("http://127.0.0.1:")  # nothing is left of the attempt


async def test_port_in_use() -> None:
    async with APIServer() as server:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*choose port 0"):
                await server.listen(port=port)


async def test_address_that_is_not_loopback() -> None:
    async with APIServer() as server:
        with pytest.raises(ConfigurationError, match="loopback only"):
            await server.listen(host="0.0.0.0")


async def test_missing_extra_is_named_when_a_definition_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"kind": "Thing", "plural": "things"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "properties": {"a": {"type": "integer"}},
                                    "x-kubernetes-validations": [{"rule": "self.a > 0"}],
                                }
                            },
                        }
                    },
                }
            ],
        },
    }
    async with APIServer() as server:
        with pytest.raises(MissingExtra, match="kube-reconciler\\[cel\\]"):
            await server.apply(definition)
