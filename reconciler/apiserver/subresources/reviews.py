"""Reviews: who a client is, and what it may do.

A review is answered and never stored. ``kubectl auth can-i`` and programs that check their permissions send them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.apiserver.access.attributes import Attributes
from reconciler.apiserver.access.control import AccessControl
from reconciler.apiserver.access.tokens import InvalidToken
from reconciler.apiserver.access.users import User
from reconciler.apiserver.builtin.rules.table import violations
from reconciler.apiserver.encoding.refusals import bad_request, invalid
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.requests.unstored_kinds import read_unstored_object
from reconciler.apiserver.verbs.write import WriteResult
from reconciler.wire import JSONObject

__all__ = ["Reviews"]

_EVERYTHING = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}
_RESOURCE_RULE = ("verbs", "apiGroups", "resources", "resourceNames")


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
            raise bad_request("token is required for TokenReview in authentication")
        placed = {**document, "metadata": {"namespace": namespace}}
        if found := violations(f"{group.partition('.')[0]}.v1.{kind}", placed, None):
            raise invalid("", group, "", found)
        answer: JSONObject = {"kind": kind, "apiVersion": f"{group}/v1"}
        if kind == "SelfSubjectReview":
            return {**answer, "metadata": {"creationTimestamp": self.now()}, "status": {"userInfo": user.info()}}
        answer |= {"metadata": {"namespace": namespace} if namespace else {}, "spec": spec}
        if kind == "SelfSubjectRulesReview":
            if not spec.get("namespace"):
                raise bad_request("no namespace on request")
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
