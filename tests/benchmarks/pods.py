"""Generated pods of 3.5 KB as a cluster has them, with random names, uids, hashes and times."""

from __future__ import annotations

import json
import random
import uuid
from pathlib import Path

PODS_PER_OWNER = 10

_POD = json.dumps(json.loads(Path(__file__).with_name("pod.json").read_text()), separators=(",", ":"))
"""The document of a pod, with a place for each text that is its own."""


def pod(number: int, namespace: str, version: int) -> bytes:
    """Return the document of a pod; a number always has the same one.

    Args:
        number: makes its name, its uid and its owner.
        namespace: where.
        version: its resourceVersion.
    """
    own, shared = random.Random(number), random.Random(-(number // PODS_PER_OWNER))
    name = f"app-{number % 1000:04}-{_text(shared, 10)}-{_text(own, 5)}"
    container, times = _text(own, 64), [f"{own.randrange(60):02}" for _ in range(9)]
    address = (own.randrange(256), own.randrange(256))
    sums = (_text(shared, 64), _text(own, 64))
    metadata = (name, namespace, _uid(own), version, times[8], *sums, container, *address, _uid(shared))
    spec = (_text(own, 5), _text(own, 3))
    status = (*times[:4], own.randrange(256), *address, *times[4:8], _text(shared, 64), container)
    return (_POD % (*metadata, *spec, *status)).encode()


def _text(rng: random.Random, length: int) -> str:
    return f"{rng.getrandbits(4 * length):0{length}x}"


def _uid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128)))
