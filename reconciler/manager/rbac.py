"""Make a service account, roles and bindings of what controllers need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reconciler.cache import CacheNotSynced, Informer
from reconciler.controller import AccessRule
from reconciler.errors import ConfigurationError
from reconciler.manager.election.options import LeaderElection
from reconciler.objects import presumed_resource_type

__all__ = ["rbac_documents"]

_API = "rbac.authorization.k8s.io"

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")

Document = dict[str, Any]


def rbac_documents(
    controllers: Iterable[Sequence[AccessRule]],
    informers: Iterable[Informer],
    *,
    name: str,
    namespace: str,
    namespaces: Sequence[str] | None,
    lease: LeaderElection | None,
    lease_is_named: bool = True,
) -> list[Document]:
    """Return the documents: the service account, the cluster role if one is needed, roles by namespace, each bound.

    Args:
        controllers: the rules of each.
        informers: what else is watched, each where it watches.
        name: of the service account and of the cluster role.
        namespace: where the service account is.
        namespaces: what the manager watches; None for all.
        lease: what is elected on; None for nothing.
        lease_is_named: all replicas have the same; else the rule holds for Leases of any name.

    Raises:
        ConfigurationError: a name cannot be one.
    """
    for what, text in (("name", name), ("namespace", namespace)):
        if not _NAME.fullmatch(text):
            raise ConfigurationError(f"the service account's {what} {text!r} is none: use lower case, digits and '-'")
    cluster: list[AccessRule] = []
    local: dict[str, list[AccessRule]] = {}
    _place(_with_events(controllers), namespaces, cluster, local)
    for informer in informers:
        _place([_of_an_informer(informer)], informer.scope.namespaces, cluster, local)
    if lease is not None:
        local.setdefault(lease.namespace or namespace, []).extend(_of_the_lease(lease.name if lease_is_named else None))
    account = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    documents = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}]
    documents += _bound("ClusterRole", {"name": name}, cluster, account) if cluster else []
    for where, rules in local.items():
        documents += _bound("Role", {"name": name, "namespace": where}, rules, account)
    return documents


def _with_events(controllers: Iterable[Sequence[AccessRule]]) -> list[AccessRule]:
    """Return all rules; where objects have no namespace, their events are in ``default``."""
    rules: list[AccessRule] = []
    for of_one in controllers:
        rules += of_one
        if of_one and not of_one[0].namespaced:  # the first rule is about the primary kind
            rules += [
                AccessRule(rule.group, rule.resource, rule.verbs, namespace="default")
                for rule in of_one
                if (rule.group, rule.resource) == ("", "events")
            ]
    return rules


def _of_the_lease(name: str | None) -> list[AccessRule]:
    resource = "coordination.k8s.io", "leases"
    # What is created has no name yet when it is authorized, so this verb cannot be tied to one.
    if name is None:
        return [AccessRule(*resource, ("create", "get", "update"))]
    return [
        AccessRule(*resource, ("create",)),
        AccessRule(*resource, ("get", "update"), names=(name,)),
        AccessRule("", "events", ("create", "patch")),  # who leads is told about the lease
    ]


def _of_an_informer(informer: Informer) -> AccessRule:
    try:
        served = informer.resource
    except CacheNotSynced:  # nobody was asked yet
        served = presumed_resource_type(informer.gvk)
    return AccessRule(served.gvk.group, served.plural, ("get", "list", "watch"), served.namespaced)


def _place(
    rules: Iterable[AccessRule],
    namespaces: Sequence[str] | None,
    cluster: list[AccessRule],
    local: dict[str, list[AccessRule]],
) -> None:
    """Put each rule where it holds: everywhere, or in namespaces."""
    for rule in rules:
        if rule.namespaced and namespaces is not None:
            for namespace in (rule.namespace,) if rule.namespace else namespaces:
                local.setdefault(namespace, []).append(rule)
        elif rule.namespace is None:
            cluster.append(rule)


def _bound(kind: str, metadata: Document, rules: Sequence[AccessRule], account: Document) -> list[Document]:
    """Return a role and its binding to the service account."""
    role = {"apiVersion": f"{_API}/v1", "kind": kind, "metadata": metadata, "rules": _merged(rules)}
    reference = {"apiGroup": _API, "kind": kind, "name": metadata["name"]}
    binding = {
        "apiVersion": f"{_API}/v1",
        "kind": f"{kind}Binding",
        "metadata": dict(metadata),
        "roleRef": reference,
        "subjects": [dict(account)],
    }
    return [role, binding]


def _merged(rules: Sequence[AccessRule]) -> list[Mapping[str, Any]]:
    """Return one rule for all resources of a group that are treated alike, in the order in which they were named."""
    verbs: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for rule in rules:
        verbs.setdefault((rule.group, rule.resource, rule.names), set()).update(rule.verbs)
    alike: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (group, resource, names), allowed in verbs.items():
        alike.setdefault((group, names, tuple(sorted(allowed))), []).append(resource)
    return [
        {
            "apiGroups": [group],
            "resources": resources,
            **({"resourceNames": list(names)} if names else {}),
            "verbs": list(allowed),
        }
        for (group, names, allowed), resources in alike.items()
    ]
