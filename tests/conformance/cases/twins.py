"""Items of lists that have one key among them, and who owns them (31)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import JSON, STRATEGIC, Api
from tests.conformance.cases._case import case, each_once, in_any_order, table
from tests.conformance.cases.definitions import definition

_HOLD, _MORE = "example.com/hold", "example.com/more"
_TWINS = {"finalizers": [_HOLD, _HOLD]}
_OTHER = definition(
    "twofolds",
    "Twofold",
    {"name": "v1", "subresources": {"status": {}}},
    {"name": "v1beta1", "subresources": {"status": {}}},
)
V1, V1BETA1 = "twofolds:Twofold:v1", "twofolds:Twofold:v1beta1"


async def _updated(api: Api, finalizers: list[str]) -> None:
    """Change a list from twins, and to twins."""
    api.with_owners = True
    keep = ["metadata.finalizers", "metadata.managedFields"]
    await api.create("widgets", {"metadata": {"name": "a", **_TWINS}, "spec": {"size": 1}}, keep=keep)
    patch = {"metadata": {"finalizers": finalizers}}
    await api.patch("widgets", "a", patch, query={"fieldManager": "one"}, keep=keep)
    await api.patch("widgets", "a", {"metadata": _TWINS}, query={"fieldManager": "two"}, keep=keep)


table(
    [
        ("twins become one", [_HOLD]),
        ("twins become nothing", []),
        ("twins become something else", [_MORE]),
        ("twins get company", [_HOLD, _HOLD, _MORE]),
        ("twins become triplets", [_HOLD, _HOLD, _HOLD]),
    ],
)(_updated)


async def _applied(api: Api, finalizers: list[str]) -> None:
    """Apply over twins, and give up what was applied."""
    api.with_owners = True
    keep = ["metadata.finalizers", "metadata.managedFields"]
    query = {"fieldManager": "two"}
    await api.create("widgets", {"metadata": {"name": "a", **_TWINS}, "spec": {"size": 1}}, query=query, keep=keep)
    document = {"metadata": {"name": "a", "finalizers": finalizers}}
    await api.apply("widgets", "a", document, keep=keep)
    await api.apply("widgets", "a", document, force=True, keep=keep)
    await api.apply("widgets", "a", {"metadata": {"name": "a"}}, force=True, keep=keep)


table(
    [
        ("an apply of one of twins", [_HOLD]),
        ("an apply beside twins", [_MORE]),
        ("an apply of one of twins before another", [_HOLD, _MORE]),
        ("an apply of one of twins after another", [_MORE, _HOLD]),
    ],
)(_applied)


@case("items of a keyed list that change places in an apply")
async def _(api: Api) -> None:
    live = [{"name": name} for name in ("b", "x", "a", "y")]
    await api.create("widgets", {"metadata": {"name": "a"}, "spec": {"size": 1, "ports": live}}, quiet=True)
    for order in ("ab", "ba", "az", "zab", "yxab", "bzy"):
        spec = {"size": 1, "ports": [{"name": name} for name in order]}
        await api.apply("widgets", "a", {"metadata": {"name": "a"}, "spec": spec}, force=True, keep=["spec.ports"])


@case("a strategic merge patch of twins")
async def _(api: Api) -> None:
    for names in ("A", "AA", "B", "AAB"):
        env = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
        template = {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "x", "image": "y", "env": env}]},
        }
        await api.create("podtemplates", {"metadata": {"name": names.lower()}, "template": template}, keep=["kind"])
        changed = [{"name": name, "value": str(at)} for at, name in enumerate(names, 3)]
        patch = {"template": {"spec": {"containers": [{"name": "x", "env": changed}]}}}
        keep = ["template.spec.containers"]
        await api.patch("podtemplates", names.lower(), patch, content=STRATEGIC, keep=keep)
        patch = {"template": {"spec": {"containers": [{"name": "x", "env": [{"name": "A", "$patch": "delete"}]}]}}}
        await api.patch("podtemplates", names.lower(), patch, content=STRATEGIC, keep=keep)
    for entry in api.transcript:
        entry.pop("warnings", None)  # of twins, which the embedded server does not give


@case("twins are not converted for the owners of another version", _OTHER)
async def _(api: Api) -> None:
    api.with_owners = True
    keep = ["metadata.finalizers", "metadata.managedFields"]
    await api.create(
        V1, {"metadata": {"name": "a", **_TWINS}, "spec": {"x": 1}}, query={"fieldManager": "two"}, keep=keep
    )
    for sub in ("", "status"):
        document = {"metadata": {"name": "a"}, sub or "spec": {"x": 2}}
        for plural in (V1BETA1, V1):
            await api.apply(plural, "a", document, sub=sub, keep=keep)
            await api.apply(plural, "a", document, sub=sub, force=True, keep=keep)
            in_any_order(api)
    for sub in ("status", ""):
        await api.patch(V1, "a", {sub or "spec": {"x": 3}}, sub, query={"fieldManager": "two"}, keep=keep)
        await api.patch(V1BETA1, "a", {sub or "spec": {"x": 4}}, sub, query={"fieldManager": "two"}, keep=keep)


@case("twins that come while an owner of another version is there", _OTHER)
async def _(api: Api) -> None:
    api.with_owners = True
    keep = ["metadata.finalizers", "metadata.managedFields"]
    for plural, other in ((V1, V1BETA1), (V1BETA1, V1)):
        await api.apply(plural, "a", {"metadata": {"name": "a"}, "spec": {"x": 1}}, keep=keep)
        await api.patch(other, "a", {"metadata": _TWINS}, query={"fieldManager": "two"}, keep=keep)
        await api.patch(other, "a", {"metadata": {"finalizers": None}}, query={"fieldManager": "two"}, keep=keep)
        await api.apply(plural, "a", {"metadata": {"name": "a"}, "spec": {"x": 2}}, keep=keep)
        await api.delete(plural, "a", keep=["status"])


@case("finalizers without a domain are warned of when they come, on custom kinds alone")
async def _(api: Api) -> None:
    for plural, content in (("widgets", {"spec": {"size": 1}}), ("leases", {"spec": {"holderIdentity": "x"}})):
        await api.create(plural, {"metadata": {"name": "a", "finalizers": ["z", "hold"]}, **content}, keep=["kind"])
        await api.create(plural, {"metadata": {"name": "a", "finalizers": ["hold"]}, **content})
        for finalizers in (["z", "hold", _MORE], ["b", "z", "a", "b"], [_MORE]):
            await api.patch(plural, "a", {"metadata": {"finalizers": finalizers}}, keep=["metadata.finalizers"])
        await api.patch(plural, "a", {"metadata": {"finalizers": ["c"]}}, "status", keep=["metadata.finalizers"])
        await api.patch(plural, "a", {"metadata": {"finalizers": ["c", "Bad one"]}})
        each_once(api)


@case("type errors are reported first")
async def _(api: Api) -> None:
    for body in (
        {"data": {"k": "%"}, "metadata": {"name": "a", "creationTimestamp": "soon"}},
        {"data": {"k": 1}, "metadata": {"name": "a", "creationTimestamp": 1}},
        {"data": 1, "metadata": {"name": "a", "labels": {"a": 1}, "creationTimestamp": "soon"}},
        {"immutable": "x", "metadata": {"labels": {"a": 1}, "name": "a"}},
        {"metadata": "x", "data": 1},
    ):
        await api.create("secrets", body, content=JSON)
    spec = {"leaseTransitions": "x", "renewTime": "soon"}
    await api.create("leases", {"spec": spec, "metadata": {"name": "a", "labels": {"a": 1}}})
    metadata = {"labels": {"a": 1}, "name": "a", "creationTimestamp": "soon"}
    await api.create("widgets", {"metadata": metadata, "spec": {"size": 1}})
    await api.create("secrets", {"metadata": {"name": "a"}}, quiet=True)
    for patch in ({"data": {"k": "%"}, "metadata": {"creationTimestamp": "soon"}}, {"data": 1, "metadata": metadata}):
        await api.patch("secrets", "a", patch)
        await api.patch("secrets", "a", patch, content=STRATEGIC)
    await api.apply("secrets", "a", {"metadata": "x"})


@case("a strategic merge patch of a list of texts leaves each once")
async def _(api: Api) -> None:
    for finalizers in ([], [_MORE], [_HOLD], [_MORE, _HOLD, _MORE]):
        await api.create("configmaps", {"metadata": {"name": "a", **_TWINS}}, keep=["metadata.finalizers"])
        patch = {"metadata": {"finalizers": finalizers}}
        await api.patch("configmaps", "a", patch, content=STRATEGIC, keep=["metadata.finalizers"])
        await api.patch("configmaps", "a", {"metadata": {"finalizers": None}}, keep=["metadata.finalizers"])
        await api.delete("configmaps", "a", keep=["status"])


_NULLS: tuple[dict[str, Any], ...] = (
    {"tags": None},
    {"ports": None},
    {"plain": None},
    {"labels": None},
    {"labels": {"k": None}},
    {"nested": None},
    {"free": None},
    {"free": {"a": None}},
    {"either": None},
)


@case("null in an apply over fields of other managers")
async def _(api: Api) -> None:
    api.with_owners = True
    keep = ["metadata.labels", "metadata.finalizers", "metadata.managedFields", "spec"]
    spec = {
        "tags": ["x"],
        "ports": [{"name": "p"}],
        "plain": [{"a": "x"}],
        "labels": {"k": "1"},
        "nested": {"depth": 2},
    }
    spec |= {"free": {"a": {"b": 1}}, "either": 1, "size": 1}
    live = {"metadata": {"name": "a", "labels": {"a": "b"}, "finalizers": ["a.b/c"]}, "spec": spec}
    await api.create("widgets", live, query={"fieldManager": "two"}, keep=keep)
    documents = [{"metadata": {"name": "a"}, "spec": {"size": 1, **nulls}} for nulls in _NULLS]
    documents += [{"metadata": {"name": "a", key: None}} for key in ("labels", "finalizers")]
    for document in documents:
        for force in (False, True):
            await api.apply("widgets", "a", document, force=force, query={"dryRun": "All"}, keep=keep)
            in_any_order(api)


@case("an apply that changes nothing but an order counts as a change")
async def _(api: Api) -> None:
    api.with_owners = True
    live = {"metadata": {"name": "a", "finalizers": [_HOLD, _MORE]}, "spec": {"size": 1}}
    await api.create("widgets", live, quiet=True)
    await api.apply("widgets", "a", {"metadata": {"name": "a", "finalizers": [_MORE, _HOLD]}})
    await api.apply("widgets", "a", {"metadata": {"name": "a", "finalizers": [_MORE, _HOLD]}}, "two")
