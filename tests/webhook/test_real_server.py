"""A real kube-apiserver calls the webhooks: denials, defaults, warnings and conversions take effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from reconciler import Client, Model, Resource
from reconciler.errors import APIError, Conflict, Forbidden, Invalid
from reconciler.objects import generate_crd
from reconciler.testing.control_plane import ControlPlane
from reconciler.webhook import Converter, Validator, WebhookServer, conversion_configuration, webhook_configurations
from tests import real_server
from tests.webhook.database import Database, Defaults, Rules, database, write_certificate
from tests.webhook.test_reviews import gigabytes, text
from tests.webhook.test_server import serving

pytestmark = pytest.mark.control_plane


class OldSpec(Model):
    size: str | None = None
    engine: str | None = None


class OldDatabase(Resource[OldSpec], group="webhook.example.com", version="v1alpha1", kind="Database", storage=False):
    """A database whose size is text."""


def multi_version(converter: Converter, url: str, ca: trustme.CA) -> dict[str, Any]:
    conversion = conversion_configuration(converter, url=url, ca_bundle=ca.cert_pem.bytes())
    return generate_crd(Database, OldDatabase, conversion=conversion)


async def refused(client: Client, obj: Any, verb: str = "create") -> APIError:
    with pytest.raises(APIError) as caught:
        await getattr(client, verb)(obj)
    return caught.value


class Creations(Validator[Database]):
    """The first webhook of the path: the API server must be told the operations of the others, too."""

    operations = ("CREATE",)


async def test_api_server_calls_the_webhooks_and_applies_their_verdicts(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    ca = trustme.CA()
    write_certificate(tmp_path, ca)
    converter = Converter("webhook.example.com", "Database", hub="v1")
    converter.add("v1alpha1", to_hub=gigabytes, from_hub=text)
    webhooks = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    for handler in (Creations(), Rules(), Defaults(), converter):
        webhooks.add(handler)
    async with serving(webhooks) as url, control_plane.client() as client:
        await real_server.install(client, control_plane, multi_version(converter, url, ca))
        documents = webhook_configurations(webhooks, name="webhook-test", url=url, ca_bundle=ca.cert_pem.bytes())
        for document in documents:
            await client.apply(document, force=True)
        try:
            await real_server.until(lambda: _calls_both(client))
            await _asked(client)
        finally:
            for document in documents:
                kind = f"{document['apiVersion']}/{document['kind']}"
                await client.delete(kind, "webhook-test")
            await client.delete("apiextensions.k8s.io/v1/CustomResourceDefinition", Database.crd()["metadata"]["name"])


async def _asked(client: Client) -> None:
    too_large = await refused(client, database("large", 51))
    assert isinstance(too_large, Invalid)
    assert "more than 50 GB needs an administrator" in too_large.message
    assert too_large.causes[0].field == "spec.size"
    assert [too_large.details[name] for name in ("name", "group", "kind")] == [
        "large",
        "webhook.example.com",
        "Database",
    ]
    created = await client.create(database("db1", 5))
    assert created.spec.engine == "postgres"
    assert created.metadata.labels == {"webhook.example.com/engine": "defaulted"}
    created.spec.size = 4
    shrunk = await refused(client, created, "update")
    assert isinstance(shrunk, Forbidden)
    assert "a database never shrinks" in shrunk.message
    created.spec.size = 13
    assert (await refused(client, created, "update")).status == 500
    kept = await client.create(database("kept", 5, annotations={"keep": "yes"}))
    assert isinstance(await refused(client, kept, "delete"), Conflict)
    old = await client.get("webhook.example.com/v1alpha1/Database", "db1", "default")
    assert old.to_dict()["spec"] == {"size": "5G", "engine": "postgres"}
    await client.create(
        {
            "apiVersion": "webhook.example.com/v1alpha1",
            "kind": "Database",
            "metadata": {"name": "old", "namespace": "default"},
            "spec": {"size": "7G"},
        }
    )
    assert (await client.get(Database, "old", "default")).spec.size == 7


async def _calls_both(client: Client) -> bool:
    """Return whether both webhooks are called: the API server notices each configuration a moment later."""
    defaulted = await client.create(database("b", 5), dry_run=True)
    try:
        await client.create(database("large", 51), dry_run=True)
    except APIError:
        return defaulted.spec.engine is not None
    return False
