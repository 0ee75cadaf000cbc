"""Selectors and paging (10)."""

from __future__ import annotations

from tests.conformance.api import GROUP, Api
from tests.conformance.cases._case import case, names, table, version, widget

# 10 selectors and paging


async def _many(api: Api) -> None:
    for number in range(5):
        body = widget(f"w{number}", mode="Fast" if number % 2 else "Safe")
        body["metadata"]["labels"] = {"n": str(number), **({"odd": ""} if number % 2 else {})}
        await api.create("widgets", body, quiet=True)


@case("label selectors")
async def _(api: Api) -> None:
    await _many(api)
    for selector in ("n=1", "n!=1", "n in (1,2)", "n notin (1,2)", "odd", "!odd", "n==3,odd", "n>2"):
        found = await api.list("widgets", {"labelSelector": selector}, quiet=True)
        api.transcript.append({"selector": selector, "found": names(found)})


@case("a broken label selector is refused")
async def _(api: Api) -> None:
    await api.list("widgets", {"labelSelector": "n in 1"})


@case("field selectors")
async def _(api: Api) -> None:
    await _many(api)
    for selector in ("metadata.name=w3", "metadata.name!=w3", "spec.mode=Fast", "spec.mode=Fast,metadata.name=w1"):
        found = await api.list("widgets", {"fieldSelector": selector}, quiet=True)
        api.transcript.append({"selector": selector, "found": names(found)})
    await api.list("widgets", {"fieldSelector": "spec.size=1"})


@case("paging gives every object once, at one version")
async def _(api: Api) -> None:
    await _many(api)
    first = await api.list("widgets", {"limit": "2"}, keep=["metadata.remainingItemCount"])
    await api.create("widgets", widget("w9"), quiet=True)
    token = first["metadata"]["continue"]
    path = api.path("widgets")
    second = await api.call("GET", path, query={"limit": "2", "continue": token}, quiet=True)
    third = await api.call("GET", path, query={"limit": "2", "continue": second["metadata"]["continue"]}, quiet=True)
    same = {page["metadata"]["resourceVersion"] for page in (first, second, third)}
    api.transcript.append(
        {
            "pages": [names(page) for page in (first, second, third)],
            "versions": len(same),
            "more": bool(third["metadata"].get("continue")),
        }
    )


@case("a broken continue token is refused")
async def _(api: Api) -> None:
    await api.list("widgets", {"limit": "1", "continue": "nonsense"})


@case("an empty list has a version and no items")
async def _(api: Api) -> None:
    await api.list("widgets")


@case("a list at a version of the future is refused")
async def _(api: Api) -> None:
    await api.list("widgets", {"resourceVersion": "999999999", "resourceVersionMatch": "NotOlderThan"})


@case("a match rule needs a version, and must be known")
async def _(api: Api) -> None:
    await api.list("widgets", {"resourceVersionMatch": "NotOlderThan"})
    await api.list("widgets", {"resourceVersion": "1", "resourceVersionMatch": "Nearly"})


@case("a list of metadata only")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.list("widgets", accept="application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")


table(
    [
        (f"the label selector {selector!r}", "labelSelector", selector)
        for selector in (
            "",
            ",",
            "a=",
            "a==",
            "=b",
            "a=b,",
            "a b",
            "a in ()",
            "a in (b",
            "a in (b,)",
            "a in (,b)",
            "!a=b",
            "a>b",
            "a>1,a<3",
            "bad key=x",
            "a/b/c=d",
            "a=bad value",
            "a=!b",
            "a notin",
            "(a)",
            "a=b=c",
            "a!=b,c",
            "x/y in (z),!w",
            "a!b",
        )
    ],
)(lambda api, key, selector: api.list("widgets", {key: selector}, keep=["kind"]))

table(
    [
        (f"the field selector {selector!r} of {plural}", plural, selector)
        for plural, selector in (
            ("widgets", "metadata.name"),
            ("widgets", "metadata.name=a,"),
            ("widgets", "a=b=c"),
            ("widgets", "metadata.name==a"),
            ("widgets", "metadata.uid=x"),
            ("widgets", "metadata.namespace=elsewhere"),
            ("widgets", "metadata.name>a"),
            ("configmaps", "data.x=1"),
            ("configmaps", "metadata.name=a"),
            ("pods", "status.phase=Running,spec.nodeName=n"),
            ("pods", "spec.containers=x"),
            ("secrets", "type=Opaque"),
            ("events", "involvedObject.name=a,reason=b,type=Normal"),
            ("events", "message=x"),
            ("leases", "spec.holderIdentity=x"),
            ("deployments", "status.replicas=1"),
            ("replicasets", "status.replicas=1"),
            ("jobs", "status.successful=1"),
            ("services", "spec.type=ClusterIP"),
        )
    ],
)(lambda api, plural, selector: api.list(plural, {"fieldSelector": selector}, keep=["kind"]))


