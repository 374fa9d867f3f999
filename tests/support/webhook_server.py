"""An HTTP server on loopback that stands for a webhook, an SNS topic or a collector of metrics."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ReceivedRequest:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebhookServer:
    """Answers with these statuses in turn, and from then on with the last."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    received: list[ReceivedRequest] = field(default_factory=list)
    #: Answers wait for this event.
    gate: threading.Event | None = None


@contextmanager
def serve_webhook(**given) -> Iterator[WebhookServer]:
    """Serve for the length of the block."""
    webhook = WebhookServer(**given)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            lowered = {name.lower(): value for name, value in self.headers.items()}
            webhook.received.append(ReceivedRequest(self.path, lowered, body))
            statuses = webhook.statuses
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            if webhook.gate:
                webhook.gate.wait(10)
            # The client may have given up.
            with suppress(ConnectionError):
                self.send_response(status)
                for name, value in webhook.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(webhook.body)))
                self.end_headers()
                self.wfile.write(webhook.body)

        def log_message(self, *_):
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Closing waits for the requests, so that none reaches another test.
    http_server.daemon_threads = False
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
    thread.start()
    webhook.url = f"http://127.0.0.1:{http_server.server_port}"
    try:
        yield webhook
    finally:
        if webhook.gate:
            webhook.gate.set()
        http_server.shutdown()
        http_server.server_close()
        thread.join()
