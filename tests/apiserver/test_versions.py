"""The versions of Kubernetes that the server can be, compared with the files that each publishes of itself."""

from __future__ import annotations

import json
import lzma
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.apiserver.builtin.kinds import built_in_kinds
from reconciler.apiserver.encoding.versions import NEWEST, VERSIONS, has_feature, recorded_for
from reconciler.errors import ConfigurationError, NotFound
from tests.apiserver.api import Api, definition, widget

RECORDED = json.loads(lzma.decompress((Path(__file__).parent / "discovery_of_versions.json.xz").read_bytes()))
"""The files of ``api/discovery`` in the Go module of each version, by path; also those of what is not on by default."""
_STABLE = re.compile(r"(/api|/apis/[\w.]+)/v\d+")
OLDER = VERSIONS[:-1]
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"containers": [{"name": "a", "image": "a"}], "hostnameOverride": "b"},
}
PODS = "/api/v1/namespaces/default/pods"


@pytest.mark.virtual_time
@pytest.mark.parametrize("version", VERSIONS)
async def test_discovery_is_that_of_the_version(version: str) -> None:
    async with APIServer(version=version) as server:
        api = Api(server)
        for path, recorded in RECORDED[version].items():
            answer = await api.get(path)
            if _STABLE.fullmatch(path):
                assert answer.body == recorded, path
            else:
                assert answer.status == 404, path
        groups = [group["name"] for group in (await api.get("/apis"))["groups"]]
        assert {f"/apis/{name}" for name in groups} == {
            path.rpartition("/")[0] for path in RECORDED[version] if _STABLE.fullmatch(path) and path != "/api/v1"
        }
        told = await api.get("/version")
        assert (f"{told['major']}.{told['minor']}", told["emulationMinor"]) == (version, told["minor"])


@pytest.mark.virtual_time
@pytest.mark.parametrize("version", VERSIONS)
async def test_the_openapi_documents_describe_the_kinds_that_are_served(version: str) -> None:
    async with APIServer(version=version) as server:
        api = Api(server)
        index = (await api.get("/openapi/v3"))["paths"]
        assert {f"/{path}" for path in index if _STABLE.fullmatch(f"/{path}")} == {
            path for path in RECORDED[version] if _STABLE.fullmatch(path)
        }
        swagger = (await api.get("/openapi/v2")).body
        assert swagger["info"]["version"] == version
        for path in index:
            assert (await api.get(f"/openapi/v3/{path}"))["info"]["version"] == version
        types = recorded_for("builtin/types.json", version)["types"]
        for name, prefix in (
            ("core.v1.PodSpec", "io.k8s.api."),
            ("meta.v1.ObjectMeta", "io.k8s.apimachinery.pkg.apis."),
        ):
            assert swagger["definitions"][f"{prefix}{name}"]["properties"].keys() == types[name].keys() - {"|"}


async def test_a_field_is_unknown_in_the_versions_before_it() -> None:
    for version, known in (("1.33", False), ("1.34", True), ("1.36", True)):
        async with APIServer(version=version) as server:
            made = await Api(server).post(PODS, POD)
            assert ("hostnameOverride" in made["spec"]) is known
            strict = await Api(server).post(PODS, POD, fieldValidation="Strict", dryRun="All")
            unknown = [] if known else ['strict decoding error: unknown field "spec.hostnameOverride"']
            assert re.findall("strict decoding error: .*", strict.body.get("message", "")) == unknown


async def test_a_kind_is_not_served_before_it_is_stable() -> None:
    for version in OLDER:
        async with APIServer(version=version) as server, Client(server) as client:
            with pytest.raises(NotFound):
                await client.list("admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")


async def test_streaming_lists_are_refused_where_they_are_off_by_default() -> None:
    """The words are those of the validation in apimachinery 0.33."""
    async with APIServer(version="1.33") as server:
        asked = {"watch": "1", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        refused = await Api(server).get(PODS, **asked)
        assert refused.status == 422
        assert refused["message"] == (
            'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for '
            "watch unless the WatchList feature gate is enabled"
        )


async def test_a_service_may_begin_with_a_digit_since_its_gate_is_on_by_default() -> None:
    for version in VERSIONS:
        async with APIServer(version=version) as server:
            for name in ("1a", "a.b"):
                service = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}
                made = await Api(server).post("/api/v1/namespaces/default/services", service)
                said = made.body.get("message", "")
                assert (made.status, "a DNS-1035 label must consist of" in said) == (
                    (422, True) if version in OLDER else (201 if name == "1a" else 422, False)
                )


async def test_the_range_of_a_number_is_checked_since_1_36() -> None:
    crd = definition()
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec["small"] = {"type": "integer", "format": "int32"}
    for version in VERSIONS:
        async with APIServer(version=version) as server:
            await server.apply(crd)
            path = "/apis/example.com/v1/namespaces/default/widgets"
            beyond = await Api(server).post(path, widget("beyond", size=1, small=2**31))
            assert beyond.status == (201 if version in OLDER else 422)
            part = await Api(server).post(path, widget("part", size=1, small=1.5))
            form = "number" if version in OLDER else "float64"
            assert (part.status, f'Invalid value: "{form}": spec.small' in part["message"]) == (422, True)
            assert ("Checked value must be" in part["message"]) is (version not in OLDER)


