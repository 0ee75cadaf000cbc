"""A script that generates routing configurations and records the results of Alertmanager's amtool.

``python tests/notification/record_routing.py $(which amtool) [number] [seed]``. ``go install
github.com/prometheus/alertmanager/cmd/amtool@latest`` builds it. `test_routing_agreement` compares with the record.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

GOLDEN = Path(__file__).parent / "golden" / "routing.json"
NAMES = ["team", "priority", "env", "type", "Üben"]
VALUES = ["storage", "Critical", "prod", "a b", "", 'q"q', "back\\slash", "x=y", "größe", "line\nend", "a,b"]
EXPRESSIONS = [
    "stor.*",
    "a|b",
    "prod|staging",
    ".+",
    "",
    "[a-z]+",
    "(?i)CRITICAL",
    "x=y",
    "\\w+",
    "^prod$",
    "a b|storage",
]
TEXTS = [
    "team=storage", "team = storage", ' team="storage" ', "team=~stor.*", "team=~(storage|net)", "{team=storage}",
    'team="storage",env="prod"', "team=storage, env!=prod", '{team=~"s.+",}', "team!~[a-z]+", "priority=",
    'priority=""',
    'team="a\\"b"', "team=a b", 'team=x="y"', "team==storage", "=storage", "team", "team=~(", 'team="storage', "", "{}",
    "{team=storage", "team=storage}", "team='storage'", '"team"="storage"', "Üben=größe", 'team="\\x73torage"',
    'team="a\\qb"', "team=a\\nb", 'team="line\\nend"', ",team=storage", "team=storage,,env=prod", "team=~\"\\\\w+\"",
]  # fmt: skip

RECEIVERS = [{"name": f"r{number}"} for number in range(8)]


def matcher(rng: random.Random) -> str:
    if rng.random() < 0.06:
        return rng.choice(TEXTS)
    name, operator = rng.choice(NAMES[:4]), rng.choice(["=", "!=", "=~", "!~"])
    value = rng.choice(VALUES if "~" not in operator else EXPRESSIONS)
    return f"{name} {operator} {json.dumps(value, ensure_ascii=False)}"


def route(rng: random.Random, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if rng.random() < 0.8:
        made["receiver"] = f"r{rng.randrange(8)}"
    if rng.random() < 0.85:
        made["matchers"] = [matcher(rng) for _ in range(rng.choice([1, 1, 1, 2]))]
    if rng.random() < 0.15:
        made["match"] = {rng.choice(NAMES[:4]): rng.choice(VALUES)}
    if rng.random() < 0.15:
        made["match_re"] = {rng.choice(NAMES[:4]): rng.choice(EXPRESSIONS)}
    if rng.random() < 0.4:
        made["continue"] = rng.random() < 0.7
    if depth and rng.random() < 0.6:
        made["routes"] = [route(rng, depth - 1) for _ in range(rng.randrange(1, 4))]
    return made


def configuration(rng: random.Random) -> dict[str, Any]:
    root = {"receiver": "r0", "routes": [route(rng, 3) for _ in range(rng.randrange(1, 5))]}
    return {"route": root, "receivers": RECEIVERS}


def attributes(rng: random.Random) -> dict[str, str]:
    return {name: rng.choice(VALUES) for name in NAMES[:4] if rng.random() < 0.7}


def answer(amtool: str, text: str, given: dict[str, str]) -> list[str] | None:
    """Return the receivers that amtool names, or None if it rejects the configuration."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        labels = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
        command = [amtool, "config", "routes", "test", f"--config.file={file.name}", *labels]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip().split("\n")[-1].split(",") if done.returncode == 0 else None


def cases(amtool: str, number: int, seed: int = 1) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    trees = [configuration(rng) for _ in range(number)]
    for text in TEXTS:  # each notation alone
        routes = [{"receiver": "r1", "matchers": [text]}]
        trees.append({"route": {"receiver": "r0", "routes": routes}, "receivers": RECEIVERS})
    made = []
    for tree in trees:
        text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
        asked = [attributes(rng) for _ in range(4)]
        made.append({"config": text, "asked": [[given, answer(amtool, text, given)] for given in asked]})
    return made


if __name__ == "__main__":
    amtool, *rest = sys.argv[1:]
    found = cases(amtool, *(int(each) for each in rest or ["150"]))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    refused = sum(tree["asked"][0][1] is None for tree in found)
    sys.stdout.write(f"{len(found)} trees, {refused} of them refused\n")
