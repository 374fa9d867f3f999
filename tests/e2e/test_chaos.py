"""Runs that are killed: at moments of chance, again and again, and at exact bytes of their ledger.

What was made is judged by the service's own record alone, and every claim of the ledger against it.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

import batch_snapshot
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.jobs import plan
from batch_snapshot.reporting import status
from batch_snapshot.simulator import serve
from tests.support.processes import (
    Child,
    Finished,
    InterpretedPlace,
    Json,
    Place,
    assert_exactly_once,
    ledger_lines,
    move_in,
    pairs,
    record,
    results,
    service,
    until,
)

pytestmark = pytest.mark.asyncio

QUIET = ["--progress", "none", "--format", "json"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run in, also for runs of this process."""
    made = Place(tmp_path)
    # Where files may not grow, the interpreter must not try to keep what it compiled.
    made.env["PYTHONDONTWRITEBYTECODE"] = "1"
    move_in(monkeypatch, tmp_path, made.env)
    return made


# -- at moments of chance ----------------------------------------------------------------------------

FAULTS = (
    "internal=0.02,internal-after=0.03,unavailable=0.01,unavailable-after=0.02,reset-before=0.02,"
    "blocked-after=0.02,reset-after=0.03,truncated=0.02,garbage=0.01,no-arn=0.02,throttle=0.01"
)
#: Each costs the seconds that a look waits for what was sent to show.
SLOW_FAULTS = "late=0.01,late-delay=0.3"


#: How the service is started that they come from.
SERVED = ("--state", "world.ndjson", "--rate", "300", "--burst", "50", "--latency", "0.02", "--seed", "7")


class Listed:
    """A manifest that is edited while its run is dead."""

    def __init__(self, place: Place, rng: Random, number: int) -> None:
        self._place = place
        self._rng = rng
        self._next = number
        # What is refused for good, so that each `retry` has rows to send under new tokens.
        refused = [{"engagement": f"eng-quota{n:09d}", "resource": "O7"} for n in range(5)]
        self.rows = [*pairs(number), *refused]
        self.ever = {named(row) for row in self.rows}
        self._write()

    def edit(self, added: int) -> None:
        """Take some rows out, put others in, and shuffle them all."""
        self._rng.shuffle(self.rows)
        self.rows = [*pairs(added, self._next), *self.rows[3:]]
        self._next += added
        self.ever |= {named(row) for row in self.rows}
        self._write()

    def _write(self) -> None:
        self._place.manifest(self.rows)


def named(row: Json) -> tuple[str, str]:
    return row["engagement"], row["resource"]


def refused(name: tuple[str, str]) -> bool:
    return "quota" in name[0]


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def moment(place: Place, rng: Random) -> Callable[[], bool]:
    """When to kill a process that is about to start: what it must have done by then."""
    before = size(place.ledger)
    lock = place.ledger.with_name("trial.ndjson.lock")
    # In the header or just behind it; in the first intent or the first answers; amid answers.
    grown = rng.randrange(1, rng.choice([900, 10_000, 25_000, 50_000]))
    if rng.random() < 0.1:
        lock.unlink(missing_ok=True)
        return lambda: size(lock) > 0
    return lambda: size(place.ledger) >= before + grown


async def life(child: Child, due: Callable[[], bool]) -> int:
    """A process from its start to its end, which is ours to bring about; its exit code."""
    await until(lambda: due() or not child.running, "the moment to kill")
    if child.running:
        child.signal(signal.SIGKILL)
    return (await child.finished()).code


