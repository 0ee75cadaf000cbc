"""Documents that are never stored: reviews, tokens, evictions and bindings of pods, and the Scales of objects.

``kubectl auth can-i`` and programs that check their permissions send reviews.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from reconciler._core.wire import JSONObject, ManagedFieldsEntry
from reconciler.apiserver.access import EVERYTHING, AccessControl
from reconciler.apiserver.builtin.checks import selects
from reconciler.apiserver.builtin.decoding import BuiltInContents
from reconciler.apiserver.builtin.kinds import KindInfo, type_node
from reconciler.apiserver.builtin.rule_table import violations
from reconciler.apiserver.cluster import ClusterStorage, Endpoint, timestamp
from reconciler.apiserver.encoding.json_documents import condition_of, value_at, with_condition
from reconciler.apiserver.encoding.refusals import FieldError, Refusal, not_registered
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.managed_fields import FieldSet, ManagerKey, difference, intersection, manager_of, sort_entries
from reconciler.apiserver.store import Stored
from reconciler.apiserver.users import ISSUER, Attributes, InvalidToken, UserInfo
from reconciler.apiserver.verbs import decoding, write_rules
from reconciler.apiserver.verbs.apply import managed_fields_of
from reconciler.apiserver.verbs.delete import Deleter, check_preconditions
from reconciler.apiserver.verbs.patches import apply_patch
from reconciler.apiserver.verbs.routing import ACTIONS, Call
from reconciler.apiserver.verbs.write import Writer
from reconciler.apiserver.verbs.write_rules import Admitted, WriteResult, check_namespace, uid_conflict

_RESOURCE_RULE = ("verbs", "apiGroups", "resources", "resourceNames")
_KIND, _GROUP = "TokenRequest", "authentication.k8s.io"
_DEFAULT_SECONDS = 3600
_DONE = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
_FORBIDDEN = "Cannot evict pod as it would violate the pod's disruption budget."
_MANY = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


@dataclass(frozen=True, slots=True)
class UnstoredDocuments:
    """Answers reviews, issues tokens, and evicts and binds pods; it raises a `Refusal` as the real server."""

    cluster: ClusterStorage
    access: AccessControl
    deleter: Deleter

    def create(self, call: Call) -> WriteResult:
        """Answer, or act on, a document."""
        if not call.subresource:
            return WriteResult(201, document=self._answer(call))
        kind = ACTIONS[call.subresource]
        decoding.check_write_options(call)
        document = decoding.read_unstored_object(call.request, kind)
        metadata = document.get("metadata") or {}
        check_namespace(call, metadata)
        if kind == _KIND:
            return WriteResult(201, document=self._issue(call, document, metadata))
        call.name = call.name or str(metadata.get("name") or "")
        if metadata.get("name", "") != call.name:
            raise Refusal.bad_request(f"name in URL does not match name in {kind} object")
        act = self._bind if kind == "Binding" else self._evict
        return act(call, document)

    # reviews

    def _answer(self, call: Call) -> JSONObject:
        info, user, namespace = call.endpoint.info, call.user, call.namespace
        group, kind = info.group, info.kind
        document = decoding.read_unstored_object(call.request, kind)
        spec = document.get("spec") or {}
        if kind == "TokenReview" and not spec.get("token"):
            raise Refusal.bad_request("token is required for TokenReview in authentication")
        placed = {**document, "metadata": {"namespace": namespace}}
        if found := violations(f"{group.partition('.')[0]}.v1.{kind}", placed, None):
            raise Refusal.invalid("", group, "", found)
        answer: JSONObject = {"kind": kind, "apiVersion": f"{group}/v1"}
        if kind == "SelfSubjectReview":
            created = {"creationTimestamp": self.cluster.now()}
            return {**answer, "metadata": created, "status": {"userInfo": user.info()}}
        answer |= {"metadata": {"namespace": namespace} if namespace else {}, "spec": spec}
        if kind == "SelfSubjectRulesReview":
            if not spec.get("namespace"):
                raise Refusal.bad_request("no namespace on request")
            return {**answer, "spec": {}, "status": self._rules(user, spec["namespace"])}
        if kind == "TokenReview":
            return {**answer, "status": self._token(spec["token"], spec.get("audiences") or ())}
        if not kind.startswith("Self"):
            user = UserInfo(spec.get("user") or "", tuple(spec.get("groups") or ()))
        allowed, reason = self.access.decide(user, _attributes(spec))
        return {**answer, "status": {"allowed": allowed, **({"reason": reason} if reason else {})}}

    def _rules(self, user: UserInfo, namespace: str) -> JSONObject:
        roles = self.access.roles
        rules = EVERYTHING if roles is None else [rule for _, rule in roles.grants(user, namespace).rules]
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

    def _issue(self, call: Call, document: JSONObject, metadata: JSONObject) -> JSONObject:
        """Return the TokenRequest with a token for a service account."""
        spec = document.get("spec") or {}
        if metadata.get("name") not in (None, "", call.name):
            words = "must match the service account name if specified"
            error = FieldError.invalid("metadata.name", metadata["name"], words)
            raise Refusal.invalid(_KIND, _GROUP, call.name, [error])
        account = call.existing()
        if metadata.get("uid") not in (None, "", account.uid):
            asked, known = f"in the token request ({metadata['uid']})", f"of the service account ({account.uid})"
            raise Refusal.conflict(_KIND, _GROUP, call.name, f"the UID {asked} does not match the UID {known}")
        seconds = spec.get("expirationSeconds")
        seconds = _DEFAULT_SECONDS if seconds is None else seconds
        if found := violations("authentication.v1.TokenRequest", document, None):
            raise Refusal.invalid(_KIND, _GROUP, "", found)
        if spec.get("boundObjectRef"):
            raise Refusal.bad_request("the embedded API server binds no tokens to objects: leave out boundObjectRef")
        audiences = spec.get("audiences") or [ISSUER]
        token = self.access.tokens.issue(account, audiences, seconds)
        now = self.cluster.clock.now()
        identity = {"name": call.name, "namespace": call.namespace, "uid": account.uid}
        return {
            "kind": _KIND,
            "apiVersion": f"{_GROUP}/v1",
            "metadata": {**metadata, **identity, "creationTimestamp": timestamp(now)},
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": None},
            "status": {"token": token, "expirationTimestamp": timestamp(now + timedelta(seconds=seconds))},
        }

    # evictions

    def _evict(self, call: Call, document: JSONObject) -> WriteResult:
        options = document.get("deleteOptions") or {}
        call.dry_run = call.dry_run or bool(options.get("dryRun"))
        pod = call.existing()
        if not _ignores_budgets(pod.doc):
            self._take_from_budget(call, pod)
        check_preconditions(call, pod, options.get("preconditions") or {})
        evicted = pod if call.dry_run else self._set_condition(call, pod, pod.doc, recorded("texts.json")["evicted"])
        gone = self.deleter.delete_stored(call.endpoint.resource, evicted, options, dry_run=call.dry_run)
        return WriteResult(201, document=_DONE, before=pod, after=gone.after)

    def _set_condition(self, call: Call, pod: Stored, doc: JSONObject, condition: JSONObject) -> Stored:
        """Store a pod with a condition."""
        status, probed = doc.get("status") or {}, {**condition, "lastProbeTime": None}
        conditions = with_condition(status.get("conditions"), probed, self.cluster.now())
        changed = {**doc, "metadata": dict(doc["metadata"]), "status": {**status, "conditions": conditions}}
        return pod if changed == pod.doc else self.cluster.put(call.endpoint.resource, pod.key, changed)

    def _take_from_budget(self, call: Call, pod: Stored) -> None:
        """Take a disruption from the PodDisruptionBudget that selects a pod, if there is one."""
        budgets = self.cluster.registry.built_in("poddisruptionbudgets", "policy")
        labels = pod.doc["metadata"].get("labels") or {}
        stored = [budgets.store.objects[key] for key in budgets.store.keys(call.namespace)]
        selectors = [(each, value_at(each.doc, "spec.selector")) for each in stored]
        guarding = [each for each, found in selectors if found == {} or selects(found or {}, labels)]
        if len(guarding) > 1:
            raise Refusal(500, "", _MANY)
        if not guarding or _is_unhealthy_and_evictable(pod.doc, guarding[0].doc):
            return
        [budget] = guarding
        status = _after_disruption(budget, call.name, self.cluster.now())
        if not call.dry_run:
            changed = {**budget.doc, "metadata": dict(budget.doc["metadata"]), "status": status}
            self.cluster.put(budgets, budget.key, changed)

    # bindings

    def _bind(self, call: Call, document: JSONObject) -> WriteResult:
        target, metadata = document.get("target") or {}, document.get("metadata") or {}
        if target.get("kind") not in (None, "", "Node"):
            known = 'supported values: "Node", "<empty>"'
            raise Refusal(500, "", f'target.kind: Unsupported value: "{target["kind"]}": {known}')
        if not target.get("name"):
            raise Refusal(500, "", "target.name: Required value")
        pod = call.existing()
        if metadata.get("uid") not in (None, "", pod.uid):
            raise uid_conflict(call, metadata["uid"], pod.uid)
        spec = pod.doc.get("spec") or {}
        if problem := _binding_problem(pod.doc, spec, call.name):
            raise Refusal.conflict("pods/binding", "", call.name, problem)
        if call.dry_run:
            return WriteResult(201, document=_DONE, before=pod, after=pod)
        kept = dict(pod.doc["metadata"])
        for key in ("annotations", "labels"):
            if metadata.get(key):
                kept[key] = {**(kept.get(key) or {}), **metadata[key]}
        doc = {**pod.doc, "metadata": kept, "spec": {**spec, "nodeName": target["name"]}}
        bound = self._set_condition(call, pod, doc, {"type": "PodScheduled", "status": "True"})
        return WriteResult(201, document=_DONE, before=pod, after=bound)


def _attributes(spec: JSONObject) -> Attributes:
    asked = spec.get("resourceAttributes")
    if asked is None:
        asked = spec["nonResourceAttributes"]
        return Attributes(asked.get("verb") or "", asked.get("path") or "")
    members = ("group", "resource", "subresource", "namespace", "name")
    return Attributes(asked.get("verb") or "", "", *(asked.get(member) or "" for member in members))


def _ignores_budgets(pod: JSONObject) -> bool:
    """Return whether a pod may be evicted without asking budgets: it is pending, finished, or being deleted."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Failed", "Pending", "Succeeded") or bool(pod["metadata"].get("deletionTimestamp"))


