"""Third-party channels that record each call in a file with fsync, before and after it.

The proof of the kills (test_kills) offers it to ``reconciler run notification`` by entry points; what it writes is the
truth that the operator's promises are held against.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random

from reconciler.notification import Message, RetryableDeliveryError

LEDGER = "CALLS"
SHARE = 0.1


class Ledger:
    """A channel that delivers by writing a line to a file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._file = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def deliver(self, message: Message) -> None:
        message.mark_sent()
        self._write("call", message)
        rng = random.Random(hashlib.sha256(f"{message.name}{self.name}{message.attempt}".encode()).digest())
        await asyncio.sleep(rng.uniform(0, 0.1))
        fails = rng.random() < SHARE
        self._write("failed" if fails else "delivered", message)
        if fails:
            raise RetryableDeliveryError("503")

    def _write(self, what: str, message: Message) -> None:
        entry = {
            "what": what,
            "request": message.name,
            "channel": self.name,
            "attempt": message.attempt,
            "process": os.getpid(),
        }
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        os.fsync(self._file)


def one() -> Ledger:
    return Ledger("one")


def two() -> Ledger:
    return Ledger("two")


def three() -> Ledger:
    return Ledger("three")
