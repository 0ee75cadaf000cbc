"""Routing: the matching receivers, all errors at once, and safe reloads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.router import ConfigMapSource, FileSource, RoutingTable
from reconciler.notification.routing_config import ReceiverConfig, RoutingConfigError, read_routing
from tests.notification.world import Recorder, virtual, world

GOOD = """\
route:
  receiver: everybody
  routes:
    - matchers: ['priority = Critical']
      receiver: oncall
      continue: true
    - matchers: ['team =~ "stor.*"', 'env != dev']
      receiver: storage
receivers:
  - name: everybody
    channels: [console]
  - name: oncall
    pager_configs: [{number: 7}]
  - name: storage
    channels: [console, log]
    pager_configs: [{number: 1}, {number: 2}]
"""


class PagerConfig(ReceiverConfig):
    number: int


KINDS = {"pager": PagerConfig}


class Pager:
    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number

    async def deliver(self, message: object) -> None: ...


def built(name: str, config: ReceiverConfig) -> Pager:
    assert isinstance(config, PagerConfig)
    return Pager(name, config.number)


def table() -> tuple[RoutingTable, ChannelRegistry]:
    registry = ChannelRegistry([Recorder("console"), Recorder("log")])
    return RoutingTable(registry, kinds=KINDS, build=built), registry


def problems(text: str, channels: list[str] | None = None) -> list[str]:
    with pytest.raises(RoutingConfigError) as caught:
        read_routing(text, name="routing.yaml", kinds=KINDS, channels=channels)
    assert str(caught.value).startswith("invalid routing configuration routing.yaml:\n")
    return [str(problem) for problem in caught.value.problems]


def test_a_request_reaches_every_matching_receiver() -> None:
    routing, _ = table()
    routing.load(GOOD)
    assert routing.resolve({"priority": "Low"}).channels == ("console",)
    assert routing.resolve({"priority": "Critical"}).channels == ("pager:oncall",)
    found = routing.resolve({"priority": "Critical", "team": "storage"})
    assert found.receivers == ("oncall", "storage")
    assert found.channels == ("pager:oncall", "console", "log", "pager:storage:0", "pager:storage:1")
    assert routing.resolve({"priority": "Low", "team": "storage", "env": "dev"}).receivers == ("everybody",)


def test_b4_a_channel_that_two_receivers_share_is_used_once() -> None:
    routing, _ = table()
    routing.load(
        "route: {receiver: a, routes: [{receiver: a, continue: true}, {receiver: b}]}\n"
        "receivers: [{name: a, channels: [console]}, {name: b, channels: [console]}]\n"
    )
    assert routing.resolve({}).channels == ("console",)


def test_all_errors_are_reported_at_once_with_their_lines() -> None:
    text = """\
route:
  receiver: nobody
  matchers: [a=b]
  continue: true
  routes:
    - matchers: ['team =~ (']
      reciever: oncall
    - matchers: ['= x', 7]
      receiver: gone
      continue: perhaps
    - match_re: {env: '['}
    - 5
receivers:
  - name: oncall
    pager_configs: [{number: seven}, {nummer: 7}]
    fax_configs: []
  - name: oncall
    channels: [telegraph, '-']
  - channels: [console]
  - name: ''