async def _ages(api: Api) -> list[str]:
    """Make two objects; return the versions at which there were none, one, and two."""
    first = await api.create("widgets", widget("a"), quiet=True)
    second = await api.create("widgets", widget("b"), quiet=True)
    return [version(first), version(second)]


@case("a list at exactly a version")
async def _(api: Api) -> None:
    first, second = await _ages(api)
    for asked in (first, second):
        found = await api.list("widgets", {"resourceVersion": asked, "resourceVersionMatch": "Exact"}, quiet=True)
        api.transcript.append({"found": names(found), "same version": found["metadata"]["resourceVersion"] == asked})


@case("a list not older than a version")
async def _(api: Api) -> None:
    first, _ = await _ages(api)
    found = await api.list("widgets", {"resourceVersion": first, "resourceVersionMatch": "NotOlderThan"}, quiet=True)
    api.transcript.append({"found": names(found)})
    found = await api.list("widgets", {"resourceVersion": first}, quiet=True)
    api.transcript.append({"found": names(found)})


@case("a list at a version with a limit is exact")
async def _(api: Api) -> None:
    first, _ = await _ages(api)
    found = await api.list("widgets", {"resourceVersion": first, "limit": "5"}, quiet=True)
    api.transcript.append({"found": names(found)})


table(
    [
        ("Exact at 0", {"resourceVersion": "0", "resourceVersionMatch": "Exact"}),
        ("Exact without a version", {"resourceVersionMatch": "Exact"}),
        ("a match with a continue token", {"continue": "x", "resourceVersion": "1", "resourceVersionMatch": "Exact"}),
        ("a version with a continue token", {"continue": "x", "resourceVersion": "1"}),
        ("a broken version", {"resourceVersion": "soon"}),
        ("a negative version", {"resourceVersion": "-1"}),
        ("a negative limit", {"limit": "-1"}),
        ("a broken limit", {"limit": "few"}),
        ("a limit of 0", {"limit": "0"}),
        ("sendInitialEvents in a list", {"sendInitialEvents": "true"}),
        ("a future version, exactly", {"resourceVersion": "99999999", "resourceVersionMatch": "Exact"}),
        ("an unknown parameter", {"colour": "red"}),
        ("a broken timeout", {"timeoutSeconds": "x"}),
    ],
)(lambda api, query: api.list("widgets", query, keep=["kind"]))


@case("paging with a selector has no count of what remains")
async def _(api: Api) -> None:
    await _many(api)
    query = {"limit": "1", "labelSelector": "odd"}
    first = await api.list("widgets", query, keep=["metadata.remainingItemCount", "metadata.continue"])
    second = await api.list("widgets", {**query, "continue": first["metadata"]["continue"]}, quiet=True)
    api.transcript.append({"pages": [names(first), names(second)], "more": bool(second["metadata"].get("continue"))})


@case("the last page of a full list has no continue token")
async def _(api: Api) -> None:
    await _many(api)
    found = await api.list("widgets", {"limit": "5"}, quiet=True)
    api.transcript.append({"metadata": found["metadata"]})
    found["metadata"].pop("resourceVersion")


@case("lists of built-in kinds")
async def _(api: Api) -> None:
    for plural in ("configmaps", "secrets", "pods", "events", "leases", "deployments", "jobs", "services"):
        await api.list(plural)


@case("items of built-in lists have no kind, those of custom ones do")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    await api.list("configmaps")
    await api.create("widgets", widget("a"), quiet=True)
    await api.list("widgets")


@case("a list over all namespaces by the namespace's field")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    path = f"/apis/{GROUP}/v1/widgets"
    found = await api.call("GET", path, query={"fieldSelector": f"metadata.namespace={api.ns}"}, quiet=True)
    api.transcript.append({"found": names(found)})


@case("a collection over all namespaces takes no writes")
async def _(api: Api) -> None:
    path = f"/apis/{GROUP}/v1/widgets"
    await api.call("POST", path, {"apiVersion": f"{GROUP}/v1", "kind": "Widget", **widget("a")})
    await api.call("DELETE", path)


@case("lists are ordered by namespace and name")
async def _(api: Api) -> None:
    for name in ("b", "a", "a-b", "a.b", "c0", "c"):
        await api.create("widgets", widget(name), quiet=True)
    api.transcript.append({"found": names(await api.list("widgets", quiet=True))})


