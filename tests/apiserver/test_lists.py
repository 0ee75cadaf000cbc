"""Lists: selectors, pages and versions."""

from __future__ import annotations

import base64
import json

import pytest

from reconciler.apiserver import APIServer
from tests.apiserver.api import CONFIG_MAPS, WIDGETS, Api, definition, widget

pytestmark = pytest.mark.virtual_time


async def five(api: Api) -> None:
    for name in "abcde":
        await api.make(name, meta={"labels": {"app": name, "tier": "x" if name < "c" else "y"}})


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=a", "a"),
        ("app==a", "a"),
        ("app!=a", "bcde"),
        ("app in (a, b)", "ab"),
        ("app notin (a,b)", "cde"),
        ("app", "abcde"),
        ("!app", ""),
        ("missing!=x", "abcde"),
        ("missing notin (x)", "abcde"),
        ("tier=x,app!=a", "b"),
        ("app=", ""),
        ("", "abcde"),
    ],
)
async def test_a_label_selector(api: Api, selector: str, names: str) -> None:
    await five(api)
    assert (await api.get(WIDGETS, labelSelector=selector)).names == list(names)


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("=x", "found '=', expected: !, identifier, or 'end of string'"),
        ("app=a,", "found '', expected: identifier after ','"),
        ("app in", "unable to parse requirement: found '' expected: '('"),
        ("app in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("app=a b", "found 'b', expected: ',' or 'end of string'"),
        ("app>x", "values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer"),
        ("app=@", 'values[0][app]: Invalid value: "@": a valid label must be an empty string or consist of'),
        ("-a=b", '<nil>: Invalid value: "-a": name part must consist of alphanumeric characters'),
    ],
)
async def test_an_invalid_label_selector(api: Api, selector: str, says: str) -> None:
    reply = await api.get(WIDGETS, labelSelector=selector)
    assert reply.status == 400
    assert says in reply["message"]


async def test_numbers_in_labels_compare(api: Api) -> None:
    for size in ("1", "5", "x"):
        await api.make(f"n{size}", meta={"labels": {"size": size}})
    assert (await api.get(WIDGETS, labelSelector="size>2")).names == ["n5"]
    assert (await api.get(WIDGETS, labelSelector="size<2")).names == ["n1"]


async def test_field_selectors(server: APIServer, api: Api) -> None:
    await five(api)
    assert (await api.get(WIDGETS, fieldSelector="metadata.name=b")).names == ["b"]
    assert (await api.get(WIDGETS, fieldSelector="metadata.name!=b,metadata.namespace=default")).names == list("acde")
    assert (await api.get(WIDGETS, fieldSelector="spec.color=red"))[
        "message"
    ] == "field label not supported: spec.color"
    broken = await api.get(WIDGETS, fieldSelector="spec")
    assert broken["message"] == "invalid selector: 'spec'; can't understand 'spec'"
    plain = await api.get(CONFIG_MAPS, fieldSelector="data=x")
    assert plain["message"] == '"data" is not a known field selector: only "metadata.name", "metadata.namespace"'


async def test_fields_that_a_definition_makes_selectable(server: APIServer, api: Api) -> None:
    fields = [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]
    await server.apply(definition("Gadget", selectableFields=fields))
    path = "/apis/example.com/v1/namespaces/default/gadgets"
    await api.post(path, widget("red", kind="Gadget", color="red", size=1))
    await api.post(path, widget("none", kind="Gadget", size=2))
    assert (await api.get(path, fieldSelector="spec.color=red")).names == ["red"]
    assert (await api.get(path, fieldSelector="spec.color=")).names == ["none"]
    assert (await api.get(path, fieldSelector="spec.size=2")).names == ["none"]


async def test_lists_are_in_the_order_of_etcd(api: Api) -> None:
    for namespace in ("a", "a-b"):
        await api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        await api.post(f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "x"}})
    listed = await api.get("/api/v1/configmaps")
    # "-" comes before "/", which ends the namespace in etcd's keys.
    assert [item["metadata"]["namespace"] for item in listed["items"]] == ["a-b", "a"]


async def test_items_of_built_in_lists_have_no_kind(api: Api) -> None:
    await api.make("a")
    await api.post(CONFIG_MAPS, {"metadata": {"name": "b"}})
    custom, plain = await api.get(WIDGETS), await api.get(CONFIG_MAPS)
    assert (custom["items"][0]["kind"], custom["kind"]) == ("Widget", "WidgetList")
    assert "kind" not in plain["items"][0]
    assert (plain["kind"], plain["apiVersion"]) == ("ConfigMapList", "v1")
    assert "continue" not in plain["metadata"]
    assert custom["metadata"]["continue"] == ""


async def test_pages_contain_every_object_once_at_one_version(api: Api) -> None:
    await five(api)
    first = await api.get(WIDGETS, limit=2)
    assert first.names == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 3
    await api.delete(f"{WIDGETS}/c")
    await api.make("bb")
    second = await api.get(WIDGETS, limit=2, **{"continue": first["metadata"]["continue"]})
    third = await api.get(WIDGETS, limit=2, **{"continue": second["metadata"]["continue"]})
    assert second.names + third.names == ["c", "d", "e"]
    assert first.version == second.version == third.version
    assert third["metadata"]["continue"] == ""


