"""A user's own server for the tests of mistakes: one process, only the standard library, ready in a tenth of a second.

    python own_server.py --port N [--status S] [--only MODEL] [--says MODEL] [--pause S]

It answers completions with the prompt, cut to `max_tokens` letters. It does not stream.
"""

from __future__ import annotations

import argparse
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


class Handler(BaseHTTPRequestHandler):
    """Answers `/health`, `/v1/models` and `/v1/completions`."""

    arguments: ClassVar[argparse.Namespace]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer the readiness probe, and list the models."""
        names = [name for name in (self.arguments.says,) if name]
        if self.path == "/health":
            self._say(200, {"status": "ready"})
        elif self.path == "/v1/models" and names:
            self._say(200, {"data": [{"id": name} for name in names]})
        else:
            self._say(404, "404: Not Found")

    def do_POST(self) -> None:
        """Answer a completion."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = asked["model"]
        if self.arguments.status:
            self._say(self.arguments.status, "503: no server is available")
        elif self.arguments.only not in ("", model):
            self._say(404, {"error": f"the model {model} does not exist"})
        else:
            text = asked["prompt"][: asked["max_tokens"]]
            choice = {"text": text, "finish_reason": "length"}
            self._say(200, {"model": self.arguments.says or model, "choices": [choice]})

    def _say(self, status: int, what: Any) -> None:
        body = what.encode() if isinstance(what, str) else json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no line for each request."""


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--status", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--says", default="")
    parser.add_argument("--pause", type=float, default=0.0)
    Handler.arguments = parser.parse_args()
    time.sleep(Handler.arguments.pause)
    ThreadingHTTPServer.allow_reuse_address = False
    ThreadingHTTPServer(("127.0.0.1", Handler.arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
