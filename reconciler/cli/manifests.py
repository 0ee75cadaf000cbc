"""Print what an operator must be allowed to do, as a service account, roles and bindings."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import yaml

from reconciler.cli.adder import adder_of
from reconciler.cli.targets import load_target
from reconciler.client import Client
from reconciler.controller import Controller
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import Manager

__all__ = ["manifests_of", "print_manifests"]


class _NoServer:
    """Refuse every request: what an operator needs is told by what it declares."""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        raise ConfigurationError(
            f"{request.method} {request.path}: there is no cluster while manifests are made, so nothing may be asked "
            "of one while controllers are added"
        )


def print_manifests(
    target: str,
    *,
    name: str | None,
    install_namespace: str,
    namespaces: Sequence[str],
    leader_election: str | None,
    leader_election_namespace: str | None,
    image: str,
    as_json: bool,
) -> int:
    """Print the manifests of the operator named by `target`; for ``"notification"`` everything that runs it."""
    if target == "notification":
        from reconciler.cli.notification_manifests import Installation, notification_manifests

        installation = Installation(
            name=name or "notification-operator",
            namespace=install_namespace,
            namespaces=namespaces,
            image=image,
            leader_election=leader_election or "notification-operator",
            leader_election_namespace=leader_election_namespace or install_namespace,
        )
        _print(notification_manifests(installation, _NoServer()), (), as_json=as_json)
        return 0
    manager = Manager(
        Client(_NoServer()),
        namespaces=list(namespaces) or None,
        leader_election=leader_election,
        leader_election_namespace=leader_election_namespace or install_namespace,
    )
    asyncio.run(adder_of(load_target(target), target)(manager))
    documents, remarks = manifests_of(manager, name or _name_of(target), install_namespace)
    _print(documents, remarks, as_json=as_json)
    return 0


def manifests_of(manager: Manager, name: str, install_namespace: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the documents of a filled manager, and remarks on what a person should look at.

    Raises:
        ConfigurationError: it has no controllers, or a name cannot be one.
    """
    if not manager.controllers:
        raise ConfigurationError("no controller was added to the manager, so there is nothing to allow")
    remarks = [remark for controller in manager.controllers for remark in _remarks(controller)]
    return manager.rbac(name, namespace=install_namespace), list(dict.fromkeys(remarks))


def _remarks(controller: Controller) -> list[str]:
    remarks = []
    if controller.reconciler.permissions is None:
        kind = type(controller.reconciler).__name__
        remarks.append(
            f"{kind} declares no permissions: what it writes beside its status is not in here (Reconciler.permissions)"
        )
    remarks += [
        f"{rule.resource} of {rule.group} is written as kinds are named as a rule; check the plural and the scope"
        for rule in controller.access
        if rule.presumed
    ]
    return remarks


def _print(documents: Sequence[dict[str, Any]], remarks: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        everything = {"apiVersion": "v1", "kind": "List", "items": documents}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(everything)).decode() + "\n")
    else:
        yaml.dump_all(documents, sys.stdout, _Dumper, sort_keys=False, allow_unicode=True, width=110)
        sys.stdout.flush()
    for remark in remarks:
        print(f"reconciler: note: {remark}", file=sys.stderr)


class _Dumper(yaml.SafeDumper):
    """Write equal parts out, instead of a reference to the first."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class calls it
        return True


def _name_of(target: str) -> str:
    """Return a name for the operator: that of its module."""
    module = target.partition(":")[0].rpartition(".")[2].lower()
    return re.sub(r"[^a-z0-9]+", "-", module).strip("-") or "operator"
