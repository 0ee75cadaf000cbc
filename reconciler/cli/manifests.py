"""The commands ``reconciler crd`` and ``reconciler manifests``."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from typing import Literal

import msgspec
import yaml

from reconciler.cli.options import options_as_typed
from reconciler.cli.targets import load_resource, load_target, setup_function
from reconciler.client import Client
from reconciler.controller import Controller
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import EndpointSecurity, Manager
from reconciler.wire import JSONObject

__all__ = ["print_crd", "print_manifests"]


def print_crd(target: str, *, as_json: bool) -> int:
    """Print the CRD of the class that a target names."""
    document = load_resource(target).crd()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110))
    return 0


class _NoServer:
    """A transport that refuses every request: manifests are generated without a cluster."""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        raise ConfigurationError(
            f"{request.method} {request.path}: manifests are generated without a cluster: send no requests while "
            "controllers are added"
        )


def print_manifests(
    target: str,
    *,
    name: str | None,
    install_namespace: str,
    namespaces: Sequence[str],
    leader_election: str | None,
    leader_election_namespace: str | None,
    authentication: Literal["kubernetes"] | None,
    image: str,
    as_json: bool,
) -> int:
    """Print the RBAC manifests of an operator; for ``"notification"`` the complete installation."""
    if target == "notification":
        from reconciler.cli.notification import Installation, notification_manifests

        installation = Installation(
            name=name or "notification-operator",
            namespace=install_namespace,
            namespaces=namespaces,
            image=image,
            leader_election=leader_election or "notification-operator",
            leader_election_namespace=leader_election_namespace or install_namespace,
            authentication=authentication,
        )
        _print(notification_manifests(installation, _NoServer()), (), as_json=as_json)
        return 0
    with options_as_typed():
        manager = Manager(
            Client(_NoServer()),
            namespaces=list(namespaces) or None,
            leader_election=leader_election,
            leader_election_namespace=leader_election_namespace or install_namespace,
            security=None if authentication is None else EndpointSecurity(authentication=authentication),
        )
    asyncio.run(setup_function(load_target(target), target)(manager))
    with options_as_typed(name="--name", namespace="--install-namespace"):
        documents, notes = _rbac_and_notes(manager, name or _operator_name(target), install_namespace)
    _print(documents, notes, as_json=as_json)
    return 0


def _rbac_and_notes(manager: Manager, name: str, install_namespace: str) -> tuple[list[JSONObject], list[str]]:
    """Return the RBAC manifests of a manager, and notes on what to check in them.

    Raises:
        ConfigurationError: the manager has no controllers, or a name is invalid.
    """
    if not manager.controllers:
        raise ConfigurationError("no controller was added to the manager, so it needs no permissions")
    notes = [note for controller in manager.controllers for note in _notes(controller)]
    return manager.rbac(name, namespace=install_namespace), list(dict.fromkeys(notes))


def _notes(controller: Controller) -> list[str]:
    notes = []
    if controller.reconciler.permissions is None:
        kind = type(controller.reconciler).__name__
        notes.append(f"{kind} declares no permissions: add its writes other than status to Reconciler.permissions")
    notes += [
        f"the plural and the scope of {rule.resource} in {rule.group} are guessed from the kind: check them"
        for rule in controller.access
        if rule.presumed
    ]
    return notes


def _print(documents: Sequence[JSONObject], notes: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        everything = {"apiVersion": "v1", "kind": "List", "items": documents}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(everything)).decode() + "\n")
    else:
        yaml.dump_all(documents, sys.stdout, _Dumper, sort_keys=False, allow_unicode=True, width=110)
        sys.stdout.flush()
    for note in notes:
        print(f"reconciler: note: {note}", file=sys.stderr)


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that repeats equal parts instead of using aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class calls it
        return True


def _operator_name(target: str) -> str:
    """Return the default name of an operator: its module's."""
    module = target.partition(":")[0].rpartition(".")[2].lower()
    return re.sub(r"[^a-z0-9]+", "-", module).strip("-") or "operator"
