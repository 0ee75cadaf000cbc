"""Permissions that a write needs besides that for its verb: to create, to grant others, and to approve and sign."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.apiserver.access.control import RBAC, Roles, describe_missing, missing_rules
from reconciler.apiserver.access.users import MASTERS, Attributes, denied
from reconciler.apiserver.builtin.writes.strategies import CERTIFICATES
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.verbs.admitted import Admitted
from reconciler.wire import JSONObject

__all__ = ["check_permissions", "needs_permissions"]

_EVERYTHING = ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]})
_FOR_GARBAGE_COLLECTION = ("finalizers", "managedFields", "ownerReferences")


def needs_permissions(write: Admitted) -> bool:
    """Return whether writes of a kind may need permissions of their own."""
    return write.call.endpoint.info.group in (RBAC, CERTIFICATES) or _creates_by_update(write)


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
            raise denied(call.user, asked, decision.reason)
    if info.group == RBAC:
        _check_escalation(write, write.doc, roles)
    elif info.group == CERTIFICATES:
        _check_signer(write, write.doc, write.before or {}, roles)


def _check_signer(write: Admitted, doc: JSONObject, before: JSONObject, roles: Roles) -> None:
    """Return if the user of a write may approve or sign a request for a certificate, if that is what it does."""
    call, signer = write.call, str((before.get("spec") or {}).get("signerName") or "")
    verb = {"approval": "approve", "status": "sign"}.get(call.subresource, "")
    if not verb or (verb == "sign" and _outcome(doc) == _outcome(before)):
        return
    for name in (signer, f"{signer.partition('/')[0]}/*"):
        if roles.decide(call.user, Attributes(verb, "", CERTIFICATES, "signers", "", "", name)).allowed:
            return
    words = f"user not permitted to {verb} requests with signerName {quoted(signer)}"
    raise Refusal.forbidden(call.endpoint.info.plural, CERTIFICATES, write.name, words)


def _outcome(doc: JSONObject) -> tuple[object, object]:
    status = doc.get("status") or {}
    return status.get("certificate"), status.get("conditions")


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
        _require(write, roles, _EVERYTHING, words)


def _require(write: Admitted, roles: Roles, granted: Sequence[JSONObject], words: str = "") -> None:
    call = write.call
    held = roles.grants(call.user, call.namespace or "")
    missing = missing_rules([rule for _, rule in held.rules], granted)
    if not missing:
        return
    if not words:
        who = f"user {quoted(call.user.name)} (groups=[{' '.join(map(quoted, call.user.groups))}])"
        words = f"{who} is attempting to grant RBAC permissions not currently held:\n{describe_missing(missing)}"
        if held.problems:
            words += f"; resolution errors: [{' '.join(held.problems)}]"
    raise Refusal.forbidden(call.endpoint.info.plural, RBAC, write.name, words)


def _only_for_garbage_collection(doc: JSONObject, before: JSONObject | None) -> bool:
    """Return whether a write changes only what the garbage collector needs to delete an object."""
    if before is None:
        return False

    def rest(document: JSONObject) -> JSONObject:
        kept = {key: value for key, value in document["metadata"].items() if key not in _FOR_GARBAGE_COLLECTION}
        return {**document, "metadata": kept}

    return rest(doc) == rest(before)