async def test_with_a_selector_the_rest_is_not_counted(api: Api) -> None:
    await five(api)
    first = await api.get(WIDGETS, limit=1, labelSelector="tier=y")
    assert first.names == ["c"]
    assert "remainingItemCount" not in first["metadata"]
    assert first["metadata"]["continue"]


async def test_after_compaction_a_page_is_expired_with_a_token_to_continue(server: APIServer, api: Api) -> None:
    await five(api)
    first = await api.get(WIDGETS, limit=2)
    await api.make("f")
    server.compact()
    gone = await api.get(WIDGETS, limit=9, **{"continue": first["metadata"]["continue"]})
    assert (gone.status, gone["reason"]) == (410, "Expired")
    assert gone["message"].startswith("The provided continue parameter is too old to display a consistent list result.")
    rest = await api.get(WIDGETS, limit=9, **{"continue": gone["metadata"]["continue"]})
    assert rest.names == ["c", "d", "e", "f"]


async def test_a_continue_token_has_the_real_servers_form(api: Api) -> None:
    await five(api)
    text = (await api.get(WIDGETS, limit=2))["metadata"]["continue"]
    token = json.loads(base64.urlsafe_b64decode(text + "=="))
    assert set(token) == {"v", "rv", "start"}
    assert token["v"] == "meta.k8s.io/v1"
    broken = await api.get(WIDGETS, **{"continue": "abc"})
    assert broken["message"].startswith("invalid continue token: continue key is not valid: invalid character 'i'")


async def test_a_list_at_an_exact_version_shows_the_past(server: APIServer, api: Api) -> None:
    await api.make("a")
    then = (await api.get(WIDGETS)).version
    await api.make("b")
    await api.patch(f"{WIDGETS}/a", {"spec": {"size": 9}})
    await api.delete(f"{WIDGETS}/a")
    past = await api.get(WIDGETS, resourceVersion=then, resourceVersionMatch="Exact")
    assert (past.names, past["items"][0]["spec"], past.version) == (["a"], {"size": 1}, then)
    assert (await api.get(WIDGETS, resourceVersion=then)).names == ["b"]
    assert (await api.get(WIDGETS, resourceVersion=then, limit=5)).names == ["a"]
    server.compact()
    gone = await api.get(WIDGETS, resourceVersion=then, resourceVersionMatch="Exact")
    assert (gone.status, gone["reason"]) == (410, "Expired")


async def test_a_future_version_is_too_large(api: Api) -> None:
    current = (await api.get(WIDGETS)).version
    for path in (WIDGETS, f"{WIDGETS}/a"):
        reply = await api.get(path, resourceVersion="999999")
        assert (reply.status, reply["reason"]) == (504, "Timeout")
        assert reply["message"] == f"Timeout: Too large resource version: 999999, current: {current}"
        assert reply["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
        assert (reply["details"]["retryAfterSeconds"], reply.headers["retry-after"]) == (1, "1")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"resourceVersionMatch": "Exact"}, "resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ({"resourceVersion": "1", "resourceVersionMatch": "Some"}, 'Unsupported value: "Some"'),
        ({"resourceVersion": "0", "resourceVersionMatch": "Exact"}, 'is forbidden for resourceVersion "0"'),
        (
            {"resourceVersion": "zz"},
            'invalid resource version: resourceVersion: Invalid value: "zz": strconv.ParseUint',
        ),
        ({"limit": "x"}, 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
async def test_invalid_parameters_of_lists(api: Api, query: dict[str, str], says: str) -> None:
    reply = await api.get(WIDGETS, **query)
    assert reply.status in (400, 422)
    assert says in reply["message"]


async def test_only_metadata_is_shown_on_demand(api: Api) -> None:
    await api.make("a")
    accept = {"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"}
    listed = await api.get(WIDGETS, headers=accept)
    assert listed["kind"] == "PartialObjectMetadataList"
    assert set(listed["items"][0]) == {"kind", "apiVersion", "metadata"}
    one = await api.get(
        f"{WIDGETS}/a", headers={"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
    )
    assert (one["kind"], one["metadata"]["name"]) == ("PartialObjectMetadata", "a")


async def test_a_table_for_kubectl(server: APIServer, api: Api) -> None:
    columns = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": ".spec.any.conditions[?(@.type=='Ready')].status"},
        {"name": "First", "type": "string", "jsonPath": ".spec.tags[0]"},
        {"name": "Nest", "type": "string", "jsonPath": ".spec.nest"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    await server.apply(definition("Gadget", additionalPrinterColumns=columns))
    path = "/apis/example.com/v1/namespaces/default/gadgets"
    conditions = {"conditions": [{"type": "Other", "status": "No"}, {"type": "Ready", "status": "True"}]}
    await api.post(path, widget("a", kind="Gadget", size=4, tags=["x"], any=conditions, nest={}))
    await api.post(path, widget("b", kind="Gadget"))
    table = await api.get(path, headers={"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"})
    assert [column["name"] for column in table["columnDefinitions"]] == [
        "Name",
        "Size",
        "Ready",
        "First",
        "Nest",
        "Age",
    ]
    assert table["rows"][0]["cells"] == ["a", 4, "True", "x", '{"a":"x"}', "0s"]
    assert table["rows"][1]["cells"] == ["b", 1, None, None, None, "0s"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
