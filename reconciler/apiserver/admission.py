"""Admission of writes: the permissions that some fields need, then webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.access import RBAC, Roles, describe_missing, missing_rules
from reconciler.apiserver.cluster import APIResource, ClusterStorage, Endpoint
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.store import Stored
from reconciler.apiserver.users import MASTERS, Attributes, denied
from reconciler.apiserver.verbs.decoding import decode_patched
from reconciler.apiserver.verbs.patches import PatchFailed, json_patch
from reconciler.apiserver.verbs.write_rules import Admitted, same_json
from reconciler.apiserver.webhooks import (
    GROUP,
    CallFailed,
    Webhook,
    WebhookCaller,
    denial,
    read_webhooks,
    review_request,
    selected,
)

_EVERYTHING = ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]})
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
            raise denied(call.user, asked, decision.reason)
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


class ConfiguredAdmission:
    """Admission by the webhooks that are configured in a cluster; the `AdmissionControl` of a server.

    Attributes:
        active: whether anything was ever configured, or roles limit what users may do.
    """

    def __init__(self, cluster: ClusterStorage, caller: WebhookCaller, roles: Roles | None = None) -> None:
        self._caller = caller
        self._roles = roles
        self._cluster = cluster
        self._mutating: list[Webhook] = []
        self._validating: list[Webhook] = []
        self.active = roles is not None
        cluster.commit_hooks.append(self.committed)

    def committed(self, resource: APIResource, _old: Stored | None, _new: Stored | None) -> None:
        """Read the configurations again if one has changed; a commit hook."""
        if resource.info.group == GROUP:
            self.active, registry = True, self._cluster.registry
            self._mutating = list(read_webhooks(registry, mutating=True))
            self._validating = list(read_webhooks(registry, mutating=False))

    def applies(self, write: Admitted) -> bool:
        """Return whether rules of any webhook match a write, or it may need permissions of its own."""
        if self._roles is not None and needs_permissions(write):
            return True
        return any(each.endpoint_for(write) is not None for each in (*self._mutating, *self._validating))

    async def mutate(self, write: Admitted) -> JSONObject | None:
        """Return the object of a write as the mutating webhooks leave it; they are called one after the other.

        A webhook with the reinvocation policy ``IfNeeded`` is called once more if one after it changed the object.

        Raises:
            Refusal: a webhook denies the write, or cannot be called.
        """
        called: list[Webhook] = []
        again: list[Webhook] = []
        for webhook in self._mutating:
            changed = await self._mutate(write, webhook)
            if changed is not None:
                write, again = replace(write, doc=changed), [*called]
            if webhook.document.get("reinvocationPolicy") == "IfNeeded":
                called.append(webhook)
        for webhook in again:
            changed = await self._mutate(write, webhook)
            if changed is not None:
                write = replace(write, doc=changed)
        return write.doc

    async def _mutate(self, write: Admitted, webhook: Webhook) -> JSONObject | None:
        """Return the changed object, or None if the webhook was not called or changed nothing."""
        found = self._request(write, webhook)
        if found is None:
            return None
        endpoint, request = found
        patch = await self._review(write, webhook, request)
        if not patch:
            return None
        if write.doc is None:
            why = "attempted to modify the object, which is not supported for this operation"
            raise Refusal.failed(f"admission webhook {quoted(webhook.name)} {why}")
        return self._patched(write, endpoint, request["object"], patch)

    @staticmethod
    def _patched(write: Admitted, endpoint: Endpoint, shown: JSONObject, patch: list[Any]) -> JSONObject | None:
        """Return the object of a write with the patch of a webhook; None if it is the same."""
        asked = write.call.endpoint
        try:
            patched = json_patch(shown, patch)
        except PatchFailed as error:
            raise Refusal.failed(str(error)) from None
        if not isinstance(patched, dict):
            raise Refusal.failed("the patch leaves no object")
        if write.call.subresource == "scale":
            if (patched.get("apiVersion"), patched.get("kind")) != ("autoscaling/v1", "Scale"):
                raise Refusal.failed("the patch leaves no Scale")
            return None if same_json(patched, shown) else patched
        if endpoint is not asked:
            patched = asked.to_served(endpoint.to_storage(patched))
        # Values that a webhook adds are checked and completed like those of a client; unknown fields are dropped.
        call = replace(write.call, query={**write.call.query, "fieldValidation": "Ignore"}, warnings=[], duplicates=[])
        try:
            doc, _ = decode_patched(call, patched, write.before)
        except Refusal as refusal:
            raise Refusal.failed(refusal.message) from None
        return None if write.doc is not None and same_json(doc, write.doc) else doc

    async def validate(self, write: Admitted) -> None:
        """Ask the validating webhooks, all at the same time.

        Raises:
            Refusal: a webhook denies the write, or cannot be called. Of several denials the first counts, in the order
                of the configurations.
        """
        if self._roles is not None and needs_permissions(write):
            check_permissions(write, self._roles)
        found = [(each, self._request(write, each)) for each in self._validating]
        reviews = [self._review(write, each, request[1]) for each, request in found if request is not None]
        outcomes = await asyncio.gather(*reviews, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _request(self, write: Admitted, webhook: Webhook) -> tuple[Endpoint, JSONObject] | None:
        """Return the version and the request of a review; None if the webhook is not to be called."""
        endpoint = webhook.endpoint_for(write)
        if endpoint is None or not selected(webhook.document, write, self._cluster.registry):
            return None
        request = review_request(write, endpoint, self._cluster.random_uid())
        return (endpoint, request) if webhook.meets_conditions(write, request) else None

    async def _review(self, write: Admitted, webhook: Webhook, request: JSONObject) -> list[Any]:
        """Return the patch of a webhook; an empty one if it could not be called and failures are ignored."""
        if write.dry_run and webhook.document.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise Refusal.bad_request(f"admission webhook {quoted(webhook.name)} does not support dry run")
        try:
            response, patch = await self._caller.call(webhook, request)
        except CallFailed as error:
            if webhook.ignores_failures:
                return []
            raise Refusal.failed(f"failed calling webhook {quoted(webhook.name)}: {error}") from None
        write.call.warnings += response.warnings or ()
        if not response.allowed:
            raise denial(webhook.name, response)
        return patch
