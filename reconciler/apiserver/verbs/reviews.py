"""Reviews, which tell who a client is and what it may do, and the subresource ``token`` of service accounts.

Both are answered and never stored. ``kubectl auth can-i`` and programs that check their permissions send them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from reconciler._core.wire import JSONObject
from reconciler.apiserver.access import AccessControl
from reconciler.apiserver.builtin.rule_table import violations
from reconciler.apiserver.encoding.refusals import FieldError, Refusal
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.requests.bodies import check_write_options
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.storage.cluster import Cluster, timestamp
from reconciler.apiserver.storage.store import Stored
from reconciler.apiserver.users import ISSUER, Attributes, InvalidToken, Tokens, User
from reconciler.apiserver.verbs.decoding import read_unstored_object
from reconciler.apiserver.verbs.write_rules import WriteResult, check_namespace

__all__ = [
    "Reviews",
    "TokenRequests",
]


_EVERYTHING = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}
_RESOURCE_RULE = ("verbs", "apiGroups", "resources", "resourceNames")
_KIND, _GROUP = "TokenRequest", "authentication.k8s.io"
_DEFAULT_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Reviews:
    """The implementation of reviews."""

    access: AccessControl
    now: Callable[[], str]

    def create(self, call: Call) -> WriteResult:
        """Answer a review."""
        return WriteResult(201, document=self._answer(call))

    def _answer(self, call: Call) -> JSONObject:
        info, user, namespace = call.endpoint.info, call.user, call.namespace
        group, kind = info.group, info.kind
        document = read_unstored_object(call.request, kind)
        spec = document.get("spec") or {}
        if kind == "TokenReview" and not spec.get("token"):
            raise Refusal.bad_request("token is required for TokenReview in authentication")
        placed = {**document, "metadata": {"namespace": namespace}}
        if found := violations(f"{group.partition('.')[0]}.v1.{kind}", placed, None):
            raise Refusal.invalid("", group, "", found)
        answer: JSONObject = {"kind": kind, "apiVersion": f"{group}/v1"}
        if kind == "SelfSubjectReview":
            return {**answer, "metadata": {"creationTimestamp": self.now()}, "status": {"userInfo": user.info()}}
        answer |= {"metadata": {"namespace": namespace} if namespace else {}, "spec": spec}
        if kind == "SelfSubjectRulesReview":
            if not spec.get("namespace"):
                raise Refusal.bad_request("no namespace on request")
            return {**answer, "spec": {}, "status": self._rules(user, spec["namespace"])}
        if kind == "TokenReview":
            return {**answer, "status": self._token(spec["token"], spec.get("audiences") or ())}
        if not kind.startswith("Self"):
            user = User(spec.get("user") or "", tuple(spec.get("groups") or ()))
        allowed, reason = self.access.decide(user, _attributes(spec))
        return {**answer, "status": {"allowed": allowed, **({"reason": reason} if reason else {})}}

    def _rules(self, user: User, namespace: str) -> JSONObject:
        if self.access.roles is None:
            return _EVERYTHING
        rules = [rule for _, rule in self.access.roles.grants(user, namespace).rules]
        return {
            "resourceRules": [
                {key: rule[key] for key in _RESOURCE_RULE if rule.get(key)} for rule in rules if rule.get("resources")
            ],
            "nonResourceRules": [
                {key: rule[key] for key in ("verbs", "nonResourceURLs")}
                for rule in rules
                if rule.get("nonResourceURLs")
            ],
            "incomplete": False,
        }

    def _token(self, token: str, audiences: Sequence[str]) -> JSONObject:
        try:
            user, met = self.access.tokens.authenticate(token, audiences)
        except InvalidToken as error:
            problem = "invalid bearer token"
            return {"user": {}, "error": f"[{problem}, {error}]" if str(error) else problem}
        return {"authenticated": True, "user": user.info(), "audiences": met}


def _attributes(spec: JSONObject) -> Attributes:
    asked = spec.get("resourceAttributes")
    if asked is None:
        asked = spec["nonResourceAttributes"]
        return Attributes(asked.get("verb") or "", asked.get("path") or "")
    members = ("group", "resource", "subresource", "namespace", "name")
    return Attributes(asked.get("verb") or "", "", *(asked.get(member) or "" for member in members))


@dataclass(frozen=True, slots=True)
class TokenRequests:
    """The implementation of ``serviceaccounts/NAME/token``."""

    cluster: Cluster
    tokens: Tokens

    def create(self, call: Call) -> WriteResult:
        """Issue a token."""
        check_write_options(call)
        document = read_unstored_object(call.request, _KIND)
        metadata, spec = document.get("metadata") or {}, document.get("spec") or {}
        check_namespace(call, metadata)
        if metadata.get("name") not in (None, "", call.name):
            words = "must match the service account name if specified"
            raise Refusal.invalid(
                _KIND, _GROUP, call.name, [FieldError.invalid("metadata.name", metadata["name"], words)]
            )
        account = call.existing()
        if metadata.get("uid") not in (None, "", account.uid):
            words = f"does not match the UID of the service account ({account.uid})"
            raise Refusal.conflict(
                _KIND, _GROUP, call.name, f"the UID in the token request ({metadata['uid']}) {words}"
            )
        seconds = spec.get("expirationSeconds")
        seconds = _DEFAULT_SECONDS if seconds is None else seconds
        if found := violations("authentication.v1.TokenRequest", document, None):
            raise Refusal.invalid(_KIND, _GROUP, "", found)
        bound = self._bound(call, spec.get("boundObjectRef"))
        audiences = spec.get("audiences") or [ISSUER]
        token = self.tokens.issue(account, audiences, seconds, bound)
        now = self.cluster.clock.now()
        known = {"name": call.name, "namespace": call.namespace, "uid": account.uid}
        answer = {
            "kind": _KIND,
            "apiVersion": f"{_GROUP}/v1",
            "metadata": {**metadata, **known, "creationTimestamp": timestamp(now)},
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef"),
            },
            "status": {"token": token, "expirationTimestamp": timestamp(now + timedelta(seconds=seconds))},
        }
        return WriteResult(201, document=answer)

    def _bound(self, call: Call, reference: JSONObject | None) -> dict[str, Stored]:
        """Return the objects that a token names besides its service account, by kind."""
        if reference is None:
            return {}
        version, kind, name = (str(reference.get(key) or "") for key in ("apiVersion", "kind", "name"))
        if version != "v1" or kind not in ("Pod", "Node", "Secret"):
            shown = version if "/" in version else f"/{version}"
            raise Refusal.bad_request(f"cannot bind token to object of type {shown}, Kind={kind}")
        found = self.cluster.registry.built_in(f"{kind.lower()}s").find(call.namespace, name)
        if found is None:
            raise Refusal.not_found(f"{kind.lower()}s", "", name)
        if reference.get("uid") not in (None, "", found.uid):
            words = "does not match the UID in record. The object might have been deleted and then recreated"
            raise Refusal.conflict(
                kind, "", name, f"the UID in the bound object reference ({reference['uid']}) {words}"
            )
        bound = {kind.lower(): found}
        if kind == "Pod":
            spec = found.doc.get("spec") or {}
            if spec.get("serviceAccountName") != call.name:
                account = f"cannot bind token for serviceaccount {quoted(call.name)}"
                raise Refusal.bad_request(f"{account} to pod running with different serviceaccount name.")
            node = self.cluster.registry.built_in("nodes").store.objects.get(spec.get("nodeName") or "")
            bound |= {} if node is None else {"node": node}
        return bound
