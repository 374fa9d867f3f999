"""Secrets in URLs that the process knows are in no text that leaves it, whatever goes wrong with them."""

import html
import json
import shutil
import socketserver
import string
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_snapshot import cli, endpoints, redaction
from batch_snapshot.aws import profiles
from batch_snapshot.cli import terminal
from batch_snapshot.cli.notify import Notifiers
from batch_snapshot.config import accounts
from batch_snapshot.config.options import Options
from batch_snapshot.errors import InputError
from batch_snapshot.manifest.keys import check_endpoint_url
from batch_snapshot.models import Account, Status
from tests.support.ledgers import LedgerBuilder, row
from tests.support.processes import environment, move_in, pairs, write_manifest
from tests.support.webhook_server import serve_webhook

#: Also what a URL should have escaped, and often has not.
PASSWORDS = st.text(
    string.ascii_letters + string.digits + "@:/?#%&+=!$'\"\\ é", min_size=8, max_size=24
).filter(lambda text: sum(char in string.ascii_letters for char in text) > 4)
#: Never a word that a message or the report's page contains by itself.
UNIQUE_PASSWORDS = PASSWORDS.map(lambda text: f"Zq7{text}")

HOOK = "T0123ABCD/B0123ABCD/aVeryLongSecretOfSlacks"


def spellings(user: str, password: str) -> set[str]:
    """How a password may be met."""
    plain = unquote(password)
    found = {password, plain, quote(plain, safe=""), html.escape(plain), json.dumps(plain)[1:-1]}
    for pair in (f"{user}:{password}", f"{unquote(user)}:{plain}"):
        found |= {
            b64encode(pair.encode(code, "replace")).decode().rstrip("=") for code in ("utf-8", "latin-1")
        }
    return found


# -- texts -------------------------------------------------------------------------------------------


@given(
    UNIQUE_PASSWORDS,
    st.booleans(),
    st.sampled_from(["HTTP_PROXY", "https_proxy", "ALL_PROXY", "AWS_ENDPOINT_URL_SNS"]),
)
def test_no_spelling_of_a_password_is_left_in_a_text(password, escaped, variable):
    written = quote(password, safe="") if escaped else password
    secrets = redaction.Secrets(redaction.of_environment({variable: f"http://me:{written}@proxy:3128"}))
    for spelling in spellings("me", written):
        said = secrets.scrub(f"407 for url='http://me:{spelling}@proxy:3128' ({spelling}), not {spelling}.")
        assert spelling not in said
        assert said.startswith("407 for url='http://[secret]")


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("http://user:p@ss:word@host:notaport", "ss:word"),
        ("http://user:p@ss:word@host:notaport", "word"),
        ("user:hunter22@proxy:3128", "hunter22"),
        ("http://ghp_0123456789abcdef@proxy", "ghp_0123456789abcdef"),
        ("http://ghp_0123456789abcdef:@proxy", "ghp_0123456789abcdef"),
        ("http://me:in/the/path@proxy", "in/the/path"),
        ("http://me:pa%3Ass@proxy", "pa:ss"),
        ("http://me:pass@proxy", "me:pass"),
        ("http://me:pass@proxy", "pass"),
    ],
)
def test_parts_of_a_url_that_parsers_quote_are_secret(url, secret):
    secrets = redaction.Secrets(redaction.of_environment({"HTTPS_PROXY": url}))
    assert secret not in secrets.scrub(f"Port could not be cast to integer value as '{secret}'")


def test_a_short_password_is_taken_out_of_urls_and_not_of_words():
    secrets = redaction.Secrets(redaction.of_environment({"HTTPS_PROXY": "http://me:row@proxy"}))
    assert secrets.scrub("3 rows of http://me:row@proxy") == "3 rows of http://[secret]@proxy"
    words = redaction.Secrets(redaction.of_environment({"HTTPS_PROXY": "http://me:rows@proxy"}))
    assert words.scrub("the rows, arrows") == "the [secret], arrows"


def test_user_and_password_of_any_url_are_taken_out():
    said = redaction.Secrets().scrub("moved to https://a:b@evil.example/x, or mail me@example.com")
    assert said == "moved to https://[secret]@evil.example/x, or mail me@example.com"


