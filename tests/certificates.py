"""Servers on loopback that speak real TLS: AWS services as far as the tests call them, and a proxy.

The certificates are made here, of an authority of their own: good ones, and what must be refused.
"""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import Thread
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = timedelta(days=1)
KEYS = "<AccessKeyId>AKIAFROMROLE00000001</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
LATER = (datetime.now(UTC) + DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
#: What each operation answers; of STS and SNS in XML, of the others in JSON.
XML = {
    "AssumeRole": f"<Credentials>{KEYS}<SessionToken>t</SessionToken><Expiration>{LATER}</Expiration></Credentials>",
    "GetCallerIdentity": "<Account>123456789012</Account>",
    "Publish": "<MessageId>m</MessageId>",
}
XML["AssumeRoleWithWebIdentity"] = XML["AssumeRole"]
SSO = {"accessKeyId": "AKIAFROMSSO000000001", "secretAccessKey": "s", "sessionToken": "t", "expiration": 4e12}
MADE = {"Arn": "arn:aws:partnercentral:us-east-1::catalog/Sandbox/s/1", "Revision": 1}


@dataclass(frozen=True)
class Authority:
    """One that signs certificates; `file` holds its own."""

    file: Path
    name: str = "authority"
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.file.write_bytes(self._signed(self.name, self.key, []).public_bytes(serialization.Encoding.PEM))

    def issue(self, path: Path, *names: str, days: int = 1) -> Path:
        """Write a certificate for these host names and addresses, and its key; negative days: it is over."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.IPAddress(ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        signed = self._signed(names[0], key, alternatives, days)
        pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*pem))
        return path

    def _signed(self, subject: str, key: Any, alternatives: list[Any], days: int = 1) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = datetime.now(UTC)
        build = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
        build = build.not_valid_before(now - 9 * DAY).not_valid_after(now + days * DAY)
        ours = key is self.key
        build = build.add_extension(x509.BasicConstraints(ca=ours, path_length=None), critical=True)
        if alternatives:
            build = build.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return build.sign(self.key, hashes.SHA256())


class _Service(BaseHTTPRequestHandler):
    """Answers each call of AWS's with a success, and keeps its name."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        action = body.partition("Action=")[2].partition("&")[0]
        target = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.server.heard.append(target or action or self.path)  # type: ignore[attr-defined]
        if action:
            answer = f"<R><{action}Result>{XML[action]}</{action}Result></R>"
        elif target == "GetResourceSnapshot":
            return self._send(400, json.dumps({"__type": "ResourceNotFoundException", "message": "none"}))
        else:
            answer = json.dumps(MADE if target else {"roleCredentials": SSO})
        return self._send(200, answer)

    do_GET = do_POST = _answer  # noqa: N815 - the handler's names

    def _send(self, status: int, answer: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Proxy(BaseHTTPRequestHandler):
    """Opens tunnels, whatever their host is called, to this machine."""

    def do_CONNECT(self) -> None:
        self.server.heard.append(self.path)  # type: ignore[attr-defined]
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as behind:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = Thread(target=_pour, args=(behind, self.connection), daemon=True)
            back.start()
            _pour(self.connection, behind)
            back.join(5)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Server(ThreadingHTTPServer):
    """Keeps what it heard; a handshake that is broken off is no error."""

    daemon_threads = True
    context: ssl.SSLContext | None = None

    def __init__(self, handler: type[BaseHTTPRequestHandler], certificate: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.heard: list[str] = []
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)

    def finish_request(self, request: Any, address: Any) -> None:
        """Shake hands in the connection's own thread."""
        request.settimeout(10)
        with suppress(OSError), ExitStack() as stack:
            if self.context:
                request = stack.enter_context(self.context.wrap_socket(request, server_side=True))
            super().finish_request(request, address)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


@contextmanager
def serving(certificate: Path | None, handler: type[BaseHTTPRequestHandler] = _Service) -> Iterator[_Server]:
    """A server for as long as the block lasts."""
    with ExitStack() as stack:
        server = _Server(handler, certificate)
        stack.callback(server.server_close)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        yield server


def proxying(certificate: Path | None = None) -> Any:
    """A proxy for as long as the block lasts; with a certificate it speaks TLS itself."""
    return serving(certificate, _Proxy)
