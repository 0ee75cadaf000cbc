"""Who may do what: users by impersonation, and roles (33)."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.api import GROUP, JSON_PATCH, Api
from tests.conformance.cases._case import case, widget

RBAC = "rbac.authorization.k8s.io"
AUTHORIZATION = "/apis/authorization.k8s.io/v1"
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
READ_PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
CODE = ("kind",)


def of(user: str, *, group: str = "", **extra: str) -> dict[str, Any]:
    """Return the options of a request as another user."""
    headers = {"impersonate-user": user, **extra}
    return {"headers": {**headers, "impersonate-group": group} if group else headers}


def user_of(api: Api, name: str = "jane") -> str:
    """Return a user that belongs to the case alone."""
    return f"{name}-{api.ns}"


def attributes(api: Api, verb: str, resource: str, name: str = "", group: str = "", ns: str | None = None) -> Any:
    """Return the attributes of a request to a resource."""
    resource, _, subresource = resource.partition("/")
    place = api.ns if ns is None else ns
    asked = {"verb": verb, "resource": resource, "name": name, "group": group, "namespace": place}
    return {key: value for key, value in {**asked, "subresource": subresource}.items() if value}


async def settle(
    api: Api, user: str, verb: str, resource: str, *names: str, allowed: bool = True, groups: Any = (), **options: str
) -> None:
    """Wait until a user may do something, or may not: a real server notices changed roles a moment later."""
    spec = {
        "user": user,
        "groups": list(groups),
        "resourceAttributes": attributes(api, verb, resource, *names, **options),
    }
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    for _ in range(200):
        found = await api.call("POST", f"{AUTHORIZATION}/subjectaccessreviews", body, quiet=True)
        if found["status"]["allowed"] is allowed:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{user} may {verb} {resource}: still not {allowed}")


def subject(name: str, kind: str = "User", **members: str) -> dict[str, str]:
    """Return a subject of a binding."""
    return {"kind": kind, "name": name, **({} if kind == "ServiceAccount" else {"apiGroup": RBAC}), **members}


async def grant(
    api: Api, user: str | dict[str, str], *rules: Any, kind: str = "Role", bound: str = "", name: str = "granted"
) -> str:
    """Create a role and its binding, and return their name.

    Args:
        api: the API.
        user: the user, or another subject.
        rules: the rules.
        kind: the kind of the role.
        bound: the kind of the binding; by default that of the role.
        name: the end of their name.
    """
    name = f"{api.ns}-{name}"
    plural, binding = f"{kind.lower()}s", f"{(bound or kind).lower()}bindings"
    await api.create(plural, {"metadata": {"name": name}, "rules": list(rules)}, quiet=True)
    subjects = [subject(user) if isinstance(user, str) else user]
    role = {"apiGroup": RBAC, "kind": kind, "name": name}
    await api.create(binding, {"metadata": {"name": name}, "roleRef": role, "subjects": subjects}, quiet=True)
    return name


@case("a user without roles may do nothing")
async def _(api: Api) -> None:
    jane = of("jane")
    maps = api.path("configmaps")
    for method, path in (
        ("GET", f"{maps}/a"),
        ("GET", maps),
        ("POST", maps),
        ("PUT", f"{maps}/a"),
        ("PATCH", f"{maps}/a"),
        ("DELETE", f"{maps}/a"),
        ("DELETE", maps),
        ("GET", "/api/v1/configmaps"),
        ("GET", "/api/v1/nodes"),
        ("GET", "/api/v1/nodes/a"),
        ("GET", f"/api/v1/namespaces/{api.ns}"),
        ("PUT", f"/api/v1/namespaces/{api.ns}/status"),
        ("GET", api.path("pods", "a", "status")),
        ("POST", api.path("pods", "a", "eviction")),
        ("GET", api.path("pods", "a", "log")),
        ("GET", api.path("deployments", "a", "scale")),
        ("GET", api.path("widgets", "a")),
        ("PUT", api.path("widgets", "a", "status")),
        ("GET", api.path("clusterwidgets")),
        ("POST", f"/apis/{RBAC}/v1/clusterroles"),
    ):
        body = {"metadata": {"name": "a"}} if method in ("POST", "PUT", "PATCH") else None
        await api.call(method, path, body, **jane)
    await api.call("GET", maps, query={"watch": "true"}, **jane)
    await api.call("GET", maps, query={"fieldSelector": "metadata.name=one"}, **jane)
    await api.call("GET", maps, query={"fieldSelector": "metadata.name!=one"}, **jane)


@case("a user without roles does not learn what is served")
async def _(api: Api) -> None:
    jane = of("jane")
    for path in (
        "/api/v1/nothings",
        "/apis/nowhere.example/v1/things/a",
        f"/apis/{GROUP}/v9/widgets",
        "/apis/apps/v1/x/y/z",
    ):
        await api.call("GET", path, **jane)
    await api.call("POST", api.path("configmaps", "a"), {}, **jane)
    await api.call("GET", f"/api/v1/namespaces/{api.ns}/nodes", **jane)
    await api.call("GET", "/api/v1/nodes/a/b/c", **jane)


@case("paths that belong to no kind")
async def _(api: Api) -> None:
    for path in ("/metrics", "/logs/a", "/nothing", "/debug/pprof/<a>&b", "/"):
        await api.call("GET", path, **of("jane"))
    await api.call("POST", "/version", {}, **of("jane"))
    for path in ("/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz", "/version"):
        await api.call("GET", path, keep=CODE, **of("jane"))
    for path in ("/api", "/healthz", "/version", "/metrics"):
        await api.call("GET", path, keep=CODE, **of("system:anonymous"))


@case("an apply or a PUT that creates an object must be allowed to create it")
async def _(api: Api) -> None:
    user = user_of(api)
    rule = {"apiGroups": ["", "coordination.k8s.io"], "resources": ["configmaps", "leases"]}
    await grant(api, user, {**rule, "verbs": ["update", "patch"]})
    await settle(api, user, "patch", "configmaps")
    named = {"metadata": {"name": "a"}}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}}
    for query in ({}, {"dryRun": "All"}):
        await api.apply("configmaps", "a", named, query=query, keep=CODE, **of(user))
        await api.put("leases", "a", lease, query=query, keep=CODE, **of(user))
    await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    await api.apply("configmaps", "a", {**named, "data": {"b": "c"}}, keep=CODE, **of(user))


@case("a Role allows something in its namespace")
async def _(api: Api) -> None:
    user = user_of(api)
    await grant(api, user, READ_PODS)
    await settle(api, user, "list", "pods")
    await api.list("pods", keep=CODE, **of(user))
    await api.get("pods", "a", **of(user))
    await api.delete("pods", "a", **of(user))
    await api.call("GET", "/api/v1/pods", **of(user))
    await api.call("GET", "/api/v1/namespaces/default/pods", **of(user))
    await api.get("pods", "a", "status", **of(user))


@case("a ClusterRole allows something everywhere, or in the namespace of a RoleBinding")
async def _(api: Api) -> None:
    one, two = user_of(api, "one"), user_of(api, "two")
    await grant(api, one, READ_PODS, kind="ClusterRole", name="one")
    await grant(api, two, READ_PODS, kind="ClusterRole", bound="Role", name="two")
    await settle(api, one, "list", "pods")
    await settle(api, two, "list", "pods")
    for user in (one, two):
        await api.list("pods", keep=CODE, **of(user))
        await api.call("GET", "/api/v1/pods", keep=CODE, **of(user))
        await api.call("GET", "/api/v1/namespaces/default/pods", keep=CODE, **of(user))


@case("rules with names")
async def _(api: Api) -> None:
    user = user_of(api)
    verbs = ["get", "list", "watch", "update", "create", "delete", "deletecollection"]
    await grant(api, user, {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": verbs})
    await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    await settle(api, user, "get", "configmaps", "a")
    await api.get("configmaps", "a", keep=CODE, **of(user))
    await api.get("configmaps", "b", **of(user))
    await api.list("configmaps", **of(user))
    await api.list("configmaps", {"fieldSelector": "metadata.name=a"}, keep=CODE, **of(user))
    await api.list("configmaps", {"fieldSelector": "metadata.name==a,metadata.namespace=x"}, keep=CODE, **of(user))
    await api.list("configmaps", {"fieldSelector": "metadata.name=b"}, **of(user))
    await api.create("configmaps", {"metadata": {"name": "a"}}, **of(user))
    await api.call("DELETE", api.path("configmaps"), **of(user))
    await api.delete("configmaps", "a", keep=CODE, **of(user))


@case("rules with wildcards and subresources")
async def _(api: Api) -> None:
    for name, rule in (
        ("verbs", {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}),
        ("groups", {"apiGroups": ["*"], "resources": ["widgets"], "verbs": ["get"]}),
        ("resources", {"apiGroups": [GROUP], "resources": ["*"], "verbs": ["get"]}),
        ("status", {"apiGroups": ["", GROUP], "resources": ["*/status"], "verbs": ["get"]}),
        ("one-status", {"apiGroups": [GROUP], "resources": ["widgets/status"], "verbs": ["get"]}),
        ("below", {"apiGroups": [GROUP], "resources": ["widgets/*"], "verbs": ["get"]}),
    ):
        user = user_of(api, name)
        await grant(api, user, rule, {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}, name=name)
        await settle(api, user, "list", "secrets")
        for verb, resource, group in (
            ("get", "pods", ""),
            ("invent", "pods", ""),
            ("get", "pods/status", ""),
            ("get", "widgets", GROUP),
            ("list", "widgets", GROUP),
            ("get", "widgets/status", GROUP),
            ("get", "widgets/scale", GROUP),
        ):
            spec = {"user": user, "resourceAttributes": attributes(api, verb, resource, group=group)}
            body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
            await api.call("POST", f"{AUTHORIZATION}/subjectaccessreviews", body)


@case("rules for paths")
async def _(api: Api) -> None:
    user = user_of(api)
    paths = {"nonResourceURLs": ["/things", "/below/*", "/metrics"], "verbs": ["get"]}
    await grant(api, user, paths, READ_PODS, kind="ClusterRole")
    await settle(api, user, "list", "pods")
    for path in ("/things", "/thing", "/below", "/below/", "/below/a/b"):
        await api.call("GET", path, **of(user))
    await api.call("POST", "/things", {}, **of(user))
    await grant(
        api, user, {"nonResourceURLs": ["/a"], "verbs": ["get"]}, kind="ClusterRole", bound="Role", name="local"
    )
    await api.call("GET", "/a", **of(user))


@case("subjects of bindings")
async def _(api: Api) -> None:
    rules = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    accounts = f"system:serviceaccount:{api.ns}"
    team = f"team-{api.ns}"
    await grant(api, subject(team, "Group"), rules, name="group")
    await grant(api, subject("robot", "ServiceAccount"), rules, name="here")
    await grant(api, subject("other", "ServiceAccount", namespace="elsewhere"), rules, name="there")
    await settle(api, "x", "list", "pods", groups=[team])
    await settle(api, f"{accounts}:robot", "list", "pods")
    await settle(api, "system:serviceaccount:elsewhere:other", "list", "pods")
    await api.list("pods", keep=CODE, **of("anyone", group=team))
    await api.list("pods", keep=CODE, **of("anyone", group="others"))
    await api.list("pods", keep=CODE, **of(f"{accounts}:robot"))
    await api.list("pods", keep=CODE, **of("system:serviceaccount:elsewhere:robot"))
    await api.list("pods", keep=CODE, **of("system:serviceaccount:elsewhere:other"))
    await api.list("pods", keep=CODE, **of("robot"))


@case("a group of all service accounts")
async def _(api: Api) -> None:
    group = subject(f"system:serviceaccounts:{api.ns}", "Group")
    await grant(api, group, READ_PODS)
    account = f"system:serviceaccount:{api.ns}:any"
    await settle(api, account, "list", "pods", groups=[f"system:serviceaccounts:{api.ns}"])
    await api.list("pods", keep=CODE, **of(account))


@case("a binding whose role does not exist")
async def _(api: Api) -> None:
    for kind in ("Role", "ClusterRole"):
        user = user_of(api, kind.lower())
        role = {"apiGroup": RBAC, "kind": kind, "name": f"missing-{api.ns}"}
        body = {"metadata": {"name": kind.lower()}, "roleRef": role, "subjects": [subject(user)]}
        await api.create("rolebindings", body, quiet=True)
        await grant(api, user, READ_PODS, name=kind.lower())
        await settle(api, user, "list", "pods")
        await api.list("configmaps", **of(user))
        await api.list("pods", keep=CODE, **of(user))


@case("a role that changes")
async def _(api: Api) -> None:
    user = user_of(api)
    name = await grant(api, user, READ_PODS)
    await settle(api, user, "list", "pods")
    change = [{"op": "replace", "path": "/rules/0/resources", "value": ["secrets"]}]
    await api.patch("roles", name, change, content=JSON_PATCH, quiet=True)
    await settle(api, user, "list", "secrets")
    await api.list("pods", **of(user))
    await api.call("DELETE", api.path("rolebindings", name), quiet=True)
    await settle(api, user, "list", "secrets", allowed=False)
    await api.list("secrets", **of(user))


@case("reviews of access say why")
async def _(api: Api) -> None:
    user, path = user_of(api), f"{AUTHORIZATION}/subjectaccessreviews"

    async def ask(spec: Any, kind: str = "SubjectAccessReview", path: str = path, **options: Any) -> None:
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        await api.call("POST", path, body, **options)

    await grant(api, user, READ_PODS, name="local")
    await grant(api, subject(f"team-{api.ns}", "Group"), READ_PODS, kind="ClusterRole", name="all")
    await grant(api, subject("robot", "ServiceAccount"), READ_PODS, name="robot")
    await settle(api, user, "list", "pods")
    await settle(api, "x", "list", "pods", groups=[f"team-{api.ns}"], ns="")
    await settle(api, f"system:serviceaccount:{api.ns}:robot", "list", "pods")
    pods = {"resourceAttributes": attributes(api, "list", "pods")}
    await ask({**pods, "user": user})
    await ask({**pods, "user": "x", "groups": [f"team-{api.ns}"]})
    await ask({**pods, "user": f"system:serviceaccount:{api.ns}:robot"})
    await ask({**pods, "user": "nobody"})
    await ask({**pods, "user": "nobody", "groups": ["system:masters"]})
    await ask({"user": "nobody", "nonResourceAttributes": {"path": "/metrics", "verb": "get"}})
    await ask(
        {"user": "n", "groups": ["system:authenticated"], "nonResourceAttributes": {"path": "/api", "verb": "get"}}
    )
    mine = f"{AUTHORIZATION}/selfsubjectaccessreviews"
    await ask(pods, "SelfSubjectAccessReview", mine, **of(user))
    await ask(
        {"resourceAttributes": attributes(api, "get", "nodes", ns="")}, "SelfSubjectAccessReview", mine, **of(user)
    )
    await ask({**pods, "user": user}, **of(user))
    local = f"{AUTHORIZATION}/namespaces/{api.ns}/localsubjectaccessreviews"
    await ask({**pods, "user": user}, "LocalSubjectAccessReview", local)
    other = {"resourceAttributes": attributes(api, "list", "pods", ns="default"), "user": user}
    await ask(other, "LocalSubjectAccessReview", local)


@case("the rules of a user")
async def _(api: Api) -> None:
    user = user_of(api)
    await grant(api, user, READ_PODS, {**READ_PODS, "resourceNames": ["a"], "apiGroups": ["", "apps"]}, name="local")
    await grant(api, user, {"nonResourceURLs": ["/a", "/b/*"], "verbs": ["get"]}, kind="ClusterRole", name="paths")
    ask = {"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectrulesreviews"], "verbs": ["create"]}
    await grant(api, user, ask, kind="ClusterRole", name="ask")
    await settle(api, user, "create", "selfsubjectrulesreviews", group="authorization.k8s.io", ns="")
    await settle(api, user, "list", "pods")
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": api.ns}}
    # Only in the group that is given, so that no other rules belong to the user.
    alone = of(user, group="system:unauthenticated")
    answer = await api.call("POST", f"{AUTHORIZATION}/selfsubjectrulesreviews", body, **alone)
    for rules in (answer["status"]["resourceRules"], answer["status"]["nonResourceRules"]):
        rules.sort(key=str)


@case("impersonation")
async def _(api: Api) -> None:
    path = f"{AUTHENTICATION}/selfsubjectreviews"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    for headers in (
        {"impersonate-user": "jane"},
        {"impersonate-user": "jane", "impersonate-group": "team"},
        {"impersonate-user": "jane", "impersonate-group": "system:authenticated"},
        {"impersonate-user": "jane", "impersonate-uid": "u-1"},
        {"impersonate-user": "jane", "impersonate-extra-scopes": "view"},
        {"impersonate-user": "jane", "impersonate-extra-example.com%2fPlace": "view"},
        {"impersonate-user": "system:serviceaccount:shop:robot"},
        {"impersonate-user": "system:serviceaccount:shop:robot", "impersonate-group": "team"},
        {"impersonate-user": "system:serviceaccount:shop"},
        {"impersonate-user": "system:anonymous"},
        {"impersonate-user": "system:admin", "impersonate-group": "system:masters"},
        {"impersonate-group": "team"},
        {"impersonate-uid": "u-1"},
        {"impersonate-extra-scopes": "view"},
    ):
        await api.call("POST", path, body, headers=headers)


@case("a user may not grant more than it has")
async def _(api: Api) -> None:
    user = user_of(api)
    write = {"apiGroups": [RBAC], "resources": ["roles", "rolebindings"], "verbs": ["create", "update", "patch"]}
    await grant(api, user, READ_PODS, write, {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"]})
    await settle(api, user, "list", "pods")

    async def role(name: str, *rules: Any, **options: Any) -> None:
        body = {"metadata": {"name": name}, "rules": list(rules)}
        await api.create("roles", body, keep=CODE, **of(user, group=f"team-{api.ns}"), **options)

    await role("held", READ_PODS)
    await role("below", {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]})
    await role("verbs", {**READ_PODS, "verbs": ["get", "delete", "create"]})
    await role(
        "more", READ_PODS, {"apiGroups": ["", "batch"], "resources": ["secrets", "jobs"], "verbs": ["get", "list"]}
    )
    await role("names", {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"], "verbs": ["get"]})
    await role("all", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})
    await role("invalid", {"apiGroups": [""], "resources": ["secrets"], "verbs": []})
    more = {"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}
    await api.patch("roles", "held", more, **of(user))
    await api.patch("roles", "held", {"metadata": {"labels": {"a": "b"}}}, keep=CODE, **of(user))


@case("binding a role needs its permissions, or the verb bind")
async def _(api: Api) -> None:
    user, bold = user_of(api), user_of(api, "bold")
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    strong = await grant(api, user_of(api, "x"), secrets, kind="ClusterRole", name="strong")
    write = {"apiGroups": [RBAC], "resources": ["roles", "rolebindings"], "verbs": ["create", "update"]}
    await grant(api, user, write, READ_PODS, name="plain")
    special = {"apiGroups": [RBAC], "resources": ["clusterroles", "roles"], "verbs": ["bind", "escalate"]}
    await grant(api, bold, write, special, name="bold")
    await settle(api, user, "list", "pods")
    await settle(api, bold, "bind", "clusterroles", group=RBAC)

    async def bind(name: str, who: str, role: str, kind: str = "ClusterRole") -> None:
        reference = {"apiGroup": RBAC, "kind": kind, "name": role}
        body = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject("x")]}
        await api.create("rolebindings", body, keep=CODE, **of(who))

    await bind("one", user, strong)
    await bind("two", bold, strong)
    await bind("three", user, f"nothing-{api.ns}")
    await bind("four", user, "nothing", "Role")
    await bind("five", bold, "nothing", "Role")
    body = {"metadata": {"name": "wide"}, "rules": [secrets]}
    await api.create("roles", body, keep=CODE, **of(user))
    await api.create("roles", body, keep=CODE, **of(bold))


@case("an aggregated role needs the permissions of cluster-admin")
async def _(api: Api) -> None:
    user = user_of(api)
    await grant(
        api, user, {"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["create"]}, kind="ClusterRole"
    )
    await settle(api, user, "create", "clusterroles", group=RBAC, ns="")
    gathered = {"clusterRoleSelectors": [{"matchLabels": {"a": api.ns}}]}
    body = {"metadata": {"name": f"sum-{api.ns}"}, "aggregationRule": gathered, "rules": []}
    await api.create("clusterroles", body, **of(user))


@case("who may impersonate")
async def _(api: Api) -> None:
    user = user_of(api)
    users = {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["jane"]}
    await grant(api, user, users, READ_PODS, kind="ClusterRole")
    await settle(api, user, "list", "pods")
    for verb, resource, name, group in (
        ("impersonate", "users", "jane", ""),
        ("impersonate", "users", "joe", ""),
        ("impersonate", "groups", "team", ""),
    ):
        spec = {"user": user, "resourceAttributes": attributes(api, verb, resource, name, group, ns="")}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        await api.call("POST", f"{AUTHORIZATION}/subjectaccessreviews", body)


@case("the roles that the server brings")
async def _(api: Api) -> None:
    user = user_of(api)
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"}
    body = {"metadata": {"name": "boss"}, "roleRef": role, "subjects": [subject(user)]}
    await api.create("rolebindings", body, quiet=True)
    await settle(api, user, "list", "secrets")
    await api.create("widgets", widget("a"), keep=CODE, **of(user))
    await api.call("GET", f"/api/v1/namespaces/{api.ns}", keep=CODE, **of(user))
    await api.call("GET", "/api/v1/nodes", **of(user))
    for name in ("cluster-admin", "system:discovery", "system:basic-user", "system:aggregate-to-view"):
        await api.get("clusterroles", name, keep=("rules", "metadata.labels", "metadata.annotations"))
    for name in ("cluster-admin", "system:discovery"):
        await api.get("clusterrolebindings", name, keep=("roleRef", "subjects", "metadata.labels"))
