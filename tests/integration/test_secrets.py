"""Secrets that are planted wherever a run may meet them, and looked for wherever it leaves a trace."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from batch_snapshot.config.options import Options, Settings
from batch_snapshot.jobs import run
from batch_snapshot.reporting.summary import as_json, as_text
from tests.support.http_server import endpoint
from tests.support.processes import Json, Place, move_in, of_type, pairs

pytestmark = pytest.mark.asyncio

CREATE = "CreateResourceSnapshot"

#: Nobody else writes anything like these.
CANARIES = {
    "environment secret": "MTX6T5bC6O3hDpHJanr4VjXiMha2mn82r7HQm6Q7",
    "environment token": "3swkjesLaQutYDtDRd8bU0bWwJacl7mU56vvGWgU",
    "profile secret": "X1c6fvL4v5HttlejQ9kd9HzoKZCAd4cEZiT6NWgA",
    "profile token": "j0sC908CETDszjx97MEufqW1wWWRPVwRrEVQs6OK",
    "process secret": "aHpPCYOXvNTZv01Q87GGkZ6DQSTkWKPAMWNSbjBO",
    "process token": "nQNcDoditllcCxLKo3azrzhZxcMfHvK7YzYNwiKI",
}
#: A part of so many characters counts.
FRAGMENT = 12


def canaries_in(content: bytes | str) -> set[str]:
    """The canaries of which there is a part in the content."""
    text = content if isinstance(content, str) else content.decode("utf-8", "replace")
    return {
        name
        for name, canary in CANARIES.items()
        if any(canary[at : at + FRAGMENT] in text for at in range(len(canary) - FRAGMENT + 1))
    }


def left_in(folder: Path) -> dict[str, set[str]]:
    """The canaries in each file, but those that hold them on purpose."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "given" and (names := canaries_in(path.read_bytes())):
            found[path.name] = names
    return found


def processes() -> set[str]:
    """The canaries in the command lines of all processes."""
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found |= canaries_in(path.read_bytes())
        except OSError:  # it has ended meanwhile
            continue
    return found


def modes(folder: Path) -> dict[str, int]:
    """Who may read the files that a run has made."""
    made = [path for place in ("ledgers", "state") for path in (folder / place).rglob("*") if path.is_file()]
    return {path.name: path.stat().st_mode & 0o777 for path in made}


# -- an endpoint that says all it knows --------------------------------------------------------------


def refusal(code: str, message: str, status: int = 400, **members: Any) -> web.Response:
    text = json.dumps({"__type": code, "Message": message, **members})
    return web.Response(status=status, text=text, content_type="application/x-amz-json-1.0")


#: By the last digit of the resource: an answer that repeats the secrets.
ECHOES: list[Callable[[str], web.Response]] = [
    lambda _: web.json_response({"Arn": "arn:aws:partnercentral:us-east-1::x", "Revision": 1}),
    lambda said: refusal("ValidationException", said, Reason=f"because of {said}"),
    lambda said: refusal(
        "ValidationException", "see below", ErrorList=[{"FieldName": said, "Message": said, "Code": said}]
    ),
    lambda said: refusal("InternalServerException", said, 500),
    lambda said: web.Response(status=503, text=f"<html>{said}</html>", content_type="text/html"),
    lambda said: web.Response(text=f"<html>{said}</html>", content_type="text/html"),
    lambda said: web.json_response({"Junk": said}),
]
#: Answers in which they are harder to see.
HIDDEN: dict[str, Callable[[str], web.Response]] = {
    "as a code": lambda said: refusal(f"Strange{said.split()[0]}", "an unknown code"),
    # A message is kept for its first two thousand characters: no part of a secret may stand before that.
    "across the end": lambda said: refusal("AccessDeniedException", "x" * 1980 + said),
    "across the end of a reason": lambda said: refusal("ValidationException", "no", Reason="x" * 180 + said),
    "as the request's id": lambda said: web.json_response(
        {"__type": "ValidationException"}, status=400, headers={"x-amzn-RequestId": said.split()[1]}
    ),
}