def _is_unhealthy_and_evictable(pod: JSONObject, budget: JSONObject) -> bool:
    """Return whether a pod that is not ready may be evicted without taking from a budget."""
    if condition_of(pod, "Ready").get("status") == "True":
        return False
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    wanted = status.get("desiredHealthy") or 0
    return wanted > 0 and (status.get("currentHealthy") or 0) >= wanted


def _after_disruption(budget: Stored, pod: str, now: str) -> JSONObject:
    name, status = budget.doc["metadata"]["name"], budget.doc.get("status") or {}
    left, disrupted = status.get("disruptionsAllowed") or 0, status.get("disruptedPods") or {}
    if (status.get("observedGeneration") or 0) < (budget.doc["metadata"].get("generation") or 0):
        raise _too_many(f"The disruption budget {name} is still being processed by the server.", retry_after=10)
    if left <= 0:
        raise _too_many(_no_disruptions_message(name, status))
    changed = {**status, "disruptionsAllowed": left - 1, "disruptedPods": {**disrupted, pod: now}}
    if left == 1:
        observed = status.get("observedGeneration") or 0
        condition = {**recorded("texts.json")["no disruption"], "observedGeneration": observed}
        changed["conditions"] = with_condition(status.get("conditions"), condition, now)
    return changed


def _no_disruptions_message(name: str, status: JSONObject) -> str:
    condition = condition_of({"status": status}, "DisruptionAllowed")
    said = condition.get("message") if condition.get("status") == "False" else ""
    allows_none = f"The disruption budget {name} does not allow evicting pods currently"
    if said and condition.get("reason") == "SyncFailed":
        return f"{allows_none} because it failed sync: {said}"
    healthy, wanted = status.get("currentHealthy") or 0, status.get("desiredHealthy") or 0
    if healthy <= wanted:
        return f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"
    return f"{allows_none} ({condition.get('reason')}): {said}" if said else allows_none


