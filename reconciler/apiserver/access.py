"""Access control: the user of each request, and whether its roles let it make the request.

The rules of roles say what they allow, and which rules others cover.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from reconciler._core.wire import JSONObject
from reconciler.apiserver import users
from reconciler.apiserver.builtin.checks import selects
from reconciler.apiserver.cluster import APIResource, ClusterStorage
from reconciler.apiserver.encoding.refusals import Refusal, aggregate
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.encoding.versions import recorded_for
from reconciler.apiserver.store import Stored
from reconciler.apiserver.users import MASTERS, Attributes, InvalidToken, Tokens, UserInfo, account_name
from reconciler.http import HTTPRequest

if TYPE_CHECKING:
    from reconciler.apiserver.verbs.write_rules import Admitted

_MEMBERS = ("verbs", "nonResourceURLs", "apiGroups", "resources", "resourceNames")
_SHOWN = {
    "apiGroups": "APIGroups",
    **{key: key[0].upper() + key[1:] for key in ("resources", "nonResourceURLs", "resourceNames", "verbs")},
}
RBAC = "rbac.authorization.k8s.io"
_KINDS = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


def includes(rule: JSONObject, member: str, value: str) -> bool:
    """Return whether a member of a rule lists a value, or a star."""
    values = rule.get(member) or ()
    return "*" in values or value in values


def allows(rule: JSONObject, asked: Attributes) -> bool:
    """Return whether a rule allows a request."""
    if not includes(rule, "verbs", asked.verb):
        return False
    if not asked.resource:
        return any(_path_covers(each, asked.path) for each in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames")
    return (
        includes(rule, "apiGroups", asked.group)
        and _covers_resource(rule, asked.full_resource)
        and (not names or asked.name in names)
    )


def _covers_resource(rule: JSONObject, resource: str) -> bool:
    _, slash, subresource = resource.partition("/")
    return includes(rule, "resources", resource) or (bool(slash) and f"*/{subresource}" in rule["resources"])


def _path_covers(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


def missing_rules(held: Sequence[JSONObject], wanted: Iterable[JSONObject]) -> list[JSONObject]:
    """Return the parts of rules that no held rule covers; each has one verb, and one resource or path."""
    return [part for rule in wanted for part in _parts(rule) if not any(_covers(each, part) for each in held)]


def _parts(rule: JSONObject) -> Iterator[JSONObject]:
    names: list[list[str]] = [[name] for name in rule.get("resourceNames") or ()] or [[]]
    resources = (rule.get(member) or () for member in ("apiGroups", "resources", "verbs"))
    for group, resource, verb, name in product(*resources, names):
        yield {"apiGroups": [group], "resources": [resource], "resourceNames": name, "verbs": [verb]}
    for path, verb in product(rule.get("nonResourceURLs") or (), rule.get("verbs") or ()):
        yield {"nonResourceURLs": [path], "verbs": [verb]}


def _covers(held: JSONObject, part: JSONObject) -> bool:
    verb, path, group, resource, name = ("".join(part.get(member) or ()) for member in _MEMBERS)
    return allows(held, Attributes(verb, path, group, resource, name=name))


def describe_missing(missing: Iterable[JSONObject]) -> str:
    """Return the lines about rules that a user does not have; the verbs of a resource are on one line."""
    merged: dict[str, JSONObject] = {}
    for part in missing:
        key = str(part if "nonResourceURLs" in part else {**part, "verbs": None})
        known = merged.setdefault(key, {**part, "verbs": []})
        known["verbs"] = list(dict.fromkeys([*known["verbs"], *part["verbs"]]))
    return "\n".join(sorted({_shown_rule(rule) for rule in merged.values()}))


def _shown_rule(rule: JSONObject) -> str:
    parts = (f"{name}:[{' '.join(map(quoted, rule[key]))}]" for key, name in _SHOWN.items() if rule.get(key))
    return f"{{{', '.join(parts)}}}"


class AccessDecision(NamedTuple):
    """The decision about a request, and the reason that a review gives."""

    allowed: bool
    reason: str = ""


class Grants(NamedTuple):
    """The rules that a user has in a namespace.

    Attributes:
        rules: each rule with the binding that grants it, as reviews name it.
        problems: messages about bindings whose roles do not exist.
    """

    rules: list[tuple[str, JSONObject]]
    problems: list[str]


class Roles:
    """The authorizer for the roles and bindings that a cluster stores."""

    def __init__(self, cluster: ClusterStorage) -> None:
        self._cluster = cluster
        self._grants: dict[tuple[str, tuple[str, ...], str], Grants] = {}
        self._resources = {kind: cluster.registry.built_in(f"{kind.lower()}s", RBAC) for kind in _KINDS}
        self._aggregating = False  # updating roles commits, too

    def bootstrap(self) -> None:
        """Store those roles and bindings of a real server that are missing, and follow changes from now on."""
        for document in recorded_for("bootstrap.json", self._cluster.registry.release):
            self._add(document)
        self._aggregate()
        self._cluster.commit_hooks.append(self._committed)

    def _add(self, document: JSONObject) -> None:
        """Store a document unless it exists; servers share the rules in it."""
        metadata, resource = dict(document["metadata"]), self._resources[document["kind"]]
        key = resource.key(metadata.get("namespace"), metadata["name"])
        if key in resource.store.objects:
            return
        metadata |= {
            "uid": self._cluster.uid(resource, key),
            "creationTimestamp": self._cluster.now(),
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **(metadata.get("labels") or {})},
            "annotations": {f"{RBAC.replace('k8s', 'kubernetes')}/autoupdate": "true"},
        }
        rules = {"rules": document.get("rules")} if document["kind"].endswith("Role") else {}
        self._cluster.put(
            resource, key, {"apiVersion": resource.api_version, **document, "metadata": metadata, **rules}
        )

    def _committed(self, resource: APIResource, _old: Stored | None, _new: Stored | None) -> None:
        """Forget what users may do if a role or binding has changed; a commit hook."""
        if resource.info.group == RBAC:
            self._grants.clear()
            if resource is self._resources["ClusterRole"] and not self._aggregating:
                self._aggregate()

    def _aggregate(self) -> None:
        """Update the rules of aggregated roles until none changes, since others may gather one that does."""
        resource, changed = self._resources["ClusterRole"], True
        self._aggregating = True
        while changed:
            changed = False
            for key in sorted(resource.store.objects):
                old, rules = resource.store.objects[key], self._gathered(key)
                if rules is not None and rules != (old.doc.get("rules") or []):
                    self._cluster.put(resource, key, {**old.doc, "metadata": {**old.doc["metadata"]}, "rules": rules})
                    changed = True
        self._aggregating = False

    def _gathered(self, key: str) -> list[JSONObject] | None:
        """Return the rules that an aggregated role gathers from others; None for a role of another kind."""
        stored, rules = self._resources["ClusterRole"].store.objects, []
        selectors: list[JSONObject] = (stored[key].doc.get("aggregationRule") or {}).get("clusterRoleSelectors") or []
        if not selectors:
            return None
        for selector, other in product(selectors, sorted(stored)):
            found, labels = stored[other].doc.get("rules"), stored[other].doc["metadata"].get("labels")
            if found and other != key and selects(selector, labels or {}):
                rules += [rule for rule in found if rule not in rules]
        return rules

    def decide(self, user: UserInfo, asked: Attributes) -> AccessDecision:
        """Return whether a user may make a request."""
        if MASTERS in user.groups:
            return AccessDecision(allowed=True)
        found = self.grants(user, asked.namespace)
        for source, rule in found.rules:
            if allows(rule, asked):
                return AccessDecision(True, f"RBAC: allowed by {source}")
        return AccessDecision(False, f"RBAC: {aggregate(found.problems)}" if found.problems else "")

    def grants(self, user: UserInfo, namespace: str) -> Grants:
        """Return the rules that a user has in a namespace, or everywhere if it is empty."""
        key = (user.name, user.groups, namespace)
        if key not in self._grants:
            found = self._grants[key] = Grants([], [])
            for binding, subject in self._bindings(user, namespace):
                try:
                    rules = self.rules_of(binding.get("roleRef") or {}, binding["metadata"].get("namespace") or "")
                except Refusal as missing:
                    found.problems.append(missing.message)
                else:
                    source = _described(binding, subject)
                    found.rules.extend((source, rule) for rule in rules)
        return self._grants[key]

    def _bindings(self, user: UserInfo, namespace: str) -> Iterator[tuple[JSONObject, JSONObject]]:
        """Yield the bindings that apply to a user, each with the subject that does."""
        everywhere, local = self._resources["ClusterRoleBinding"].store, self._resources["RoleBinding"].store
        documents = [everywhere.objects[key].doc for key in everywhere.keys(None)]
        if namespace:
            documents += [local.objects[key].doc for key in local.keys(namespace)]
        for binding in documents:
            place = binding["metadata"].get("namespace") or ""
            for subject in binding.get("subjects") or ():
                if _is(user, subject, place):
                    yield binding, subject
                    break

    def rules_of(self, reference: JSONObject, namespace: str) -> list[JSONObject]:
        """Return the rules of the role that a binding names; raise the 404 if there is no such role."""
        kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
        resource = self._resources.get(kind)
        stored = None if resource is None else resource.find(namespace, name)
        if stored is None:
            # The real server names the kind here, not the plural.
            raise Refusal.not_found(kind.lower(), RBAC, name)
        return stored.doc.get("rules") or []


def _is(user: UserInfo, subject: JSONObject, namespace: str) -> bool:
    """Return whether a subject of a binding in a namespace is a user."""
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "User":
        return bool(user.name == name)
    if kind == "Group":
        return name in user.groups
    place = subject.get("namespace") or namespace
    return kind == "ServiceAccount" and bool(place) and user.name == account_name(place, name)


def _described(binding: JSONObject, subject: JSONObject) -> str:
    metadata, role = binding["metadata"], binding.get("roleRef") or {}
    place = f"/{metadata['namespace']}" if metadata.get("namespace") else ""
    who = subject.get("name", "")
    if subject.get("kind") == "ServiceAccount":
        who = f"{who}/{subject.get('namespace') or metadata.get('namespace', '')}"
    return (
        f"{binding['kind']} {quoted(metadata['name'] + place)} of {role.get('kind')} {quoted(role.get('name'))} "
        f"to {subject.get('kind')} {quoted(who)}"
    )


EVERYTHING = ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]})
"""The rules of a user who may do everything."""
_FOR_GARBAGE_COLLECTION = ("finalizers", "managedFields", "ownerReferences")


def needs_permissions(write: Admitted) -> bool:
    """Return whether writes of a kind may need permissions of their own."""
    return write.call.endpoint.info.group == RBAC or _creates_by_update(write)


def _creates_by_update(write: Admitted) -> bool:
    return write.operation == "CREATE" and write.call.verb != "create"


def check_permissions(write: Admitted, roles: Roles) -> None:
    """Return if the user of a write has the permissions that it needs.

    Raises:
        Refusal: 403; 404 if a binding names a role that does not exist.
    """
    if write.doc is None or MASTERS in write.call.user.groups:
        return
    call, info = write.call, write.call.endpoint.info
    if _creates_by_update(write):
        asked = Attributes("create", "", info.group, info.plural, "", call.namespace or "", write.name)
        decision = roles.decide(call.user, asked)
        if not decision.allowed:
            raise users.denied(call.user, asked, decision.reason)
    if info.group == RBAC:
        _check_escalation(write, write.doc, roles)


def _check_escalation(write: Admitted, doc: JSONObject, roles: Roles) -> None:
    """Return if the user of a write has all permissions that it grants, or may grant others."""
    call = write.call
    if _only_for_garbage_collection(doc, write.before):
        return
    plural, namespace = call.endpoint.info.plural, call.namespace or ""
    role = doc.get("roleRef")
    if role is None:
        asked = Attributes("escalate", "", RBAC, plural, "", namespace, call.name)
    else:
        asked = Attributes("bind", "", RBAC, f"{role.get('kind', '').lower()}s", "", namespace, role.get("name", ""))
    if roles.decide(call.user, asked).allowed:
        return
    if role is None:
        granted = doc.get("rules") or []
    else:
        try:
            granted = roles.rules_of(role, namespace)
        except Refusal:
            raise Refusal.not_found(plural, RBAC, role.get("name", "")) from None
    _require(write, roles, granted)
    if doc.get("aggregationRule") or (write.before or {}).get("aggregationRule"):
        words = "must have cluster-admin privileges to use the aggregationRule"
        _require(write, roles, EVERYTHING, words)


def _require(write: Admitted, roles: Roles, granted: Sequence[JSONObject], words: str = "") -> None:
    call = write.call
    held = roles.grants(call.user, call.namespace or "")
    missing = missing_rules([rule for _, rule in held.rules], granted)
    if not missing:
        return
    if not words:
        who = f"user {quoted(call.user.name)} (groups=[{' '.join(map(quoted, call.user.groups))}])"
        words = f"{who} is attempting to grant RBAC permissions not currently held:\n{describe_missing(missing)}"

    raise Refusal.forbidden(call.endpoint.info.plural, RBAC, write.name, words)


def _only_for_garbage_collection(doc: JSONObject, before: JSONObject | None) -> bool:
    """Return whether a write changes only what the garbage collector needs to delete an object."""
    if before is None:
        return False

    def rest(document: JSONObject) -> JSONObject:
        kept = {key: value for key, value in document["metadata"].items() if key not in _FOR_GARBAGE_COLLECTION}
        return {**document, "metadata": kept}

    return rest(doc) == rest(before)


_AUTHENTICATION = "authentication.k8s.io"
_NODE = "system:node:"


@dataclass(frozen=True, slots=True)
class AccessControl:
    """The access control of a server.

    Attributes:
        tokens: the tokens that it accepts.
        roles: what users may do; None: everything.
    """

    tokens: Tokens
    roles: Roles | None

    def admit(self, request: HTTPRequest) -> UserInfo:
        """Return the user of a request, if it may make it: that of its token, or the one that it impersonates.

        Raises:
            Refusal: 401, the token is not valid; 400, the impersonation is not; 403, the user may not do this.
        """
        headers = request.headers
        user = self.authenticated(headers["authorization"]) if "authorization" in headers else users.ADMIN
        if "impersonate-" in " ".join(headers):
            wanted = users.impersonated_user(headers)
            if wanted is not None:
                user = self._impersonate(user, wanted, users.attributes_of(request))
        if self.roles is not None and MASTERS not in user.groups:
            self._require(user, users.attributes_of(request))
        return user

    def authenticated(self, authorization: str) -> UserInfo:
        """Return the user of an Authorization header; raise the 401 if there is none."""
        scheme, _, token = authorization.partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise InvalidToken(scheme)
            return self.tokens.authenticate(token.strip()).user
        except InvalidToken:
            raise Refusal(401, "Unauthorized", "Unauthorized") from None

    def is_token(self, text: str) -> bool:
        """Return whether a string is a valid token."""
        try:
            self.tokens.authenticate(text)
        except InvalidToken:
            return False
        return True

    def decide(self, user: UserInfo, asked: Attributes) -> AccessDecision:
        """Return whether a user may make a request."""
        return AccessDecision(allowed=True) if self.roles is None else self.roles.decide(user, asked)

    def _require(self, user: UserInfo, asked: Attributes) -> None:
        decision = self.decide(user, asked)
        if not decision.allowed:
            raise users.denied(user, asked, decision.reason)

    def _impersonate(self, user: UserInfo, wanted: UserInfo, asked: Attributes) -> UserInfo:
        """Return the impersonated user if any of the modes of impersonation that exist for it is allowed."""
        account = users.split_account(wanted.name)
        fixed = users.account_groups(account[0]) if account is not None else ()
        refusals: list[Refusal] = []
        for mode in _modes(wanted):
            try:
                if mode:
                    self._require(user, replace(asked, verb=f"impersonate-on:{mode}:{asked.verb}"))
                for each in _impersonations(wanted, mode):
                    self._require(user, each)
            except Refusal as refusal:
                refusals.append(refusal)
            else:
                return users.with_groups(wanted, ("system:nodes",) if mode == "arbitrary-node" else fixed)
        raise refusals[0]


def _modes(wanted: UserInfo) -> Iterator[str]:
    """Yield the modes in which a user can be impersonated; the last one, without a name, is the unconstrained one."""
    alone = wanted == UserInfo(wanted.name)
    if wanted.name.startswith(_NODE) or users.split_account(wanted.name) is not None:
        if alone:
            yield "arbitrary-node" if wanted.name.startswith(_NODE) else "serviceaccount"
    elif MASTERS not in wanted.groups:
        yield "user-info"
    yield ""


def _impersonations(wanted: UserInfo, mode: str) -> Iterator[Attributes]:
    """Yield what must be allowed to impersonate a user: each part of it."""
    verb, group = f"impersonate:{mode}" if mode else "impersonate", _AUTHENTICATION if mode else ""
    account = users.split_account(wanted.name)
    if account is not None:
        yield Attributes(verb, group=group, resource="serviceaccounts", namespace=account[0], name=account[1])
    elif mode == "arbitrary-node":
        yield Attributes(verb, group=group, resource="nodes", name=wanted.name.removeprefix(_NODE))
    else:
        yield Attributes(verb, group=group, resource="users", name=wanted.name)
    if wanted.uid:
        yield Attributes(verb, group=_AUTHENTICATION, resource="uids", name=wanted.uid)
    for each in wanted.groups:
        yield Attributes(verb, group=group, resource="groups", name=each)
    for key, values in wanted.extra.items():
        for value in values:
            yield Attributes(verb, group=_AUTHENTICATION, resource="userextras", subresource=key, name=value)
