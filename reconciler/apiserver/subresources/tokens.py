"""The tokens of service accounts, requested through their subresource ``token``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from reconciler.apiserver.access.tokens import ISSUER, Tokens
from reconciler.apiserver.builtin.rules.table import violations
from reconciler.apiserver.encoding.refusals import FieldError, bad_request, conflict, invalid, not_found
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.requests.bodies import check_write_options
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.requests.unstored_kinds import read_unstored_object
from reconciler.apiserver.storage.cluster import Cluster, timestamp
from reconciler.apiserver.storage.store import Stored
from reconciler.apiserver.verbs.write import WriteResult
from reconciler.apiserver.verbs.write_rules import check_namespace
from reconciler.wire import JSONObject

__all__ = ["TokenRequests"]

_KIND, _GROUP = "TokenRequest", "authentication.k8s.io"
_DEFAULT_SECONDS = 3600


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
            raise invalid(_KIND, _GROUP, call.name, [FieldError.invalid("metadata.name", metadata["name"], words)])
        account = call.existing()
        if metadata.get("uid") not in (None, "", account.uid):
            words = f"does not match the UID of the service account ({account.uid})"
            raise conflict(_KIND, _GROUP, call.name, f"the UID in the token request ({metadata['uid']}) {words}")
        seconds = spec.get("expirationSeconds")
        seconds = _DEFAULT_SECONDS if seconds is None else seconds
        if found := violations("authentication.v1.TokenRequest", document, None):
            raise invalid(_KIND, _GROUP, "", found)
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
            raise bad_request(f"cannot bind token to object of type {shown}, Kind={kind}")
        found = self.cluster.registry.built_in(f"{kind.lower()}s").find(call.namespace, name)
        if found is None:
            raise not_found(f"{kind.lower()}s", "", name)
        if reference.get("uid") not in (None, "", found.uid):
            words = "does not match the UID in record. The object might have been deleted and then recreated"
            raise conflict(kind, "", name, f"the UID in the bound object reference ({reference['uid']}) {words}")
        bound = {kind.lower(): found}
        if kind == "Pod":
            spec = found.doc.get("spec") or {}
            if spec.get("serviceAccountName") != call.name:
                account = f"cannot bind token for serviceaccount {quoted(call.name)}"
                raise bad_request(f"{account} to pod running with different serviceaccount name.")
            node = self.cluster.registry.built_in("nodes").store.objects.get(spec.get("nodeName") or "")
            bound |= {} if node is None else {"node": node}
        return bound