def _too_many(why: str, retry_after: int = 0) -> Refusal:
    later = {"retryAfterSeconds": retry_after} if retry_after else {}
    details = {"causes": [{"reason": "DisruptionBudget", "message": why}], **later}
    return Refusal(429, "TooManyRequests", _FORBIDDEN, details=details)


def _binding_problem(pod: JSONObject, spec: JSONObject, name: str) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return f"pod {name} is being deleted, cannot be assigned to a host"
    if spec.get("nodeName"):
        return f'pod {name} is already assigned to node "{spec["nodeName"]}"'
    return f"pod {name} has non-empty .spec.schedulingGates" if spec.get("schedulingGates") else ""


_VERSION = "autoscaling/v1"
_TYPE = {"apiVersion": _VERSION, "kind": "Scale"}

_UNKNOWN = 'no kind is registered for the type v1.Scale in scheme "pkg/runtime/scheme.go:111"'
"""The error for a Scale of a custom kind that cannot be decoded."""

_UNSET_REPLICAS = -(2**31)
"""The replicas that a patch sees if a custom object has none, as on the real server."""
_CONTENTS = BuiltInContents(type_node("autoscaling.v1.Scale"))


def _put(doc: JSONObject, parts: list[str], value: Any) -> JSONObject:
    inner = doc.get(parts[0])
    if len(parts) > 1:
        value = _put(inner if isinstance(inner, dict) else {}, parts[1:], value)
    return {**doc, parts[0]: value}