extra: 1
"""
    found = problems(text, channels=["console", "log"])
    expected = [
        ("line 2: route.receiver:", "unknown receiver 'nobody'"),
        ("line 3: route.matchers:", "matches everything"),
        ("line 4: route.continue:", "no siblings to continue with"),
        ("line 6: route.routes[0].matchers[0]:", "invalid regular expression '(': unclosed group"),
        ("line 7: route.routes[0].reciever:", "unknown key"),
        ("line 8: route.routes[1].matchers[0]:", "column 1: expected a matcher such as team = storage, found '= x'"),
        ("line 8: route.routes[1].matchers[1]:", "not 7"),
        ("line 9: route.routes[1].receiver:", "unknown receiver 'gone'; defined receivers: oncall"),
        ("line 10: route.routes[1].continue:", "not 'perhaps'"),
        ("line 11: route.routes[2].match_re.env:", "invalid regular expression"),
        ("line 12: route.routes[3]:", "a route must be a mapping"),
        ("line 15: receivers[0].pager_configs[0].number:", "valid integer"),
        ("line 15: receivers[0].pager_configs[1].number:", "Field required"),
        (
            "line 15: receivers[0].pager_configs[1].nummer:",
            "; the options are breaker_failures, breaker_open_seconds",
        ),
        ("line 16: receivers[0].fax_configs:", "name, channels, pager_configs"),
        ("line 17: receivers[1].name:", "duplicate receiver name 'oncall'"),
        ("line 18: receivers[1].channels[0]:", "unknown channel 'telegraph'; registered channels: console, log"),
        ("line 18: receivers[1].channels[1]:", "is not a valid channel name"),
        ("line 19: receivers[2]:", "needs a name"),
        ("line 20: receivers[3]:", "needs a name"),
        ("line 21: extra:", "unknown key"),
    ]
    assert len(found) == len(expected), "\n".join(found)
    for problem, (place, words) in zip(found, expected, strict=True):
        assert problem.startswith(place)
        assert words in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the configuration is empty"),
        ("just words", "the configuration is empty"),
        ("route: [", "invalid YAML: "),
        ("route: {receiver: a}\nroute: {receiver: b}\nreceivers: [{name: a}]", "duplicate key 'route'"),
        ("receivers: [{name: a}]", "the root route is missing"),
        ("route: {receiver: a}", "receivers: at least one receiver is required"),
        ("route: {routes: []}\nreceivers: [{name: a}]", "the root route needs a receiver"),
        ("route: {receiver: a}\nreceivers: {name: a}", "a list, not"),
        ("route: {receiver: 'ü b'}\nreceivers: [{name: 'ü b', pager_configs: [{number: 1}]}]", "letters, digits"),
        ("a: &a [*a]", ""),
    ],
)
def test_an_invalid_configuration_has_a_clear_error(text: str, words: str) -> None:
    assert any(words in problem for problem in problems(text))


def test_files_of_alertmanager_are_accepted_with_their_timing_keys() -> None:
    config = read_routing(
        "route: {receiver: a, group_by: [x], group_wait: 30s, routes: [{repeat_interval: 4h, match: {team: x}}]}\n"
        "receivers: [{name: a}]",
        kinds={},
    )
    assert config.route.receivers({"team": "x"}) == ("a",)


# Exchange


def test_a_bad_configuration_leaves_the_old_one_in_force_with_its_channels() -> None:
    routing, registry = table()
    routing.load(GOOD)
    before = list(registry)
    with pytest.raises(RoutingConfigError):
        routing.load(GOOD.replace("receiver: oncall", "receiver: nobody"), name="f")
    assert routing.resolve({"priority": "Critical"}).channels == ("pager:oncall",)
    assert list(registry) == before
    assert "unknown receiver 'nobody'" in (routing.resolve({}).problem or "")
    assert (routing.loaded, routing.refused) == (1, 1)
    routing.load(GOOD)
    assert not routing.resolve({}).problem


def test_channels_of_receivers_follow_the_configuration_and_others_stay() -> None:
    routing, registry = table()
    routing.load(GOOD)
    assert list(registry) == ["console", "log", "pager:oncall", "pager:storage:0", "pager:storage:1"]
    routing.load(GOOD.replace("number: 7", "number: 8").replace(", {number: 2}", ""))
    assert list(registry) == ["console", "log", "pager:oncall", "pager:storage"]
    found = registry.get("pager:oncall")
    assert isinstance(found, Pager)
    assert found.number == 8
    assert routing.load(GOOD.replace("number: 7", "number: 8").replace(", {number: 2}", "")) is False


def test_a_channel_that_cannot_be_created_makes_the_configuration_invalid() -> None:
    def fails(name: str, config: ReceiverConfig) -> Pager:
        raise ConfigurationError(f"{name}: no such number")

    registry = ChannelRegistry([Recorder("console"), Recorder("log")])
    routing = RoutingTable(registry, kinds=KINDS, build=fails)
    with pytest.raises(ConfigurationError, match="no such number"):
        routing.load(GOOD)
    assert (routing.config, list(registry)) == (None, ["console", "log"])


def test_errors_of_the_operators_checks_are_reported_like_others() -> None:
    registry = ChannelRegistry([Recorder("console"), Recorder("log")])
    routing = RoutingTable(registry, kinds=KINDS, build=built, check=lambda config: ["credential x is missing"])
    with pytest.raises(RoutingConfigError, match="credential x is missing"):
        routing.load(GOOD)


# Sources


@asynccontextmanager
async def following(source: FileSource | ConfigMapSource) -> AsyncIterator[None]:
    """Load what changes in the source, in a task of its own."""
    task = asyncio.create_task(source.run())
    try:
        yield
    finally:
        task.cancel()


@virtual
async def test_a_file_is_reloaded_and_a_deleted_one_changes_nothing(tmp_path: Path) -> None:
    routing, _ = table()
    file = tmp_path / "routing.yaml"
    source = FileSource(file, routing, interval=5)
    with pytest.raises(ConfigurationError, match=r"cannot read the routing configuration .*: No such file"):
        source.load()
    file.write_text(GOOD)
    source.load()
    async with following(source):
        file.write_text(GOOD.replace("priority = Critical", "priority = High"))
        await asyncio.sleep(6)
        assert routing.resolve({"priority": "High"}).receivers == ("oncall",)
        file.write_text("route: nonsense")
        await asyncio.sleep(6)
        assert routing.resolve({"priority": "High"}).receivers == ("oncall",)
        file.unlink()
        await asyncio.sleep(6)
        file.write_text(GOOD)
        await asyncio.sleep(6)
        assert routing.resolve({"priority": "High"}).receivers == ("everybody",)
        assert routing.loaded == 3


@virtual
@pytest.mark.parametrize("error", [MissingExtra("pager", extra="pager", purpose="a pager"), OSError("broken library")])
async def test_a_channel_that_cannot_be_created_leaves_the_previous_file_in_use(
    tmp_path: Path, error: Exception
) -> None:
    def build(name: str, config: ReceiverConfig) -> Pager:
        if isinstance(config, PagerConfig) and config.number == 13:
            raise error
        return built(name, config)

    registry = ChannelRegistry([Recorder("console"), Recorder("log")])
    routing, file = RoutingTable(registry, kinds=KINDS, build=build), tmp_path / "routing.yaml"
    source = FileSource(file, routing, interval=5)
    file.write_text(GOOD)
    source.load()
    async with following(source):
        file.write_text(GOOD.replace("number: 7", "number: 13"))
        await asyncio.sleep(6)
        assert "pager:oncall: " in (routing.problem or "")
        assert str(error) in (routing.problem or "")
        assert "pager:oncall" in registry
        file.write_text(GOOD.replace("number: 7", "number: 8"))
        await asyncio.sleep(6)
        assert not routing.problem


@pytest.mark.parametrize(
    "configs", ["https://pager.example.com/T0P5ECRET", "{number: T0P5ECRET}", "[{number: T0P5ECRET}]"]
)
def test_an_error_does_not_quote_what_may_be_a_secret_url(configs: str) -> None:
    routing, _ = table()
    with pytest.raises(RoutingConfigError) as caught:
        routing.load(f"route: {{receiver: a}}\nreceivers:\n- name: a\n  pager_configs: {configs}\n")
    assert "pager_configs" in str(caught.value)
    assert "T0P5ECRET" not in str(caught.value)


@virtual
async def test_a_mounted_config_map_is_reloaded_through_its_symbolic_link(tmp_path: Path) -> None:
    routing, _ = table()
    for version, text in (("v1", GOOD), ("v2", GOOD.replace("= Critical", "= High"))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "routing.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "routing.yaml").symlink_to("..data/routing.yaml")
    source = FileSource(tmp_path / "routing.yaml", routing)
    source.load()
    async with following(source):
        (tmp_path / "..new").symlink_to("v2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        await asyncio.sleep(6)
    assert routing.resolve({"priority": "High"}).receivers == ("oncall",)


@virtual
async def test_a_config_map_is_reloaded_and_an_invalid_one_shows_in_the_conditions() -> None:
    async with world() as w:
        await w.client.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "rules", "namespace": "default"},
                "data": {"routing.yaml": GOOD},
            }
        )
        registry = ChannelRegistry([Recorder("console"), Recorder("log")])
        routing = RoutingTable(registry, kinds=KINDS, build=built)
        async with w.operator(registry=registry, router=routing) as _:
            source = ConfigMapSource(w.cache, "default", "rules", routing)
            async with following(source):
                await asyncio.sleep(1)
                await w.create(name="first")
                await asyncio.sleep(1)
                first = await w.condition("RoutingResolved", "first")
                assert (first["reason"], first["message"]) == (
                    "RoutingRuleMatched",
                    "receivers everybody: channels console",
                )
                await w.client.patch(
                    "v1/ConfigMap", "rules", "default", patch={"data": {"routing.yaml": "route: {receiver: x}"}}
                )
                await asyncio.sleep(1)
                await w.create(name="second")
                await asyncio.sleep(1)
                second = await w.condition("RoutingResolved", "second")
                assert (second["status"], second["reason"]) == ("True", "StaleRouting")
                assert "unknown receiver 'x'" in second["message"]
                assert (await w.status("second"))["phase"] == "Sent"
                await w.client.delete("v1/ConfigMap", "rules", "default")
                await asyncio.sleep(1)
                await w.create(name="third")
                await asyncio.sleep(1)
                assert (await w.status("third"))["phase"] == "Sent"
                events = [event.to_dict() for event in await w.client.list("v1/Event", "default")]
        assert "RoutingConfigurationRefused" in {event["reason"] for event in events}
