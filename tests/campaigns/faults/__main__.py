"""The fault campaign on a real control plane; prints its results as a table."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter

from tests.campaigns.faults.campaign import FAULTS, prepared
from tests.campaigns.faults.judge import Judge, Verdict

DEFAULTS = {
    "kill the operator": 30,
    "kill the API server": 4,
    "kill etcd": 3,
    "restart both": 2,
    "stop the leader": 3,
    "stop the API server": 3,
    "restore etcd": 2,
    "step a clock": 4,
}


def option(fault: str) -> str:
    return "--" + fault.replace("the ", "").replace(" ", "-").lower()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="campaign-faults", description=__doc__)
    parser.add_argument(
        "--seed",
        type=int,
        default=random.SystemRandom().randrange(10**6),
        help="seed of all random choices; default random",
    )
    parser.add_argument("--requests", type=int, default=300, help="number of NotificationRequests; default 300")
    parser.add_argument("--minutes", type=float, default=15, help="time limit of the campaign; default 15")
    parser.add_argument("--only", action="append", choices=FAULTS, help="inject only this fault; can be repeated")
    for fault in FAULTS:
        parser.add_argument(
            option(fault),
            type=int,
            default=DEFAULTS[fault],
            metavar="N",
            help=f"number of times; default {DEFAULTS[fault]}",
        )
    return parser.parse_args()


async def run(given: argparse.Namespace) -> Verdict:
    counts = {fault: getattr(given, option(fault)[2:].replace("-", "_")) for fault in FAULTS}
    faults = Counter({fault: count for fault, count in counts.items() if not given.only or fault in given.only})
    async with prepared(seed=given.seed, requests=given.requests, faults=faults, minutes=given.minutes) as campaign:
        await campaign.run()
        return Judge(campaign).judge()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    given = arguments()
    say(f"seed {given.seed}")
    began = time.monotonic()
    verdict = asyncio.run(run(given))
    say(f"\n| seed {given.seed}, {time.monotonic() - began:.0f} s | |\n|---|---:|")
    for name, figure in verdict.figures.items():
        say(f"| {name} | {figure} |")
    for wrong in verdict.wrong:
        say(f"WRONG: {wrong}")
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
