"""Addresses and content types (11)."""

from __future__ import annotations

from tests.conformance.api import GROUP, Api
from tests.conformance.cases._case import case, widget

# 11 addresses and content types


@case("an unknown group, version or plural is a plain 404")
async def _(api: Api) -> None:
    await api.call("GET", "/apis/nothing.example.com/v1/things")
    await api.call("GET", f"/apis/{GROUP}/v9/widgets")
    await api.call("GET", f"/apis/{GROUP}/v1/things")


@case("an unknown content type is refused")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, content="application/nonsense")


@case("a method that the resource does not have")
async def _(api: Api) -> None:
    await api.call("PUT", api.path("widgets"), widget("a"))


@case("a custom kind is discovered with its subresource")
async def _(api: Api) -> None:
    found = await api.call("GET", f"/apis/{GROUP}/v1", quiet=True)
    api.transcript.append(
        {
            "resources": sorted(
                [
                    {key: entry.get(key) for key in ("name", "singularName", "namespaced", "kind")}
                    | {"verbs": sorted(entry["verbs"])}
                    for entry in found["resources"]
                    if entry["name"].partition("/")[0] in ("widgets", "gadgets", "clusterwidgets")
                ],
                key=lambda entry: entry["name"],
            )
        }
    )


@case("an object over etcd's limit is an error of the server")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", free={"text": "x" * 1_700_000}), keep=["none"])


@case("a subresource that no kind has")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.get("widgets", "a", "nonsense")
    await api.get("widgets", "a", "scale")


@case("the timeout of a request fits into 64 bits of nanoseconds")
async def _(api: Api) -> None:
    for timeout in (
        "1h99999999999h",
        "2562047h47m16.854775807s",
        "2562047h47m16.854775808s",
        "-9223372036854775808ns",
        "99999999999999999999s",
        "2562047.99h",
        ".5s",
        "1.s",
        "1d",
        "1",
        "1e3s",
        "1h-1m",
        "1h0",
        ".s",
    ):
        await api.call("GET", api.path("widgets"), query={"timeout": timeout}, keep=["kind"])


@case("the timeout of a request is a duration, and that of a watch is not read")
async def _(api: Api) -> None:
    for timeout in ("1s", "1.5h2m", "-1s", "0", "", "invalid"):
        await api.call("GET", api.path("widgets"), query={"timeout": timeout}, keep=["kind"])
    await api.call("GET", "/version", query={"timeout": "invalid"})
    await api.watch("widgets", {"timeout": "invalid", "timeoutSeconds": "1"}, 0)