def scale_of(endpoint: Endpoint, stored: Stored) -> JSONObject:
    """Return the Scale of a stored object."""
    assert endpoint.scale is not None  # noqa: S101 - routed by its subresources
    doc, paths = stored.doc, endpoint.scale
    shown = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    metadata = {key: doc["metadata"][key] for key in shown if key in doc["metadata"]}
    status: JSONObject = {"replicas": value_at(doc, paths.status) or 0}
    selector = value_at(doc, paths.selector) if paths.selector else _selector(doc)
    if selector:
        status["selector"] = selector
    replicas = value_at(doc, paths.spec)
    spec = {} if not replicas else {"replicas": replicas}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def read_scale(endpoint: Endpoint, stored: Stored) -> JSONObject:
    """Return the Scale of a stored object for a get; raise the 500 for a custom object without replicas."""
    if endpoint.resource.custom and endpoint.scale and value_at(stored.doc, endpoint.scale.spec) is None:
        raise Refusal.failed(f'the spec replicas field "{endpoint.scale.spec}" does not exist')
    return scale_of(endpoint, stored)


def _selector(doc: JSONObject) -> str:
    selector = (doc.get("spec") or {}).get("selector") or {}
    labels = selector.get("matchLabels", selector if "matchExpressions" not in selector else {})
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()) if isinstance(value, str))


async def write_scale(writer: Writer, call: Call) -> WriteResult:
    """Update or patch a Scale."""
    endpoint = call.endpoint
    assert endpoint.scale is not None  # noqa: S101 - as above
    if call.verb == "patch":
        decoding.patch_type(call)
    decoding.check_write_options(call)
    asked = _call_of_scale(call)
    sent = _read_update(call, asked) if call.verb == "update" else None
    old = call.existing()
    current = scale_of(endpoint, old)
    path, custom = endpoint.scale.spec, endpoint.resource.custom
    if custom and value_at(old.doc, path) is None:
        current["spec"]["replicas"] = _UNSET_REPLICAS
    scale = sent or _patched(asked, current)
    call.warnings = asked.warnings
    _check_object(call, scale["metadata"], old)
    admitted = writer.if_applies(Admitted(call, "UPDATE", call.name, scale, current))
    if admitted is not None:
        scale = await writer.mutate(admitted)
        writer.check_current(call, old)
        scale = decoding.decode_patched(asked, scale, None)
        admitted = replace(admitted, doc=scale)
    replicas = value_at(scale, "spec.replicas", 0)
    if replicas == _UNSET_REPLICAS and custom:
        raise Refusal.bad_request(f'the spec replicas field "{path}" cannot be empty')
    if replicas < 0 and not custom:
        error = FieldError.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise Refusal.invalid("Scale", "autoscaling", call.name, [error])
    doc = _put(endpoint.to_served(old.doc), path.lstrip(".").split("."), replicas)
    version = scale["metadata"].get("resourceVersion") or str(old.rv)
    doc["metadata"] = {**doc["metadata"], "resourceVersion": version}
    before = current["spec"].get("replicas", 0)
    entries = _managed_fields_after(call, managed_fields_of(old), before, replicas)
    written = await writer.change(call, old, doc, entries=entries, scale=admitted)
    if written.stored is not None:
        written.document, written.stored = scale_of(endpoint, written.stored), None
    return written