async def test_the_errors_of_rules_show_values_since_1_35() -> None:
    rule = {"rule": "self.size < 9", "message": "too large"}
    one, spec = {"rule": "self < 9", "message": "large"}, {"type": "object", "x-kubernetes-validations": [rule]}
    crd = definition(spec={**spec, "properties": {"size": {"type": "integer", "x-kubernetes-validations": [one]}}})
    for version in VERSIONS:
        async with APIServer(version=version) as server:
            await server.apply(crd)
            refused = await Api(server).post("/apis/example.com/v1/namespaces/default/widgets", widget(size=9))
            shown = ['"object": ', '"integer": '] if version < "1.35" else ["", "9: "]
            expected = [
                f"Invalid value: {each}{text}" for each, text in zip(shown, ("too large", "large"), strict=True)
            ]
            assert [cause["message"] for cause in refused["details"]["causes"]] == expected


@pytest.mark.virtual_time
async def test_an_informer_starts_on_each_version() -> None:
    for version in VERSIONS:
        async with APIServer(version=version) as server, Client(server) as client:
            await server.apply(definition())
            await Api(server).post("/apis/example.com/v1/namespaces/default/widgets", widget("w", size=1))
            assert [each.name async for page in client.list_pages("example.com/v1/Widget") for each in page] == ["w"]


@pytest.mark.parametrize("version", ["1.32", "1.330", "2.34", "latest", "", "1.34x", 1.34])
def test_an_unknown_version_is_refused_with_those_that_exist(version: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"choose one of 1\.33, 1\.34, 1\.35, 1\.36"):
        APIServer(version=version)


async def test_a_fork_has_the_version_of_its_cluster_unless_another_is_asked_for() -> None:
    async with APIServer(version="v1.34.2") as cluster:
        await cluster.apply(definition(), POD)
        async with APIServer.fork(cluster) as fork, APIServer.fork(cluster, version="1.36") as upgraded:
            for server, minor, served in ((fork, "34", 404), (upgraded, "36", 200)):
                api = Api(server)
                assert (await api.get("/version"))["minor"] == minor
                assert (await api.get(f"{PODS}/a")).status == 200
                path = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies"
                assert (await api.get(path)).status == served
            assert fork.forked is not None
            assert fork.forked.version_note() is None
            kept = fork.snapshot()
    async with APIServer() as restored:
        await restored.restore(kept)
        assert (await Api(restored).get("/version"))["minor"] == "34"


async def test_a_snapshot_of_an_older_version_can_be_upgraded() -> None:
    async with APIServer(version="1.33") as old:
        await old.apply(POD)
        snapshot = old.snapshot()
    async with APIServer() as new:
        await new.restore(snapshot)
        assert "hostnameOverride" not in (await Api(new).get(f"{PODS}/a"))["spec"]


async def test_a_snapshot_with_kinds_of_a_newer_version_is_refused() -> None:
    policy = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": "a"}}
    async with APIServer() as new:
        await new.apply({**policy, "driverName": "a.example", "parameters": {"a": "b"}})
        snapshot = new.snapshot()
    async with APIServer(version="1.33") as old:
        with pytest.raises(ConfigurationError, match=r"volumeattributesclasses\.storage\.k8s\.io.*1\.33"):
            await old.restore(snapshot)


def test_the_differences_are_small() -> None:
    """An older version costs a user who installs the package less than 300 KB."""
    for version in OLDER:
        packed = resources.files("reconciler.apiserver").joinpath(f"versions/{version}.json.xz").read_bytes()
        assert len(packed) < 50_000


def test_the_matrix_of_the_docs_is_that_of_the_data() -> None:
    page = (Path(__file__).parents[2] / "docs" / "embedded-api-server-compatibility.md").read_text()
    rows: dict[str, str] = dict(re.findall(r"^\| (.+?) \| (.+) \|$", page, re.MULTILINE))
    assert rows["Kubernetes"].split(" | ") == list(VERSIONS)

    def kinds(version: str) -> set[str]:
        return {info.kind for info, _ in built_in_kinds(version) if "list" in info.verbs}

    def shown(row: str) -> list[str]:
        return rows[row].split(" | ")

    counts = [str(len([1 for info, _ in built_in_kinds(v) if "list" in info.verbs])) for v in VERSIONS]
    assert shown("built-in kinds that are stored") == counts
    for kind in kinds(NEWEST) - kinds(VERSIONS[0]):
        (row,) = (row for row in rows if f"`{kind}`" in row)
        assert shown(row) == ["yes" if kind in kinds(v) else "no" for v in VERSIONS]
    of_features = {
        "`sendInitialEvents`": "WatchList",
        "`format` of a custom kind": "NumberFormats",
        "errors of CEL rules": "ValuesInRuleErrors",
    }
    for words, feature in of_features.items():
        (row,) = (row for row in rows if words in row and len(shown(row)) == len(VERSIONS))
        assert shown(row) == ["yes" if has_feature(feature, v) else "no" for v in VERSIONS]
    for version in OLDER:
        mine, newest = (recorded_for("builtin/types.json", v)["types"] for v in (version, NEWEST))
        missing = [f"{name}.{key}" for name, types in mine.items() for key in newest.get(name, ()) if key not in types]
        assert shown("fields of these kinds that the newest has in addition")[VERSIONS.index(version)] == str(
            len(missing)
        )


@pytest.mark.kubernetes_version("1.34")
async def test_a_mark_decides_the_version_of_the_fixtures(apiserver: APIServer) -> None:
    assert (await Api(apiserver).get("/version"))["minor"] == "34"


async def test_the_table_of_accounts_has_the_column_that_the_version_shows() -> None:
    for version, shown in (("1.34", ["Name", "Secrets", "Age"]), ("1.35", ["Name", "Age"])):
        async with APIServer(version=version) as server:
            await server.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}})
            table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
            found = await Api(server).get("/api/v1/namespaces/default/serviceaccounts", headers=table)
            assert [column["name"] for column in found["columnDefinitions"]] == shown
            assert found["rows"][0]["cells"][:-1] == ["a", 0][: len(shown) - 1]
