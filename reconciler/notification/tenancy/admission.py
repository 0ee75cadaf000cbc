"""The validating webhook that refuses requests which a policy does not allow, when they are created."""

from __future__ import annotations

from reconciler.notification.api.types import NotificationRequest
from reconciler.notification.routing.router import Router, attributes_of
from reconciler.notification.tenancy.policies import PolicyTable
from reconciler.webhook import AdmissionRequest, Denied, Validator

__all__ = ["PolicyValidator"]


class PolicyValidator(Validator[NotificationRequest]):
    """A validating webhook for new NotificationRequests.

    It checks channels, recipients and priority. Quotas are left to the operator, which alone counts requests. If the
    policies are not listed yet, it allows the request: the operator checks again.

    Args:
        router: resolves requests that name no channels. Default: their channels are not checked here.
    """

    operations = ("CREATE",)

    def __init__(self, policies: PolicyTable, router: Router | None = None) -> None:
        super().__init__()
        self._policies = policies
        self._router = router

    def validate_create(self, obj: NotificationRequest, request: AdmissionRequest, /) -> None:
        """Refuse a request that a policy does not allow.

        Raises:
            Denied: with the policy's name.
        """
        channels: tuple[str, ...] = tuple(obj.spec.channels or ())
        if not channels and self._router is not None:
            channels = self._router.resolve(attributes_of(obj)).channels
        refusal = self._policies.refusal(request.namespace or obj.namespace or "", obj.spec, channels)
        if refusal is not None:
            raise Denied(refusal.message)