async def killed_again_and_again(place: Place, *, kills: int, seed: int, rows: int, faults: str) -> Json:
    """Kill so often, then let it finish; figures of what happened."""
    rng = Random(seed)
    listed = Listed(place, rng, rows)
    figures: Counter[str] = Counter()
    async with service(place, *SERVED, "--faults", faults) as url:
        # Few attempts leave rows in doubt behind, so that a `retry` has those too.
        flags = ["--endpoint-url", url, "--rate", "250", *QUIET]
        run: Sequence[str | Path] = ["run", "trial.yaml", *flags]
        retry: Sequence[str | Path] = ["retry", place.ledger, *flags]
        for turn in range(3 * kills):
            if figures["killed"] == kills:
                break
            if turn % 3 == 2:
                listed.edit(added=rows // 2)
                figures["edited"] += 1
            begun = any(line["type"] == "result" for line in ledger_lines(place.ledger))
            command = retry if begun and turn % 3 == 1 else run
            due = moment(place, rng)
            async with place.started(*command, "--max-attempts", rng.choice(["1", "2", "8"])) as child:
                code = await life(child, due)
            assert code in {-signal.SIGKILL, 0, 1}
            figures["killed"] += code < 0
            figures[f"killed in {command[0]}"] += code < 0
        assert figures["killed"] == kills
        last = await finished(place, run, retry, url)
        told = await record(url)
        judge(told, place.ledger, listed)
        check = await place.call("status", place.ledger, "--check")
        assert check.code == 0, check.stderr
        counts = last.json["counts"]
        names = {named(row) for row in listed.rows} | {(key[1], key[2]) for key in results(place.ledger)}
        assert sum(counts.values()) == len(names), "every row has one state"
        assert counts["succeeded"] == len(told["snapshots"])
        return {**figures, **counts, "calls": told["calls"], "faults": told["faults"]}


async def finished(place: Place, run: Sequence[Any], retry: Sequence[Any], url: str) -> Finished:
    """Run and retry until nothing is left but what is refused for good.

    A refusal does not settle what a kill has left in doubt: such rows stay so.
    """
    for _ in range(12):
        for command in (run, retry):
            said = await place.call(*command, "--max-duration", "8s")
            assert said.code in {0, 1, 4}, said
        kinds = {group["kind"] for group in said.json["failures"]}
        if not said.json["counts"]["unattempted"] and kinds <= {"quota"}:
            assert not (await record(url))["late_pending"]
            return said
    raise AssertionError(f"not settled: {said}")


def judge(told: Json, ledger: Path, listed: Listed) -> None:
    """No row twice, none lost, and the ledger's claims are the service's."""
    made = {(one["engagement"], one["resource"]): one for one in told["snapshots"]}
    assert len(made) == len(told["snapshots"]), "a row was made twice"
    assert {name for name in map(named, listed.rows) if not refused(name)} <= set(made), "a row was lost"
    assert set(made) <= listed.ever
    claims = {(key[1], key[2]): line for key, line in results(ledger).items()}
    for name, line in claims.items():
        if refused(name):
            assert (line["status"], line["error"]["kind"]) in {("failed", "quota"), ("in_doubt", "quota")}
            continue
        one = made.pop(name)
        assert line["status"] == "succeeded"
        assert [line[key] for key in ("arn", "revision", "client_token")] == [
            one[key] for key in ("arn", "revision", "client_token")
        ]
    assert not made, "made, and the ledger does not say so"
    assert told["pair_overlaps"] == 0


async def test_killed_at_moments_of_chance_each_row_has_one_snapshot(place):
    figures = await killed_again_and_again(place, kills=6, seed=3, rows=70, faults=FAULTS)
    assert figures["killed in run"] >= 2
    assert figures["killed in retry"] >= 1
    assert figures["edited"] >= 2


@pytest.mark.chaos
@pytest.mark.timeout(1200)
async def test_killed_a_hundred_times_each_row_has_one_snapshot(place, capsys):
    seed = int(os.environ.get("CHAOS_SEED", "11"))
    faults = f"{FAULTS},{SLOW_FAULTS}"
    # Killed from the first instant of their interpreters on.
    own = InterpretedPlace(place.folder)
    own.env = place.env
    figures = await killed_again_and_again(own, kills=110, seed=seed, rows=170, faults=faults)
    with capsys.disabled():
        print(f"\n{figures}")  # noqa: T201 - whoever asked for this test wants to see them


# -- at an exact byte --------------------------------------------------------------------------------


class Cut(NamedTuple):
    """A place in a ledger: a line (from 0) of the invocation, and how many of its bytes stand."""

    line: int
    #: As a share of the line; `WHOLE` is all but the newline.
    share: float

    def within(self, lines: Sequence[bytes]) -> int:
        """Bytes from the beginning of `lines` on."""
        length = len(lines[self.line])
        stands = length - 1 if self.share == WHOLE else int(length * self.share)
        return sum(map(len, lines[: self.line])) + stands


WHOLE = -1.0
ROWS = pairs(3)

#: The lines of a run of three rows, one after the other: run, intent, three results, end.
CUTS = {
    "in the run line": Cut(0, 0.5),
    "at the newline of the run line": Cut(0, WHOLE),
    "before the intent": Cut(1, 0),
    "in the intent": Cut(1, 0.5),
    "at the newline of the intent": Cut(1, WHOLE),
    "before the first result": Cut(2, 0),
    "in a result": Cut(3, 0.3),
    "at the newline of a result": Cut(3, WHOLE),
    "in the end line": Cut(5, 0.5),
    "at the newline of the end line": Cut(5, WHOLE),
}
#: Fewer for ledgers that are gone on with.
LATER_CUTS = ["in the run line", "in the intent", "before the first result"]


def at(folder: Path, place: Place) -> Place:
    """A folder of its own with a manifest of three rows."""
    # No log of calls can be made there, so that the ledger alone meets the limit to the size of files.
    (folder / "state" / "usage.sqlite").mkdir(parents=True)
    made = Place(folder)
    made.env = {**place.env, "BATCH_SNAPSHOT_STATE_DIR": str(folder / "state")}
    made.manifest(ROWS)
    return made


def options(place: Place, url: str) -> Options:
    """The same that the command line below means."""
    return Options(
        ledger=str(place.ledger),
        state_dir=place.folder / "state",
        endpoint_url=url,
        rate=100.0,
        engine=Settings(concurrency=1),
    )


def command(word: str, what: str | Path, url: str, *more: str) -> list[str | Path]:
    return [word, what, "--endpoint-url", url, "--rate", "100", "--concurrency", "1", *QUIET, *more]


#: The lines of a whole run, by the length of its folder's name.
LAYOUTS: dict[int, list[bytes]] = {}


async def layout(folder: Path, place: Place) -> list[bytes]:
    """The lines that a whole run leaves; of other tokens, ports and folders, but as long ones."""
    length = len(str(folder))
    if length not in LAYOUTS:
        LAYOUTS[length] = await _laid_out(at(folder, place))
    return LAYOUTS[length]


async def _laid_out(place: Place) -> list[bytes]:
    async with serve() as (url, _):
        await batch_snapshot.run(place.folder / "trial.yaml", options(place, url))
    # The command line leaves the state folder to the environment.
    named = json.dumps(str(options(place, url).state_dir)).encode()
    lines = (
        place.ledger.read_bytes()
        .replace(b'"state_dir":' + named, b'"state_dir":null')
        .splitlines(keepends=True)
    )
    assert [json.loads(line)["type"] for line in lines] == ["run", "intent", *["result"] * 3, "end"]
    return lines


def shortened(intent: bytes, rows: int) -> bytes:
    """An intent of its first rows alone."""
    fields = json.loads(intent)
    return json.dumps({**fields, "rows": fields["rows"][:rows]}, separators=(",", ":")).encode() + b"\n"


def whole(path: Path) -> bool:
    return status.check_ledger(path) == len(ROWS)


async def killed_at(place: Place, line: Sequence[str | Path], size: int, what: str) -> None:
    """Run a command until its ledger has that size: the kernel kills it there."""
    said = await place.call(*line, largest=size, deadly=True)
    assert said.code == -signal.SIGXFSZ, what
    assert place.ledger.stat().st_size == size, what


def repaired_size(path: Path) -> int:
    """The size of the ledger once its last line is repaired: a whole object is kept, a part is not."""
    content = path.read_bytes()
    last = content.rpartition(b"\n")[2]
    return len(content) + 1 if last.endswith(b"}") else len(content) - len(last)


@pytest.mark.parametrize("name", CUTS)
async def test_a_run_killed_at_this_byte_is_gone_on_with(place, name):
    here, cut = at(place.folder / "a", place), CUTS[name]
    lines = await layout(place.folder / "b", place)
    async with serve() as (url, simulator):
        await killed_at(here, command("run", "trial.yaml", url), cut.within(lines), name)
        sent = simulator.calls["CreateResourceSnapshot"]
        assert sent == (0 if cut < CUTS["before the first result"] else min(cut.line - 1, 3))
        assert (await batch_snapshot.run(here.folder / "trial.yaml", options(here, url))).exit_code == 0
        assert_exactly_once(simulator, here.ledger, ROWS)
        assert whole(here.ledger)


async def test_a_run_killed_again_and_again_as_it_resumes_is_gone_on_with(place):
    here = at(place.folder / "a", place)
    lines = await layout(place.folder / "b", place)
    async with serve() as (url, simulator):
        line = command("run", "trial.yaml", url)
        await killed_at(here, line, CUTS["in a result"].within(lines), "at first")
        # Each run line is as long as the first; the intents name two rows of the three.
        later = [lines[0], shortened(lines[1], 2), b""]
        for name in LATER_CUTS:
            await killed_at(here, line, repaired_size(here.ledger) + CUTS[name].within(later), name)
        assert (await batch_snapshot.run(here.folder / "trial.yaml", options(here, url))).exit_code == 0
        assert_exactly_once(simulator, here.ledger, ROWS)
        assert whole(here.ledger)


@pytest.mark.parametrize("name", ["at the newline of the run line", "at the newline of a result"])
async def test_a_run_killed_while_it_mends_the_ledger_is_gone_on_with(place, name):
    here = at(place.folder / "a", place)
    lines = await layout(place.folder / "b", place)
    async with serve() as (url, simulator):
        line = command("run", "trial.yaml", url)
        for time in ("at first", "for lack of the very newline that would complete it"):
            await killed_at(here, line, CUTS[name].within(lines), time)
        assert (await batch_snapshot.run(here.folder / "trial.yaml", options(here, url))).exit_code == 0
        assert_exactly_once(simulator, here.ledger, ROWS)
        assert whole(here.ledger)


async def test_a_retry_killed_again_and_again_is_gone_on_with(place, monkeypatch):
    """Refused rows are sent under new tokens, and what may have been sent keeps its new token."""
    here = at(place.folder / "a", place)
    async with serve() as (url, simulator):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIADENIED0000000001")
        assert (await batch_snapshot.run(here.folder / "trial.yaml", options(here, url))).counts == (
            0,
            3,
            0,
            0,
        )
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE000000000")
        head, intent = here.ledger.read_bytes().splitlines(keepends=True)[:2]
        lines = [head.replace(b'"command":"run"', b'"command":"retry"'), intent, b""]
        line = command("retry", here.ledger, url, "--all")
        for name in LATER_CUTS:
            await killed_at(here, line, repaired_size(here.ledger) + CUTS[name].within(lines), name)
        done = await batch_snapshot.retry(here.ledger, lambda _: plan.all_unfinished(), options(here, url))
        assert done.exit_code == 0
        assert_exactly_once(simulator, here.ledger, ROWS)
        assert {line["generation"] for line in results(here.ledger).values()} == {1}
        assert whole(here.ledger)