async def _shown(api: Api, plural: str, accept: str) -> None:
    query = {"fieldSelector": "metadata.name=shown"}
    if plural == "namespaces":
        query = {"fieldSelector": f"metadata.name={api.ns}"}
    else:
        await api.create(plural, {"metadata": {"name": "shown"}}, quiet=True)
    found = await api.list(plural, query, accept=accept, quiet=True)
    for row in found.get("rows") or ():
        row["cells"] = [
            "<age>" if str(cell).endswith("s") and str(cell)[0].isdigit() else cell for cell in row["cells"]
        ]
    api.transcript.append({"found": found})


table(
    [
        (f"{title} of {plural}", plural, accept)
        for title, accept in (
            ("a table", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            ("metadata", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"),
        )
        for plural in ("configmaps", "secrets", "leases", "namespaces")
    ],
)(_shown)


async def _accepted(api: Api, accept: str) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.get("widgets", "a", accept=accept)
    body = api.transcript[-1]["body"]
    if isinstance(body, dict) and body.get("kind") == "Table":
        body["rows"][0]["cells"] = body["rows"][0]["cells"][:1]
    if isinstance(body, str):
        api.transcript[-1]["body"] = [
            line
            for line in body.splitlines()
            if "Timestamp" not in line and "time:" not in line and "uid" not in line and "resourceVersion" not in line
        ]


table(
    [
        ("YAML", "application/yaml"),
        ("protobuf or JSON", "application/vnd.kubernetes.protobuf;q=0.5,application/json"),
        ("anything", "*/*"),
        ("text", "text/plain"),
        ("a table of another version", "application/json;as=Table;v=v9;g=meta.k8s.io"),
        ("a list of metadata for one object", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"),
        ("one object as metadata", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"),
        ("a table of one object", "application/json;as=Table;v=v1;g=meta.k8s.io"),
    ],
)(_accepted)


@case("a representation is named in full")
async def _(api: Api) -> None:
    await api.create("widgets", {"metadata": {"name": "a"}, "spec": {"size": 1}}, quiet=True)
    await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    for accept in ("as=Table;v=v1", "as=Table;g=meta.k8s.io", "as=PartialObjectMetadata", "as=Some;v=v1;g=meta.k8s.io"):
        for plural in ("widgets", "configmaps"):
            path = f"{api.path(plural)}/a"
            await api.call("GET", path, accept=f"application/json;{accept}")
            await api.call("GET", path, accept=f"application/json;{accept},application/json", keep=["kind"])


@case("a path with an invalid escape")
async def _(api: Api) -> None:
    for plural in ("widgets", "configmaps"):
        for verb in ("GET", "DELETE"):
            await api.call(verb, f"{api.path(plural)}/%zz")
    await api.call("GET", "/apis/%2")


@case("a list of one name, or of one namespace, ends where that does")
async def _(api: Api) -> None:
    for plural, content in (("configmaps", {}), ("widgets", {"spec": {"size": 1}})):
        made = await api.create(plural, {"metadata": {"name": "a"}, **content})
        await api.create(plural, {"metadata": {"name": "b"}, **content}, quiet=True)
        everywhere = api.path(plural).replace(f"namespaces/{api.ns}/", "")
        here = f"metadata.namespace={api.ns}"
        for fields in ("metadata.name=a", "metadata.name=c", "metadata.name!=a", "metadata.name=a,metadata.name=b"):
            for more in ({}, {"labelSelector": "!x"}, {"resourceVersion": "0"}):
                await api.list(plural, {"fieldSelector": fields, "limit": "1", **more})
        for fields in (here, f"metadata.name=a,{here}", f"metadata.name!=a,{here}"):
            await api.call("GET", everywhere, query={"fieldSelector": fields, "limit": "1"})
        await api.delete(plural, "a", keep=["status"])
        await api.create(plural, {"metadata": {"name": "a"}, **content}, quiet=True)
        first = {"resourceVersion": version(made), "limit": "1"}
        for fields in ("metadata.name=a", "metadata.name!=b"):
            await api.list(plural, {"fieldSelector": fields, **first})
            await api.list(plural, {"fieldSelector": fields, **first, "resourceVersionMatch": "Exact"})
    await api.list("clusterwidgets", {"fieldSelector": "metadata.namespace=x"})


@case("a list that is no watch, in any case of letters")
async def _(api: Api) -> None:
    for value in ("false", "FALSE", "fAlse", "0"):
        await api.list("configmaps", query={"watch": value}, keep=["kind"])
