"""A later version of the AWS libraries may rename a private name: then there is a warning or a refusal.

The libraries are loaded with the name changed wherever it stands, in a process of its own.
"""

import json
import subprocess
import sys

import pytest
from aiobotocore.httpsession import AIOHTTPSession

from tests import ROOT
from tests.support.tls_servers import Authority, serve_proxy, serve_tls

#: Loads the AWS libraries with a name changed.
RENAMING = r"""
import re, sys
from importlib.machinery import PathFinder, SourceFileLoader

NAME = rb"\b%s\b" % sys.argv[1].encode()

class Renamed(SourceFileLoader):
    def get_code(self, fullname):
        source = self.get_data(self.path)
        changed = re.sub(NAME, b"renamed", source)
        return super().get_code(fullname) if changed == source else compile(changed, self.path, "exec")

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"aioboto3", "aiobotocore", "aiohttp", "botocore"}:
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None and type(spec.loader) is SourceFileLoader:
                spec.loader = Renamed(spec.loader.name, spec.loader.path)
            return spec

sys.meta_path.insert(0, Finder)
"""

#: Sends a call to each URL, and prints what became of them and the warnings.
SENDING = """
import asyncio, json, os
from datetime import UTC, datetime
from batch_snapshot.aws import sdk
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.models import Account, ApiError, Request, Row
from tests.support import botocore_cache

botocore_cache.once()
ROW = Row("main", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1234567", "OpportunitySummaryView")

async def outcome(url):
    target = Target(endpoint_url=url)
    async with Clients({"main": Account("main")}, target, lambda: datetime.now(UTC)) as clients:
        try:
            for number in range(2):
                await clients.send(Request(ROW, f"00000000-0000-5000-8000-{number:012d}"))
        except ApiError as error:
            return f"{error.failure.verdict.name}: {error.failure.message}"
        return "sent"

async def main():
    found = {"right": await outcome(sys.argv[2]), "wrong": await outcome(sys.argv[3])}
    os.environ["HTTPS_PROXY"] = sys.argv[4]
    return found | {"by proxy": await outcome(sys.argv[2]), "wrong by proxy": await outcome(sys.argv[3])}

warnings = []
sdk.warn.set(warnings.append)
print(json.dumps([asyncio.run(main()), warnings]))
"""

long = pytest.mark.long

#: Whether aiobotocore verifies servers behind a proxy (since 3.9).
BY_ITSELF = hasattr(AIOHTTPSession, "_build_verify_context")

#: By name: whether calls are sent directly and by a proxy, and what the warning says.
RENAMED = [
    ("unchanged", True, True, None),
    ("_RefCountedSession", True, True, None),
    ("_get_session", False, False, None),
    ("_setup_proxy_ssl_context", True, BY_ITSELF, None),
    pytest.param("_ssl", False, False, None, marks=long),
    pytest.param("_endpoint", False, False, None, marks=long),
    pytest.param("_create_client", True, True, None, marks=long),
    pytest.param("_create_credential_resolver", True, True, None, marks=long),
    pytest.param("_get_ssl_context", True, True, None, marks=long),
    pytest.param("_sessions", True, True, None, marks=long),
    pytest.param("_verify", True, True, None, marks=long),
    pytest.param("_fetcher", True, True, None, marks=long),
    ("_factory", True, True, "each call makes a connection of its own"),
    pytest.param("_create_connection", True, True, "may be in doubt", marks=long),
    pytest.param("resolved_protocol", True, True, "calls take more processor time", marks=long),
    pytest.param("shape_for_error_code", True, True, "calls take more processor time", marks=long),
    pytest.param("_prompter", True, True, "while an MFA code is typed", marks=long),
    pytest.param("_popen", True, True, "may take any time", marks=long),
    pytest.param("_profile_provider_builder", True, True, "may take any time", marks=long),
    pytest.param("_resolve_source_credentials", True, True, "are not explained", marks=long),
    pytest.param("_SSO_TOKEN_CACHE_DIR", True, True, None, marks=long),
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder / "ca.pem")
    right = authority.issue(folder / "right.pem", "localhost", "127.0.0.1")
    wrong = authority.issue(folder / "wrong.pem", "evil.example")
    with serve_tls(right) as good, serve_tls(wrong) as bad, serve_proxy() as proxy:
        yield authority.file, good, bad, proxy


def python(folder, script, name, *arguments, ca):
    environ = {
        "PATH": "",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CA_BUNDLE": str(ca),
    }
    command = [sys.executable, "-c", RENAMING + script, name, *arguments]
    return subprocess.run(
        command, env=environ, cwd=folder, capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.parametrize(("name", "directly", "by_proxy", "warning"), RENAMED)
def test_a_private_name_that_is_gone_is_met_by_a_warning_or_nothing_is_sent(
    servers, tmp_path, name, directly, by_proxy, warning
):
    ca, right, wrong, proxy = servers
    for server in (right, wrong, proxy):
        server.received.clear()
    urls = (f"https://localhost:{server.port}" for server in (right, wrong))
    done = python(tmp_path, SENDING, name, *urls, f"http://127.0.0.1:{proxy.port}", ca=ca)
    assert (done.returncode, done.stderr) == (0, "")
    found, warnings = json.loads(done.stdout)
    for key, sent in (("right", directly), ("by proxy", by_proxy)):
        refused = found[key].startswith("STOP_ACCOUNT: ") and "requirements.lock" in found[key]
        assert found[key] == "sent" if sent else refused, found
    assert wrong.received == []
    assert not found["wrong"].startswith("sent")
    assert not found["wrong by proxy"].startswith("sent")
    assert len(right.received) == 2 * (directly + by_proxy)
    assert [warning in one for one in warnings] == [True] if warning else warnings == []


RUNNING = """
sys.argv[1:] = ["run", sys.argv[2], "--simulate", "--limit", "1"]
from batch_snapshot.__main__ import main
sys.exit(main())
"""


def test_a_name_that_must_be_imported_and_is_gone_is_one_line(servers, tmp_path):
    done = python(tmp_path, RUNNING, "AioIMDSFetcher", str(ROOT / "manifests/demo.yaml"), ca=servers[0])
    assert done.returncode == 2
    assert done.stderr.startswith("error: the installed AWS libraries are not supported (cannot import name ")
    assert "requirements.lock" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.long
def test_a_warning_is_a_line_of_the_command_line(servers, tmp_path):
    done = python(tmp_path, RUNNING, "_factory", str(ROOT / "manifests/demo.yaml"), ca=servers[0])
    assert done.returncode == 4
    [line] = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "TCPConnector._factory" in line
