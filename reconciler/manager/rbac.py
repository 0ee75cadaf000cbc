"""RBAC manifests: the service account, roles and role bindings that a manager needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from reconciler._core.wire import JSONObject
from reconciler.cache import CacheNotSynced
from reconciler.cache.informer import Informer
from reconciler.controller.permissions import AccessRule
from reconciler.errors import ConfigurationError
from reconciler.manager.election import LeaderElection
from reconciler.objects.kinds import presumed_resource_type

_API = "rbac.authorization.k8s.io"

_REVIEW_RULES = (
    AccessRule("authentication.k8s.io", "tokenreviews", ("create",), namespaced=False),
    AccessRule("authorization.k8s.io", "subjectaccessreviews", ("create",), namespaced=False),
)

_READERS = {"metrics-reader": ("/metrics",), "debug-reader": ("/console", "/debug/*")}

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")


def rbac_documents(
    controllers: Iterable[Sequence[AccessRule]],
    informers: Iterable[Informer],
    *,
    name: str,
    namespace: str,
    namespaces: Sequence[str] | None,
    lease: LeaderElection | None,
    lease_is_named: bool = True,
    with_reviews: bool = False,
) -> list[JSONObject]:
    """Return the service account, a cluster role if one is needed, roles by namespace, and their bindings.

    Args:
        controllers: the rules of each controller.
        informers: all informers, with the scope of each.
        name: the name of the service account and of all roles.
        namespace: the service account's namespace.
        namespaces: the namespaces that the manager watches; None for all.
        lease: options of the Lease; None without one.
        lease_is_named: whether all replicas use the same Lease; otherwise the rule allows Leases of any name.
        with_reviews: whether the API server authenticates and authorizes the clients of the endpoints. Then the manager
            may create reviews, and there are cluster roles for those who read the endpoints.

    Raises:
        ConfigurationError: a name is invalid.
    """
    names = [("name", name), ("namespace", namespace), *(("namespaces", each) for each in namespaces or ())]
    if lease is not None:
        names += [("leader_election", lease.name), ("LeaderElection.namespace", lease.namespace or namespace)]
    for what, text in names:
        if not _NAME.fullmatch(text):
            raise ConfigurationError(f"{what}={text!r} is not a valid name: use lower-case letters, digits and '-'")
    cluster: list[AccessRule] = []
    local: dict[str, list[AccessRule]] = {}
    _place(_with_events(controllers), namespaces, cluster, local)
    for informer in informers:
        _place([_informer_rule(informer)], informer.scope.namespaces, cluster, local)
    if lease is not None:
        local.setdefault(lease.namespace or namespace, []).extend(_lease_rules(lease.name if lease_is_named else None))
    if with_reviews:
        cluster += _REVIEW_RULES
    account = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    documents = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}]
    documents += _role_and_binding("ClusterRole", {"name": name}, cluster, account) if cluster else []
    for where, rules in local.items():
        documents += _role_and_binding("Role", {"name": name, "namespace": where}, rules, account)
    if with_reviews:
        for suffix, paths in _READERS.items():
            readable: JSONObject = {"nonResourceURLs": list(paths), "verbs": ["get"]}
            documents.append(_role("ClusterRole", {"name": f"{name}-{suffix}"}, [readable]))
    return documents


def _with_events(controllers: Iterable[Sequence[AccessRule]]) -> list[AccessRule]:
    """Return all rules; the Events of cluster-scoped objects are in the namespace ``default``."""
    rules: list[AccessRule] = []
    for own in controllers:
        rules += own
        if own and not own[0].namespaced:  # the first rule is for the primary kind
            rules += [
                AccessRule(rule.group, rule.resource, rule.verbs, namespace="default")
                for rule in own
                if (rule.group, rule.resource) == ("", "events")
            ]
    return rules


def _lease_rules(name: str | None) -> list[AccessRule]:
    resource = "coordination.k8s.io", "leases"
    # RBAC cannot restrict "create" to a name: a new object has none when the request is authorized.
    if name is None:
        return [AccessRule(*resource, ("create", "get", "update"))]
    return [
        AccessRule(*resource, ("create",)),
        AccessRule(*resource, ("get", "update"), names=(name,)),
        AccessRule("", "events", ("create", "patch")),  # Events about the lease
    ]


def _informer_rule(informer: Informer) -> AccessRule:
    try:
        served = informer.resource
    except CacheNotSynced:  # not discovered yet
        served = presumed_resource_type(informer.gvk)
    return AccessRule(served.gvk.group, served.plural, ("get", "list", "watch"), served.namespaced)


def _place(
    rules: Iterable[AccessRule],
    namespaces: Sequence[str] | None,
    cluster: list[AccessRule],
    local: dict[str, list[AccessRule]],
) -> None:
    """Add each rule to the cluster role, or to the roles of its namespaces."""
    for rule in rules:
        if rule.namespaced and namespaces is not None:
            for namespace in (rule.namespace,) if rule.namespace else namespaces:
                local.setdefault(namespace, []).append(rule)
        elif rule.namespace is None:
            cluster.append(rule)


def _role(kind: str, metadata: JSONObject, rules: list[JSONObject]) -> JSONObject:
    return {"apiVersion": f"{_API}/v1", "kind": kind, "metadata": metadata, "rules": rules}


def _role_and_binding(
    kind: str, metadata: JSONObject, rules: Sequence[AccessRule], account: JSONObject
) -> list[JSONObject]:
    """Return a role and its binding to the service account."""
    role = _role(kind, metadata, _merge_rules(rules))
    reference = {"apiGroup": _API, "kind": kind, "name": metadata["name"]}
    binding = {
        "apiVersion": f"{_API}/v1",
        "kind": f"{kind}Binding",
        "metadata": dict(metadata),
        "roleRef": reference,
        "subjects": [dict(account)],
    }
    return [role, binding]


def _merge_rules(rules: Sequence[AccessRule]) -> list[JSONObject]:
    """Merge rules into one per group and set of verbs, in the order in which the resources first appear."""
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
