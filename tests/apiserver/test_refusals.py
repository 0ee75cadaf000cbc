"""Error responses, in the words of a real kube-apiserver 1.36."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.api import CONFIG_MAPS, MERGE, STRATEGIC, WIDGETS, Api, widget

pytestmark = pytest.mark.virtual_time

_BODIES: list[tuple[str, Any, int, str]] = [
    (
        "no name",
        {**widget(), "metadata": {}},
        422,
        'Widget.example.com "" is invalid: metadata.name: Required value: name or',
    ),
    ("upper case", widget("A_b"), 422, "a lowercase RFC 1123 subdomain must consist of lower case"),
    ("no kind", {"apiVersion": "example.com/v1", "metadata": {}}, 400, "Object 'Kind' is missing in"),
    ("no version", {"kind": "Widget"}, 400, "the API version in the data () does not match the expected API version"),
    (
        "other version",
        {**widget(), "apiVersion": "example.com/v2"},
        400,
        "the API version in the data (example.com/v2)",
    ),
    ("other kind", {**widget(), "kind": "Gadget"}, 422, 'kind: Invalid value: "Gadget": must be Widget'),
    ("other namespace", widget("z", meta={"namespace": "b"}), 400, "does not match the namespace sent on the request"),
    (
        "version set",
        widget("z", meta={"resourceVersion": "5"}),
        500,
        "resourceVersion should not be set on objects to be",
    ),
    ("no JSON", b"{", 400, "json parse error: unexpected end of JSON input ({)"),
    ("nothing", b" ", 400, "couldn't get version/kind; json parse error: unexpected end of JSON input"),
    ("broken JSON", b'{"a" 1}', 400, "invalid character '1' after object key"),
    ("not a number", b'{"a": NaN}', 400, "invalid character 'N' looking for beginning of value"),
    ("list", b"[]", 400, "json: cannot unmarshal array into Go value of type struct"),
    (
        "label number",
        widget("z", meta={"labels": {"a": 1}}),
        400,
        "cannot unmarshal number into Go struct field ObjectMeta.labels",
    ),
    (
        "labels list",
        widget("z", meta={"labels": []}),
        400,
        "cannot unmarshal array into Go struct field ObjectMeta.labels of type map",
    ),
    (
        "metadata text",
        {**widget(), "metadata": "x"},
        400,
        "cannot unmarshal string into Go value of type v1.ObjectMeta",
    ),
    (
        "label key",
        widget("z", meta={"labels": {"a b": "c"}}),
        422,
        'metadata.labels: Invalid value: "a b": name part must',
    ),
    (
        "label value",
        widget("z", meta={"labels": {"a": "c d"}}),
        422,
        'metadata.labels: Invalid value: "c d": a valid label must',
    ),
    ("annotation", widget("z", meta={"annotations": {"a b": "c"}}), 422, 'metadata.annotations: Invalid value: "a b"'),
    (
        "annotations",
        widget("z", meta={"annotations": {"a": "y" * 300_000}}),
        422,
        "Too long: may not be more than 262144",
    ),
    (
        "owner",
        widget("z", meta={"ownerReferences": [{"name": "x"}]}),
        422,
        'ownerReferences.uid: Invalid value: "": must not be',
    ),
    (
        "two controllers",
        widget(
            "z",
            meta={
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": kind, "name": "x", "uid": kind, "controller": True} for kind in "AB"
                ]
            },
        ),
        422,
        'Only one reference can have Controller set to true. Found "true" in references for A/x and B/x',
    ),
]


@pytest.mark.parametrize(("body", "status", "says"), [case[1:] for case in _BODIES], ids=[case[0] for case in _BODIES])
async def test_a_body_that_cannot_be_created(api: Api, body: Any, status: int, says: str) -> None:
    reply = await api.post(WIDGETS, body)
    assert reply.status == status
    assert says in reply["message"]
    assert (reply["kind"], reply["apiVersion"], reply["status"]) == ("Status", "v1", "Failure")
    assert reply["code"] == status


_PATHS: list[tuple[str, str, int, str]] = [
    ("GET", "/apis/nowhere.com/v1/things", 404, "404 page not found\n"),
    ("GET", "/apis/example.com/v9/widgets", 404, "404 page not found\n"),
    ("GET", "/apis/example.com/v1/things", 404, "404 page not found\n"),
    ("GET", "/nothing", 404, "404 page not found\n"),
    ("GET", "/apis/example.com/v1/widgets/a", 404, "404 page not found\n"),
    ("DELETE", "/apis/example.com/v1/widgets", 404, "404 page not found\n"),
    ("GET", "/api/v1/things", 404, "the server could not find the requested resource"),
    ("GET", "/apis/apps/v9/deployments", 404, "the server could not find the requested resource"),
    ("GET", f"{CONFIG_MAPS}/a/status", 404, "the server could not find the requested resource"),
    ("GET", "/api/v1/namespaces/default/nodes", 404, "the server could not find the requested resource"),
    ("GET", f"{WIDGETS}/zz", 404, 'widgets.example.com "zz" not found'),
    ("GET", f"{WIDGETS}/zz/scale", 404, 'widgets.example.com "zz" not found'),
    ("PUT", WIDGETS, 400, "name must be provided"),
    ("PUT", CONFIG_MAPS, 405, "the server does not allow this method on the requested resource"),
    ("DELETE", f"{WIDGETS}/a/status", 405, 'delete is not supported on resources of kind "widgets.example.com"'),
    ("POST", "/api/v1/configmaps", 405, "the server does not allow this method on the requested resource"),
    ("POST", "/version", 405, "the server does not allow this method on the requested resource"),
]


@pytest.mark.parametrize(("method", "path", "status", "says"), _PATHS)
async def test_a_path_that_is_not_served(api: Api, method: str, path: str, status: int, says: str) -> None:
    reply = await api.call(method, path, widget("a") if method in ("POST", "PUT") else None)
    assert reply.status == status
    assert (reply.body if isinstance(reply.body, str) else reply["message"]) == says


async def test_unsupported_media_types_of_requests(api: Api) -> None:
    await api.make("a")
    assert (await api.post(WIDGETS, widget("b"), type="text/plain")).status == 415
    assert (await api.patch(f"{WIDGETS}/a", {}, STRATEGIC)).status == 415
    assert (await api.patch(f"{WIDGETS}/a", {}, "application/json")).status == 415
    plain = await api.patch(f"{CONFIG_MAPS}/a", {}, "text/plain")
    assert plain["message"] == "415: Unsupported Media Type"


async def test_unsupported_media_types_of_responses(api: Api) -> None:
    reply = await api.get(WIDGETS, headers={"accept": "text/html"})
    assert (reply.status, reply["reason"]) == (406, "NotAcceptable")
    assert reply["message"].startswith("only the following media types are accepted: application/json")
    mixed = await api.get(WIDGETS, headers={"accept": "application/vnd.kubernetes.protobuf,application/json"})
    assert mixed.status == 200


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"dryRun": "Some"}, 'dryRun: Unsupported value: ["Some"]: supported values: "All"'),
        ({"fieldValidation": "Some"}, 'fieldValidation: Unsupported value: "Some": supported values: "", "Ignore"'),
        ({"fieldManager": "x" * 129}, "fieldManager: Too long: may not be more than 128 bytes"),
    ],
)
async def test_invalid_parameters(api: Api, query: dict[str, str], says: str) -> None:
    reply = await api.post(WIDGETS, widget("a"), **query)
    assert reply.status == 422
    assert reply["message"].startswith('CreateOptions.meta.k8s.io "" is invalid: ')
    assert says in reply["message"]


async def test_an_invalid_patch(api: Api) -> None:
    await api.make("a")
    cut = await api.patch(f"{WIDGETS}/a", b"{")
    listed = await api.patch(f"{WIDGETS}/a", [1], MERGE)
    forced = await api.patch(f"{WIDGETS}/a", {}, force="true")
    assert cut["message"] == "error decoding patch: unexpected end of JSON input"
    assert (
        listed["message"]
        == "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    )
    assert forced["message"].endswith("force: Forbidden: may not be specified for non-apply patch")


async def test_yaml_is_read_and_written(api: Api) -> None:
    made = await api.post(
        WIDGETS,
        b"{apiVersion: example.com/v1, kind: Widget, metadata: {name: a}, spec: {size: 2}}",
        type="application/yaml",
    )
    assert made["spec"] == {"size": 2}
    shown = await api.get(f"{WIDGETS}/a", headers={"accept": "application/yaml"})
    assert shown.headers["content-type"] == "application/yaml"
    assert "size: 2" in shown.body


async def test_finalizers_without_a_domain_cause_a_warning(api: Api) -> None:
    reply = await api.post(WIDGETS, widget("a", meta={"finalizers": ["mine"]}))
    assert reply.status == 201
    assert "prefer a domain-qualified finalizer name" in reply.warnings[0]
