"""The receiver of a campaign, a process of its own: it records each call before and after it, with fsync.

So its record is complete whatever happens to the operators. A third of the calls fail.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from typing import Any


async def serve(file: str) -> None:
    """Write the port, and answer calls, one a connection, until the input ends."""
    record = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(what: str, call: dict[str, Any]) -> None:
        os.write(record, json.dumps({"what": what, "time": time.time(), **call}).encode() + b"\n")
        os.fsync(record)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line.endswith(b"\n"):
            call = json.loads(line)
            write("call", call)
            await asyncio.sleep(random.uniform(0, 0.3))
            chance = random.random()
            write("failed" if chance < 0.33 else "delivered", call)
            writer.write(b"%f\n" % chance)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
