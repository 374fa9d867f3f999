"""Servers on loopback that speak real TLS: AWS services as far as the tests call them, and a proxy.

The certificates are made here, of an authority of their own: good ones, and what must be refused.
"""

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from batch_snapshot.clock import utc_now

DAY = timedelta(days=1)
KEYS = "<AccessKeyId>AKIAFROMROLE00000001</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
TOKEN = "<SessionToken>t</SessionToken>"
LATER = (utc_now() + DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
#: What each operation answers; of STS and SNS in XML, of the others in JSON.
XML = {
    "AssumeRole": f"<Credentials>{KEYS}{TOKEN}<Expiration>{LATER}</Expiration></Credentials>",
    "GetCallerIdentity": "<Account>123456789012</Account>",
    "Publish": "<MessageId>m</MessageId>",
}
XML["AssumeRoleWithWebIdentity"] = XML["AssumeRole"]
SSO = {"accessKeyId": "AKIAFROMSSO000000001", "secretAccessKey": "s", "sessionToken": "t", "expiration": 4e12}
MADE = {"Arn": "arn:aws:partnercentral:us-east-1::catalog/Sandbox/s/1", "Revision": 1}


@dataclass(frozen=True)
class Authority:
    """A certificate authority; `file` holds its own certificate."""

    file: Path
    name: str = "authority"
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.file.write_bytes(self._signed(self.name, self.key, []).public_bytes(serialization.Encoding.PEM))

    def issue(self, path: Path, *names: str, days: int = 1) -> Path:
        """Write a certificate for these hosts and addresses, and its key; negative days: it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.IPAddress(ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        signed = self._signed(names[0], key, alternatives, days)
        pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*pem))
        return path

    def _signed(self, subject: str, key: Any, alternatives: list[Any], days: int = 1) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = utc_now()
        build = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
        build = build.not_valid_before(now - 9 * DAY).not_valid_after(now + days * DAY)
        ours = key is self.key
        build = build.add_extension(x509.BasicConstraints(ca=ours, path_length=None), critical=True)
        # Python 3.13 refuses certificates without these three.
        identifiers = (
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        )
        for identifier in identifiers:
            build = build.add_extension(identifier, critical=False)
        build = build.add_extension(_usage("key_cert_sign" if ours else "digital_signature"), critical=True)
        if alternatives:
            build = build.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return build.sign(self.key, hashes.SHA256())


def _usage(*granted: str) -> x509.KeyUsage:
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
    names += ["key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{name: name in granted for name in names})


class _Service(BaseHTTPRequestHandler):
    """Answers each AWS call with a success, and records its name."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        action = body.partition("Action=")[2].partition("&")[0]
        target = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.server.received.append(target or action or self.path)  # type: ignore[attr-defined]
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
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    """Records the calls; an aborted handshake is no error."""

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Service)
        self.received: list[str] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)

    def finish_request(self, request: Any, address: Any) -> None:
        """Do the TLS handshake in the connection's own thread."""
        request.settimeout(10)
        with suppress(OSError), ExitStack() as stack:
            request = stack.enter_context(self.context.wrap_socket(request, server_side=True))
            super().finish_request(request, address)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@contextmanager
def serve_tls(certificate: Path) -> Iterator[_Server]:
    """A service for the length of the block."""
    with ExitStack() as stack:
        server = _Server(certificate)
        stack.callback(server.server_close)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        yield server


class Proxy:
    """Opens every tunnel to this machine, whatever its host; runs in an event loop of its own."""

    def __init__(self, certificate: Path | None) -> None:
        self.received: list[str] = []
        self.port = 0
        self._tls = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)

    async def serve(self, ready: Event, over: asyncio.Event) -> None:
        """Serve until `over` is set."""
        server = await asyncio.start_server(self._tunnel, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        server.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            where = head.split()[1].decode()
            self.received.append(where)
            behind = await asyncio.open_connection("127.0.0.1", int(where.rpartition(":")[2]))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(_pour(reader, behind[1]), _pour(behind[0], writer))


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextmanager
def serve_proxy(certificate: Path | None = None) -> Iterator[Proxy]:
    """A proxy for the length of the block; with a certificate it speaks TLS itself."""
    proxy, ready = Proxy(certificate), Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(proxy.serve(ready, over))

    thread = Thread(target=work)
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