@pytest.mark.parametrize("words", [["--notify-webhook", "{}"], ["--notify-webhook={}"]])
def test_the_url_of_a_webhook_is_a_secret_as_a_whole(words):
    url = f"https://hooks.slack.com/services/{HOOK}?token=0123456789abcdef"
    for found in (
        redaction.of_arguments([word.format(url) for word in words]),
        redaction.of_environment({"BATCH_SNAPSHOT_NOTIFY_WEBHOOK": url}),
    ):
        secrets = redaction.Secrets(found)
        for part in (url, url[8:], f"/services/{HOOK}", "aVeryLongSecretOfSlacks", "0123456789abcdef"):
            assert part not in secrets.scrub(f"cannot post to {part}: refused")
        assert secrets.scrub("hooks.slack.com: services") == "hooks.slack.com: services"


def test_authorization_variables_are_secrets():
    environ = {
        "AWS_SECRET_ACCESS_KEY": "0123456789abcdef",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Bearer zyxwvu",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=qwertzuiop,x=1",
    }
    secrets = redaction.Secrets(redaction.of_environment(environ))
    text = "0123456789abcdef, Bearer zyxwvu, qwertzuiop"
    assert secrets.scrub(text) == "[secret], [secret], [secret]"


def test_every_text_of_an_object_is_without_secrets(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:correct-horse@proxy")
    redaction.begin([])
    value = {"correct-horse": [{"a": ("correct-horse", 1, None)}]}
    assert redaction.redacted_all(value) == {"[secret]": [{"a": ["[secret]", 1, None]}]}


@pytest.mark.parametrize("form", ["text", "json"])
def test_every_output_of_the_program_is_redacted(monkeypatch, capfd, form):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:correct-horse@proxy")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    redaction.begin([])
    terminal.log("one: correct-horse", reporter=terminal.Reporter(form), field=["correct-horse"])
    terminal.write("two: correct-horse\n")
    terminal.print_json({"three": "correct-horse"})
    with serve_webhook() as hook:
        flags = ("notify_sns", "notify_every", "metrics_file", "endpoint_url", "simulate", "profile")
        given = {**dict.fromkeys(flags), "notify_webhook": hook.url}
        others = Notifiers("run", Path("correct-horse.yaml"), given)
        others.run_failed(InputError("four: correct-horse"))
        received = hook.received[0].body.decode()
    said = "".join(capfd.readouterr()) + received + terminal.shown("five: correct-horse")
    assert "correct-horse" not in said
    assert all(f"{number}: [secret]" in said for number in ("one", "two", "four", "five"))
    assert '"three": "[secret]"' in said


def test_endpoints_of_credential_services_are_checked_for_every_target(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://me:hunter22@sts")
    for before in (None, "http://127.0.0.1:9"):
        with pytest.raises(InputError, match="AWS_ENDPOINT_URL_STS: leave credentials out"):
            accounts.resolve_targets({"main": Account("main")}, Options(), profiles.endpoints, before)
    targets = accounts.resolve_targets({"main": Account("main")}, Options(simulate=True), profiles.endpoints)
    assert targets.endpoint == "simulator"


# -- endpoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://me:hunter2@host", "http://hunter2@host", "http://me:p@hunter2:x@host:notaport", "http://a@[x"],
)
def test_an_endpoint_with_credentials_is_refused_and_not_quoted(url):
    services = ("STS", "SSO", "SSO_OIDC")
    checks = [
        *((endpoints.environment_endpoint, name) for name in endpoints._SERVICE_VARIABLES),
        *((endpoints.check_credential_endpoints, f"AWS_ENDPOINT_URL_{name}") for name in services),
    ]
    for check, name in checks:
        with pytest.raises(InputError, match=name) as caught:
            check({name: url})
        assert "hunter2" not in str(caught.value)
    problem = check_endpoint_url(url)
    assert problem
    assert "hunter2" not in problem


# -- a whole run -------------------------------------------------------------------------------------


@contextmanager
def proxy() -> Iterator[str]:
    """A proxy that wants another password, and repeats the one that it was given; its host and port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            given = b""
            while (line := self.rfile.readline(65536)).strip():
                if line.lower().startswith(b"proxy-authorization:"):
                    given = line.split()[-1]
            self.wfile.write(
                b"HTTP/1.1 407 not " + given + b"\r\nContent-Length: 0\r\nConnection: close\r\n"
                b"x-amzn-RequestId: " + given + b"\r\n\r\n"
            )

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def said_by(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = cli.main(words)
    return code, "\n".join(capfd.readouterr())


WEBHOOK = f"/services/{HOOK}"


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    password=UNIQUE_PASSWORDS,
    escaped=st.booleans(),
    scheme=st.sampled_from(["http", "https"]),
    bad_port=st.booleans(),
)
def test_a_proxys_password_is_in_nothing_that_a_run_leaves(
    tmp_path, monkeypatch, capfd, password, escaped, scheme, bad_port
):
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    written = quote(password, safe="") if escaped else password.replace(" ", "")
    with proxy() as host, serve_webhook() as hook:
        given = f"http://me:{written}@{host}{'x' if bad_port else ''}"
        names = {f"{scheme}_proxy": given, f"{scheme.upper()}_PROXY": given}
        move_in(monkeypatch, folder, environment(folder) | names)
        write_manifest(Path("trial.yaml"), pairs(2))
        flags = ["--notify-webhook", hook.url + WEBHOOK, "--metrics-file", "m.prom"]
        flags += ["-v", "--progress", "lines", "--endpoint-url", f"{scheme}://example.invalid"]
        limits = ["--max-attempts", "1", "--max-duration", "5s"]
        forms = ["--all", "--log-format", "json", "--format", "json"]
        ledger = "ledgers/trial.ndjson"
        ran = said_by(["run", "trial.yaml", *flags, *limits], capfd)
        again = said_by(["retry", ledger, *forms, *limits], capfd)
        status = said_by(["status", ledger], capfd)
        made = said_by(["report", ledger, "--html", "r.html", "--csv", "csv"], capfd)
        assert ran[0] in {1, 3, 4}
        assert hook.received
        received = "".join(one.body.decode() for one in hook.received)
    assert made[0] == 0
    left = [path.read_text("utf-8", "replace") for path in folder.rglob("*") if path.is_file()]
    everything = "\n".join([ran[1], again[1], status[1], made[1], received, *left])
    for spelling in {*spellings("me", written), HOOK}:
        assert spelling not in everything


@pytest.mark.parametrize(
    "words",
    [
        ["run", "x.yaml", "--endpoint-url", "http://me:hunter22@host:notaport"],
        ["run", "x.yaml", "--concurrency", "http://me:hunter22@host"],
        ["run", "http://me:hunter22@host"],
        ["http://me:hunter22@host"],
        ["run", "x.yaml", "--log-format", "json", "--rate", "http://me:hunter22@host"],
        ["run", "x.yaml", "--notify-webhook", "https://hunter22-is-the-secret of it"],
    ],
)
def test_secrets_on_the_command_line_are_not_repeated(tmp_path, monkeypatch, capfd, words):
    move_in(monkeypatch, tmp_path)
    code, said = said_by(words, capfd)
    assert code == 2
    assert "hunter22" not in said
    assert said.strip()


def test_an_older_ledger_with_a_password_is_reported_without_it(tmp_path, monkeypatch, capfd):
    move_in(monkeypatch, tmp_path, environment(tmp_path))
    told = "http://me:correct-horse@127.0.0.1:9 said correct-horse"
    old = LedgerBuilder(1).begin().intend(row(1)).result(row(1), Status.FAILED, message=told).end()
    ledger = old.write(tmp_path / "l.ndjson")
    assert "correct-horse" in ledger.read_text("utf-8")
    monkeypatch.setenv("HTTP_PROXY", "http://me:correct-horse@127.0.0.1:9")
    code, said = said_by(["report", str(ledger), "--html", "r.html", "--csv", "csv"], capfd)
    assert code == 0
    shown = said_by(["status", str(ledger)], capfd)[1]
    shown += said_by(["status", str(ledger), "--format", "json"], capfd)[1]
    made = [path.read_text("utf-8") for path in (Path("r.html"), *Path("csv").iterdir())]
    assert "correct-horse" not in "\n".join([said, shown, *made])
    assert any("[secret]" in text for text in made)


def teardown_module() -> None:
    """No other test has this one's command line."""
    redaction.begin([])
    redaction._running.clear()
