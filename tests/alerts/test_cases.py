"""The cases of the alert rules, which ``nox -s alerts`` runs, are complete."""

from __future__ import annotations

from collections import defaultdict

import yaml

from tests.alerts.__main__ import CASES, rules


def test_each_rule_fires_in_a_case_and_does_not_in_another() -> None:
    outcomes: dict[str, set[bool]] = defaultdict(set)
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for expected in case["alert_rule_test"]:
            outcomes[expected["alertname"]].add(bool(expected["exp_alerts"]))
    names = {rule["alert"] for group in rules()["groups"] for rule in group["rules"]}
    assert outcomes == {name: {True, False} for name in names}