def canaries_of(request: web.Request) -> str:
    key = request.headers["Authorization"].partition("Credential=AKIA")[2].partition("0")[0].lower()
    return " ".join(canary for name, canary in CANARIES.items() if name.startswith(key))


@pytest.fixture
def place(tmp_path):
    """A folder whose accounts sign with canaries of the environment, of a profile and of a process."""
    made = Place(tmp_path)
    given = tmp_path / "given"
    given.mkdir()
    made.env.update(
        AWS_ACCESS_KEY_ID="AKIAENVIRONMENT00001",
        AWS_SECRET_ACCESS_KEY=CANARIES["environment secret"],
        AWS_SESSION_TOKEN=CANARIES["environment token"],
        AWS_SHARED_CREDENTIALS_FILE=str(given / "credentials"),
        AWS_CONFIG_FILE=str(given / "config"),
    )
    (given / "credentials").write_text(
        f"[kept]\naws_access_key_id = AKIAPROFILE00000001\n"
        f"aws_secret_access_key = {CANARIES['profile secret']}\n"
        f"aws_session_token = {CANARIES['profile token']}\n",
        "utf-8",
    )
    keys = {"SecretAccessKey": CANARIES["process secret"], "SessionToken": CANARIES["process token"]}
    handed_out = {"Version": 1, "AccessKeyId": "AKIAPROCESS00000001", **keys}
    (given / "handed-out").write_text(json.dumps(handed_out), "utf-8")
    (given / "config").write_text(
        f"[profile made]\ncredential_process = cat {given / 'handed-out'}\n", "utf-8"
    )
    return made


@pytest.fixture
def inside(place, monkeypatch):
    """The same folder for runs of this process."""
    move_in(monkeypatch, place.folder, place.env)
    return place


ACCOUNTS: dict[str, Json] = {"ambient": {}, "kept": {"profile": "kept"}, "made": {"profile": "made"}}


def rows(accounts: Iterable[str] = ACCOUNTS) -> list[Json]:
    """A row for each echo and account."""
    return [
        {**row, "account": account}
        for place, account in enumerate(accounts)
        for row in pairs(len(ECHOES), first=100 * place)
    ]


async def test_secrets_that_the_endpoint_repeats_are_never_shown(place):
    place.manifest(rows(), accounts=ACCOUNTS)
    listed: set[str] = set()
    met: set[str] = set()

    async def echo(request: web.Request) -> web.Response:
        body = await request.json()
        said = canaries_of(request)
        met.update(canaries_in(said))
        if not request.headers["X-Amz-Target"].endswith(CREATE):
            return refusal("AccessDeniedException", f"no reading with {said}")
        number = int(body["ResourceIdentifier"][1:]) - 1
        if number == 0:
            listed.update(processes())
        return ECHOES[number % 100](said)

    async with endpoint(echo) as url:
        flags = ["--max-attempts", "1", "-v", "--progress", "lines"]
        # With a command line of its own in the list of processes, which is looked at once.
        ran = await place.call("run", "trial.yaml", "--endpoint-url", url, *flags, python=())
        again = await place.call("retry", place.ledger, "--all", *flags, "--format", "json")
        shown = await place.call("status", place.ledger)
    assert met == set(CANARIES), "each was met"
    assert (ran.code, again.code, shown.code) == (1, 1, 0)
    assert len(of_type(place.ledger, "result")) == 21 + 18
    assert "[secret]" in ran.stderr
    for said in (ran, again, shown):
        assert not canaries_in(said.stdout)
        assert not canaries_in(said.stderr)
    assert not left_in(place.folder)
    assert not listed
    made = modes(place.folder)
    assert set(made.values()) == {0o600}
    assert sum(name.endswith(".lock") for name in made) == 4


async def test_secrets_in_refusals_of_credentials_are_never_shown(place):
    place.manifest(rows(), accounts=ACCOUNTS)

    async def echo(request: web.Request) -> web.Response:
        return refusal("ExpiredTokenException", f"not valid: {canaries_of(request)}", 403)

    async with endpoint(echo) as url:
        said = await place.call("run", "trial.yaml", "--endpoint-url", url, "-v", "--progress", "lines")
    assert said.code == 3
    assert said.stdout.count("[secret]") >= 3
    assert not canaries_in(said.stdout)
    assert not canaries_in(said.stderr)
    assert not left_in(place.folder)