def scale_endpoint(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint of the Scales of a kind: they are read, patched, decoded and shown as objects of any kind."""
    info = KindInfo("autoscaling", "scale", "Scale", endpoint.info.namespaced)
    resource = replace(endpoint.resource, info=info, storage="v1", custom=False, convert=None)
    return Endpoint(resource, "v1", contents=_CONTENTS)


def _call_of_scale(call: Call) -> Call:
    request = call.request
    if decoding.media_type(request) == decoding.APPLY_PATCH:
        request = replace(request, headers={**request.headers, "content-type": decoding.MERGE_PATCH})
    return replace(call, endpoint=scale_endpoint(call.endpoint), request=request)


def _read_update(call: Call, asked: Call) -> JSONObject:
    try:
        scale = decoding.read_document(asked)
    except Refusal as refusal:
        unknown = refusal.code == 400 and call.endpoint.resource.custom
        raise (Refusal.bad_request(_UNKNOWN) if unknown else refusal) from None
    write_rules.check_place(call, scale["metadata"])
    return scale


def _patched(asked: Call, current: JSONObject) -> JSONObject:
    kind = decoding.media_type(asked.request)
    found = apply_patch(asked, kind, current)
    if isinstance(found, dict) and kind == decoding.STRATEGIC_PATCH:
        found = {**found, **_TYPE}
    elif isinstance(found, dict) and {**found, **_TYPE} != found:
        version, name = str(found.get("apiVersion") or ""), str(found.get("kind") or "")
        raise decoding.decode_error(asked, found, not_registered(name, version))
    return decoding.decode_patched(asked, found, None)


def _check_object(call: Call, metadata: JSONObject, old: Stored) -> None:
    write_rules.check_place(call, metadata)
    info, uid = call.endpoint.info, metadata.get("uid")
    if not uid or uid == old.uid:
        return
    if call.verb == "update":
        raise write_rules.uid_conflict(call, uid, old.uid)
    if not call.endpoint.resource.custom:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.uid}"
        raise Refusal.conflict(f"{info.plural}/scale", info.group, call.name, why)


def _managed_fields_after(
    call: Call, known: list[ManagedFieldsEntry], before: int, after: int
) -> list[ManagedFieldsEntry]:
    """Return the ``managedFields`` of an object after a write to its Scale changed the replicas at a path.

    The real server moves the owners of the replicas to the Scale, updates them there, and moves them back. An owner
    that comes back gets an entry beside the one that it had; of two entries with one identity the last one counts.
    """
    versions = call.endpoint.resource.endpoints.values()
    replicas = {each.api_version: _field_set(each.scale.spec) if each.scale else {} for each in versions}
    entries = {ManagerKey.of(entry): entry for entry in known}
    owners = {
        ManagerKey(key.manager, key.operation, _VERSION, key.subresource)
        for key, entry in entries.items()
        if intersection(entry.get("fieldsV1") or {}, replicas.get(key.api_version, {}))
    }
    if owners and before != after:
        # A Scale leaves out zero replicas, so nobody owns them.
        owners = {ManagerKey(manager_of(call), "Update", _VERSION, "scale")} if after else set()
    found: list[ManagedFieldsEntry] = []
    for key, entry in entries.items():
        if key.api_version not in replicas:
            continue
        fields = replicas[key.api_version]
        if key in owners or not intersection(entry.get("fieldsV1") or {}, fields):
            owners.discard(key)
            found.append(entry)
        elif rest := difference(entry["fieldsV1"], fields):
            found.append({**entry, "fieldsV1": rest})
    version = call.endpoint.api_version
    # The real server gives these entries no time.
    returned = (ManagerKey(key.manager, key.operation, version, key.subresource) for key in owners)
    return sort_entries([*found, *(key.entry(replicas[version], "") for key in returned)])


def _field_set(path: str) -> FieldSet:
    fields: FieldSet = {}
    for part in reversed(path.lstrip(".").split(".")):
        fields = {f"f:{part}": fields}
    return fields
