"""A receiver of notifications that fails at first and then comes back; standard library only.

python examples/notification/receiver.py [--port 8099] [--failures 4]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Receiver(BaseHTTPRequestHandler):
    """A request handler that answers 503 until it has failed often enough, and 200 from then on."""

    failures = 4

    def do_POST(self) -> None:
        """Answer one delivery, and print it."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 503 if Receiver.failures > 0 else 200
        Receiver.failures -= 1
        print(f"{time.strftime('%H:%M:%S')}  attempt {message['attempt']}  {status}  {message['subject']}", flush=True)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing but deliveries."""


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Receive notifications: fail at first, then come back.")
    parser.add_argument("--port", type=int, default=8099, help="port on the loopback interface; 0 for a free one")
    parser.add_argument("--failures", type=int, default=4, help="number of deliveries to refuse with HTTP 503")
    given = parser.parse_args()
    Receiver.failures = given.failures
    with HTTPServer(("127.0.0.1", given.port), Receiver) as server:
        print(f"http://127.0.0.1:{server.server_port}/ refuses {given.failures} deliveries first", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
