"""Draw the dashboards and alerts as they show the scene: ``python -m tests.dashboards``; three minutes, and a build.

Prometheus scrapes the operators of the scene, and answers the queries of each panel. ``--save FILE`` keeps the answers,
``--load FILE`` draws them again. Names the panels that show nothing, and then exits with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.alerts.__main__ import program, rules
from tests.dashboards.scene import SECONDS, scene

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "dashboards"
DASHBOARDS = {
    "controllers": ROOT / "examples" / "grafana" / "controllers.json",
    "notification": ROOT / "examples" / "notification" / "grafana-dashboard.json",
}
VARIABLES = {"$__rate_interval": "10s", "$job": "databases", "$controller": ".*"}
"""What Grafana fills in. Its rate interval is four scrape intervals or more; here it is ten."""


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """Return the panels of a dashboard with queries that Prometheus understands."""
    text = dashboard.read_text()
    for variable, value in VARIABLES.items():
        text = text.replace(variable, value)
    found: list[dict[str, Any]] = json.loads(text)["panels"]
    return found


def alerts() -> list[dict[str, Any]]:
    """Return a panel for each alert: its expression without the comparison, and the threshold."""
    found: list[dict[str, Any]] = []
    groups: Any = rules()["groups"]
    for number, rule in enumerate(rule for group in groups for rule in group["rules"]):
        expression, sign, threshold = re.fullmatch(r"(.*?) ([<>]) ([\d.]+)(?: or absent.*)?", rule["expr"]).groups()  # type: ignore[union-attr]
        position = {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8}
        title = f"{rule['alert']}: {sign} {threshold}" + (f" for {rule['for']}" if "for" in rule else "")
        target = {"expr": expression, "legendFormat": ""}
        found.append({"type": "timeseries", "title": title, "gridPos": position, "targets": [target]})
        found[-1]["threshold"] = float(threshold)
    return found


@contextlib.asynccontextmanager
async def prometheus(jobs: dict[str, dict[str, str]], scratch: Path) -> AsyncIterator[str]:
    """Run a Prometheus that scrapes the jobs, and evaluates the alert rules, each second; give its URL."""
    targets = {
        job: [{"targets": [url.removeprefix("http://")], "labels": {"pod": pod}} for pod, url in pods.items()]
        for job, pods in jobs.items()
    }
    (scratch / "rules.yaml").write_text(yaml.safe_dump(rules()))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": job, "static_configs": each} for job, each in targets.items()],
    }
    (scratch / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address={address}")
    process = await asyncio.create_subprocess_exec(program("prometheus"), *options, "--log.level=warn", cwd=scratch)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        await process.wait()


async def record() -> dict[str, list[dict[str, Any]]]:
    """Let the scene run, and return the panels of each dashboard with their answers."""
    pictures = {name: panels(path) for name, path in DASHBOARDS.items()} | {"alerts": alerts()}
    program("prometheus")
    with tempfile.TemporaryDirectory() as scratch:
        async with (
            scene(Path(scratch)) as jobs,
            prometheus(jobs, Path(scratch)) as url,
            aiohttp.ClientSession() as http,
        ):
            start = time.time()
            await asyncio.sleep(SECONDS)
            span = {"start": start, "end": time.time(), "step": 1}
            for target in (
                target for each in pictures.values() for panel in each for target in panel.get("targets", [])
            ):
                async with http.get(f"{url}/api/v1/query_range", params={"query": target["expr"], **span}) as response:
                    told = await response.json()
                if told["status"] != "success":
                    sys.exit(f"{target['expr']}: {told['error']}")
                target["series"] = [
                    {"labels": each["metric"], "points": [(at - start, float(value)) for at, value in each["values"]]}
                    for each in told["data"]["result"]
                ]
    return pictures


def main() -> int:
    """Record and draw."""
    from tests.dashboards.draw import draw

    parser = argparse.ArgumentParser(prog="python -m tests.dashboards", description=__doc__)
    parser.add_argument("--save", type=Path, help="file for the answers of Prometheus")
    parser.add_argument("--load", type=Path, help="file with answers to draw, instead of new ones")
    options = parser.parse_args()
    pictures = json.loads(options.load.read_text()) if options.load else asyncio.run(record())
    if options.save:
        options.save.write_text(json.dumps(pictures))
    PICTURES.mkdir(exist_ok=True)
    empty = []
    for name, drawn in pictures.items():
        draw(drawn, PICTURES / f"{name}.png")
        empty += [
            f"{name}: {panel['title']}: {target['expr']}\n"
            for panel in drawn
            for target in panel.get("targets", [])
            if not target["series"]
        ]
    sys.stdout.write("".join(["these queries give nothing:\n", *empty] if empty else ["every query gives something\n"]))
    return bool(empty)


if __name__ == "__main__":
    sys.exit(main())
