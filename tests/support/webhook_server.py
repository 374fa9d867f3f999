"""Somebody on loopback who is told things: a webhook, a topic, a collector of metrics."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Heard:
    """What has come in."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with the statuses it is given, the last one for ever."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    heard: list[Heard] = field(default_factory=list)
    #: Answers wait for it, if there is one.
    gate: threading.Event | None = None


@contextmanager
def receiving(**given) -> Iterator[Receiver]:
    """Serve a receiver for as long as the block lasts."""
    receiver = Receiver(**given)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            lowered = {name.lower(): value for name, value in self.headers.items()}
            receiver.heard.append(Heard(self.path, lowered, body))
            statuses = receiver.statuses
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            if receiver.gate:
                receiver.gate.wait(10)
            # Whoever gave up waiting has gone.
            with suppress(ConnectionError):
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(receiver.body)))
                self.end_headers()
                self.wfile.write(receiver.body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Closing waits for them, so that none of them is heard in another test.
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        if receiver.gate:
            receiver.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
