"""The command ``reconciler manifests``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reconciler.cli.manifests.definitions import dump_yaml
from reconciler.cli.manifests.files import HEADER, update_directory
from reconciler.cli.manifests.installation import Installation
from reconciler.cli.options import ManifestOptions, options_as_typed
from reconciler.cli.printing import print_json
from reconciler.cli.targets import load_target, operator_name, setup_function
from reconciler.client import Client
from reconciler.controller import Controller
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import EndpointSecurity, Manager
from reconciler.wire import JSONObject

__all__ = ["print_manifests", "write_manifests"]


class _NoServer:
    """A transport that refuses every request: manifests are generated without a cluster."""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        raise ConfigurationError(
            f"{request.method} {request.path}: manifests are generated without a cluster: send no requests while "
            "controllers are added"
        )


def print_manifests(target: str, options: ManifestOptions, *, as_json: bool) -> int:
    """Print the RBAC manifests of an operator; for ``"notification"`` the complete installation."""
    notes: list[str] = []
    if target == "notification":
        from reconciler.cli.manifests.notification import notification_manifests

        options = replace(
            options,
            name=options.name or "notification-operator",
            image=options.image or "kube-reconciler:latest",
            leader_election=options.leader_election or "notification-operator",
        )
        installation = _installation(target, options)
        manager = _manager(installation)
        with _options_as_typed():
            documents = notification_manifests(manager, installation)
    else:
        installation = _installation(target, options)
        manager = _manager_of_target(installation)
        with _options_as_typed():
            documents = manager.rbac(installation.name, namespace=installation.namespace)
        notes = _all_notes(manager)
    _print(documents, notes, as_json=as_json)
    return 0


def write_manifests(target: str, options: ManifestOptions, directory: Path, *, check: bool) -> int:
    """Write an operator's kustomize base into a directory, and print what changes; with `check`, only print."""
    if target == "notification":
        raise ConfigurationError("the manifests of 'notification' are only printed: redirect them into a file")
    from reconciler.cli.manifests.base import base_files

    installation = _installation(target, options)
    manager = _manager_of_target(installation)
    with _options_as_typed():
        files = base_files(manager, installation)
    texts = {file: HEADER + dump_yaml(documents) for file, documents in files.items()}
    code = update_directory(directory, texts, check=check)
    _print_notes(_all_notes(manager))
    return code


def _options_as_typed() -> contextlib.AbstractContextManager[None]:
    return options_as_typed(name="--name", namespace="--install-namespace")


def _installation(target: str, options: ManifestOptions) -> Installation:
    """Return the options with their defaults: the name of the target's module, and the name as image."""
    name = options.name or operator_name(target)
    return Installation(
        target=target,
        name=name,
        namespace=options.install_namespace,
        namespaces=options.namespaces,
        leader_election=options.leader_election,
        leader_election_namespace=options.leader_election_namespace or options.install_namespace,
        authentication=options.authentication,
        image=options.image or name,
        ca_bundle=_certificate(options.ca_bundle),
    )


def _certificate(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--ca-bundle {file}: {error.strerror}") from error
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise ConfigurationError(f"--ca-bundle {file}: not a certificate in PEM format")
    return content


def _manager(installation: Installation) -> Manager:
    """Return a manager without controllers.

    Raises:
        ConfigurationError: an option is invalid.
    """
    authentication = installation.authentication
    with options_as_typed():
        return Manager(
            Client(_NoServer()),
            namespaces=list(installation.namespaces) or None,
            leader_election=installation.leader_election,
            leader_election_namespace=installation.leader_election_namespace,
            security=None if authentication is None else EndpointSecurity(authentication=authentication),
        )


def _manager_of_target(installation: Installation) -> Manager:
    """Return a manager with the controllers of a target.

    Raises:
        ConfigurationError: an option is invalid, or the target adds no controller.
    """
    manager, target = _manager(installation), installation.target
    asyncio.run(setup_function(load_target(target), target)(manager))
    if not manager.controllers:
        raise ConfigurationError("no controller was added to the manager, so it needs no permissions")
    return manager


def _all_notes(manager: Manager) -> list[str]:
    return list(dict.fromkeys(note for controller in manager.controllers for note in _notes(controller)))


def _notes(controller: Controller) -> list[str]:
    notes = []
    if controller.reconciler.permissions is None:
        kind = type(controller.reconciler).__name__
        notes.append(
            f"{kind} declares no permissions: add its writes other than status to {kind}.permissions, or write "
            "permissions = () if there are none"
        )
    notes += [
        f"the plural and the scope of {rule.resource} in {rule.group} are guessed from the kind: check them"
        for rule in controller.access
        if rule.presumed
    ]
    return notes


def _print(documents: Sequence[JSONObject], notes: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        everything = {"apiVersion": "v1", "kind": "List", "items": documents}
        print_json(everything)
    else:
        sys.stdout.write(dump_yaml(documents))
        sys.stdout.flush()
    _print_notes(notes)


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"reconciler: note: {note}", file=sys.stderr)
