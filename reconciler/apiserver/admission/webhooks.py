"""The configured webhooks: which writes they match, and their calls in the same process or over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from reconciler.apiserver.admission.matching import configured, endpoint_for
from reconciler.apiserver.cel.conditions import Condition, match_conditions, outcome_of
from reconciler.apiserver.encoding.refusals import aggregate, forbidden
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.requests.webhooks import WebhookAddress, post_to_webhook, webhook_address
from reconciler.apiserver.storage.registry import Endpoint, Registry
from reconciler.apiserver.verbs.write import Admitted
from reconciler.clock import Clock
from reconciler.errors import ReconcilerError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.wire import JSONObject

__all__ = ["CallFailed", "Webhook", "WebhookCaller", "read_webhooks"]


@dataclass(frozen=True)
class Webhook:
    """One webhook of a configuration.

    Attributes:
        document: its entry in the configuration, with defaults.
        mutating: whether it may change objects.
    """

    document: JSONObject
    mutating: bool

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.document["name"])

    @property
    def ignores_failures(self) -> bool:
        """Return whether a write goes on if the webhook cannot be called."""
        return bool(self.document.get("failurePolicy") == "Ignore")

    @cached_property
    def _conditions(self) -> list[Condition]:
        return match_conditions(self.document)

    def endpoint_for(self, write: Admitted) -> Endpoint | None:
        """Return the kind in the version that a rule names, or None if no rule matches the write."""
        return endpoint_for(self.document.get("rules"), self.document.get("matchPolicy"), write)

    def meets_conditions(self, write: Admitted, request: JSONObject) -> bool:
        """Return whether all match conditions are true; the request has the object in the version of the rule.

        Raises:
            Refusal: 403, a condition cannot be evaluated, and the failure policy is ``Fail``.
        """
        documents = {"request": request, "object": request.get("object"), "oldObject": request.get("oldObject")}
        met, problems = outcome_of(self._conditions, documents)
        if problems and not self.ignores_failures:
            info = write.call.endpoint.info
            raise forbidden(info.plural, info.group, write.name, aggregate(problems))
        return met and not problems


def read_webhooks(registry: Registry, *, mutating: bool) -> Iterator[Webhook]:
    """Yield the mutating or the validating webhooks: by the name of their configuration, then as listed."""
    plural = "mutatingwebhookconfigurations" if mutating else "validatingwebhookconfigurations"
    for _, configuration in configured(registry, plural):
        for document in configuration.get("webhooks") or ():
            yield Webhook(document, mutating)


class CallFailed(Exception):
    """A webhook could not be called; the message says why, in the words of the real server."""

    def __str__(self) -> str:
        return f"failed to call webhook: {super().__str__()}"


@dataclass(frozen=True, slots=True)
class WebhookCaller:
    """A caller of webhooks.

    Attributes:
        clock: under virtual time, only webhooks in the same process can be called.
        in_process: the webhook servers in the same process, by the origin of their URL (``https://host:port``) or by
            ``namespace/name`` of their Service.
    """

    clock: Clock
    in_process: Mapping[str, Transport]

    async def call(self, webhook: Webhook, body: bytes) -> bytes:
        """Return the body of a webhook's response; raise `CallFailed` if there is none, or its status is not 200."""
        client = webhook.document["clientConfig"]
        timeout = webhook.document.get("timeoutSeconds") or 10
        address = webhook_address(client)
        try:
            async with asyncio.timeout(timeout):
                response = await self._post(client, address, address.request(body, timeout))
        except TimeoutError:
            problem = "context deadline exceeded"
        except (OSError, ReconcilerError) as error:
            problem = str(error)
        else:
            if response.status == 200:
                return response.body
            text = response.body[:1024].decode(errors="replace").strip()
            raise CallFailed(f"the server responded with status {response.status}: {quoted(text)}")
        raise CallFailed(address.failure(timeout, problem))

    async def _post(self, client: JSONObject, address: WebhookAddress, request: HTTPRequest) -> HTTPResponse:
        transport = self.in_process.get(address.origin)
        if transport is not None:
            return await transport.send(request)
        if address.service:
            raise OSError(f'service "{address.service}" not found')
        if getattr(self.clock, "virtual", False):
            raise CallFailed(f"{address.origin} cannot be called under virtual time: use connect_webhooks()")
        return await post_to_webhook(address.url, request, client)