@pytest.mark.parametrize("hidden", HIDDEN)
async def test_secrets_in_unusual_places_of_an_answer_are_never_shown(inside, capfd, hidden):
    inside.manifest(pairs(1))

    async def echo(request: web.Request) -> web.Response:
        return HIDDEN[hidden](canaries_of(request))

    async with endpoint(echo) as url:
        options = Options(endpoint_url=url, engine=Settings(max_attempts=1))
        summary = await run.run(inside.folder / "trial.yaml", options)
    assert summary.counts.failed == 1
    assert not canaries_in("\n".join([as_text(summary), str(as_json(summary)), *capfd.readouterr()]))
    assert not left_in(inside.folder)


# -- where credentials are fetched -------------------------------------------------------------------


async def not_called(_: web.Request) -> web.Response:
    raise AssertionError("called without credentials")


async def said_by_a_run(place: Place, url: str, capfd: Any, **account: Any) -> str:
    """All that a run says whose one account stops before its first call."""
    place.manifest(pairs(3), accounts={"main": account})
    options = Options(endpoint_url=url, engine=Settings(max_attempts=1))
    summary = await run.run(place.folder / "trial.yaml", options)
    assert (summary.exit_code, summary.counts) == (3, (0, 0, 0, 3))
    captured = capfd.readouterr()
    return "\n".join([as_text(summary), str(as_json(summary)), *captured])


def broken_credentials(given: Path) -> None:
    """The line with the secret comes before any section."""
    (given / "credentials").write_text(f"aws_secret_access_key = {CANARIES['profile secret']}\n", "utf-8")


def broken_configuration(given: Path) -> None:
    """A line that is none, as a secret that was pasted over two lines leaves it."""
    text = f"[profile kept]\nregion = us-east-1\n{CANARIES['profile secret']}\n"
    (given / "config").write_text(text, "utf-8")


@pytest.mark.parametrize("breaks", [broken_credentials, broken_configuration])
async def test_invalid_credentials_file_is_not_quoted(inside, capfd, breaks):
    breaks(inside.folder / "given")
    async with endpoint(not_called) as url:
        said = await said_by_a_run(inside, url, capfd, profile="kept")
    assert not canaries_in(said)
    assert not left_in(inside.folder)


@pytest.mark.parametrize(
    "script",
    [
        f"echo 'cannot renew {CANARIES['process token']}' >&2; exit 1",
        f"echo 'SecretAccessKey={CANARIES['process secret']}'",
        f'echo \'{{"Version": 2, "SecretAccessKey": "{CANARIES["process secret"]}"}}\'',
        f'echo \'{{"Version": 1, "SecretAccessKey": "{CANARIES["process secret"]}"}}\'',
    ],
    ids=["on standard error", "no JSON", "another version", "no key"],
)
async def test_output_of_a_failed_credential_process_is_not_repeated(inside, capfd, script):
    given = inside.folder / "given"
    (given / "hand-out").write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    (given / "hand-out").chmod(0o700)
    (given / "config").write_text(f"[profile made]\ncredential_process = {given / 'hand-out'}\n", "utf-8")
    async with endpoint(not_called) as url:
        said = await said_by_a_run(inside, url, capfd, profile="made")
    assert not canaries_in(said)
    assert not left_in(inside.folder)


@pytest.mark.parametrize("profile", [None, "kept", "made"])
async def test_secrets_that_sts_repeats_are_never_shown(inside, capfd, monkeypatch, profile):
    async def echo(request: web.Request) -> web.Response:
        text = (
            "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
            f"<Message>no role for {canaries_of(request)}</Message></Error></ErrorResponse>"
        )
        return web.Response(status=403, text=text, content_type="text/xml")

    async with endpoint(echo) as roles, endpoint(not_called) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", roles)
        role = {"role_arn": "arn:aws:iam::123456789012:role/Snapshot"}
        said = await said_by_a_run(inside, url, capfd, **role, **({"profile": profile} if profile else {}))
    assert "no role for" in said
    assert not canaries_in(said)
    assert not left_in(inside.folder)
