"""Where things lie: state folder, ledgers with and without a date, locks."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import manifest
from batch_snapshot.config.options import Options
from batch_snapshot.errors import InputError
from batch_snapshot.ledger import records
from batch_snapshot.ledger.records import End
from batch_snapshot.models import Account
from batch_snapshot.paths import (
    account_lock,
    dated_ledgers,
    ledger_path,
    ledger_pattern,
    simulated_name,
    state_folder,
)
from tests.support.planned_jobs import run_job
from tests.support.strategies import header, patient

HOME = Path("/home/ann")
DAY = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
DAYS = [DAY - timedelta(days=days) for days in range(3)]

# ---- the state folder


@pytest.mark.parametrize(
    ("given_", "environ", "folder"),
    [
        (Path("/given"), {"BATCH_SNAPSHOT_STATE_DIR": "/named", "XDG_STATE_HOME": "/xdg"}, Path("/given")),
        (None, {"BATCH_SNAPSHOT_STATE_DIR": "/named", "XDG_STATE_HOME": "/xdg"}, Path("/named")),
        (None, {"BATCH_SNAPSHOT_STATE_DIR": "", "XDG_STATE_HOME": "/xdg"}, Path("/xdg/batch-snapshot")),
        (None, {"XDG_STATE_HOME": "/xdg"}, Path("/xdg/batch-snapshot")),
        (None, {"XDG_STATE_HOME": ""}, HOME / ".local/state/batch-snapshot"),
        # The specification: a path that is not absolute is to be ignored.
        (None, {"XDG_STATE_HOME": "xdg"}, HOME / ".local/state/batch-snapshot"),
        (None, {}, HOME / ".local/state/batch-snapshot"),
    ],
)
def test_the_state_folder_is_the_first_that_is_named(given_, environ: Mapping[str, str], folder):
    assert state_folder(given_, environ, HOME) == folder


# ---- patterns


def test_the_default_ledger_has_no_date_and_a_simulation_has_its_own():
    assert ledger_pattern(None, simulated=False) == "ledgers/{name}.ndjson"
    assert ledger_pattern(None, simulated=True) == "ledgers/{name}.simulated.ndjson"
    assert ledger_pattern("x-{name}-{date}.ndjson", simulated=False) == "x-{name}-{date}.ndjson"


@pytest.mark.parametrize(
    ("given_", "simulated"),
    [
        ("x-{date}.ndjson", "x-{date}.simulated.ndjson"),
        ("a.b/{name}-{date}.ndjson", "a.b/{name}-{date}.simulated.ndjson"),
        ("{date}/{name}", "{date}/{name}.simulated"),
        ("x.{date}", "x.simulated.{date}"),
        ("/tmp/l.v1.ndjson", "/tmp/l.v1.simulated.ndjson"),
        (".hidden", ".hidden.simulated"),
        ("x.simulated.ndjson", "x.simulated.ndjson"),
        ("x.simulated-{date}.ndjson", "x.simulated-{date}.ndjson"),
        ("old.simulated/x.ndjson", "old.simulated/x.simulated.ndjson"),
        ("folder/", "folder/"),
    ],
)
def test_a_simulated_ledger_has_simulated_in_its_name(given_, simulated):
    assert ledger_pattern(given_, simulated=True) == simulated
    assert simulated_name(simulated) == simulated


@pytest.mark.parametrize("word", ["{nam}", "{Date}", "{}", "{name:>3}", "{0}"])
def test_an_unknown_placeholder_is_refused_with_the_known_ones(word):
    with pytest.raises(InputError) as caught:
        ledger_pattern(f"{{name}}-{word}.ndjson", simulated=False)
    assert str(caught.value) == (
        f"--ledger {{name}}-{word}.ndjson: {word} is not known; there are {{name}} and {{date}}"
    )


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("ledgers/{name}.ndjson", "ledgers/nightly.ndjson"),
        ("{date}/{name}-{date}.ndjson", "2026-03-01/nightly-2026-03-01.ndjson"),
        ("plain.ndjson", "plain.ndjson"),
    ],
)
def test_a_pattern_means_a_path_for_a_name_and_a_day(pattern, path):
    assert ledger_path(pattern, "nightly", DAY) == Path(path)


# ---- ledgers of other days


NAMED = "{name}-{date}.ndjson"
MARCH, FEBRUARY, LAST = (f"nightly-{day}.ndjson" for day in ("2026-03-01", "2026-02-28", "2025-12-31"))


@pytest.mark.parametrize(
    ("pattern", "files", "found"),
    [
        (NAMED, [FEBRUARY, MARCH, LAST], [MARCH, FEBRUARY, LAST]),
        *(
            (NAMED, [other, MARCH], [MARCH])
            for other in (
                f"{MARCH}.lock",
                "nightly-2026-03-01.csv",
                "nightly-2026-3-1.ndjson",
                "nightly-today.ndjson",
                "nightly-abcd-ef-gh.ndjson",
                "nightly-.ndjson",
                "nightly.ndjson",
                "weekly-2026-03-01.ndjson",
                "my-nightly-2026-03-01.ndjson",
                "nightly-2026-03-01-2.ndjson",
                "nightly-2026-03-01",
                "nightly-12026-03-01.ndjson",
            )
        ),
        ("none/" + NAMED, [MARCH], []),
        ("{name}.ndjson", ["nightly.ndjson", MARCH], []),
        (
            "{date}/{name}-{date}",
            ["2026-03-01/nightly-2026-03-01", "2026-03-02/nightly-2026-03-01"],
            ["2026-03-01/nightly-2026-03-01"],
        ),
        *(
            (
                pattern,
                [str(ledger_path(pattern, "nightly", day)) for day in DAYS[::-1]],
                [str(ledger_path(pattern, "nightly", day)) for day in DAYS],
            )
            for pattern in ("{date}/{name}.ndjson", "{name}/{date}/ledger.ndjson")
        ),
    ],
)
def test_dated_ledgers_are_those_that_match_the_pattern_newest_first(tmp_path, pattern, files, found):
    for file in files:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [*dated_ledgers(f"{tmp_path}/{pattern}", "nightly")] == [tmp_path / name for name in found]


def test_a_name_is_taken_literally(tmp_path):
    for name in ("aXb.2026-03-01", "a.b.2026-03-01"):
        (tmp_path / name).touch()
    assert [*dated_ledgers(f"{tmp_path}/{{name}}.{{date}}", "a.b")] == [tmp_path / "a.b.2026-03-01"]


# ---- which ledger a run resumes

MANIFEST = (
    "version: 1\nname: nightly\ndefaults: {catalog: Sandbox, account: main}\naccounts: {main: }\n"
    "pairs: [{engagement: eng-0123456789abcd, resource: O1234567}]\n"
)


def started(path: Path, at: datetime, *, name: str = "nightly", left: int | None = 1) -> Path:
    """A ledger that began at `at` and has so many rows left; None: it has crashed."""
    accounts = {"main": records.encode_account(Account("main"))}
    lines = [records.encode_run(header(name=name, started_at=at, accounts=accounts, rows=1), "0")]
    if left is not None:
        lines.append(records.encode_end("night-1", End("deferred", {"unattempted": left}, at)))
    path.write_bytes(b"".join(lines))
    return path


def chosen(tmp_path: Path, pattern: str = "{name}-{date}.ndjson", now: datetime = DAY) -> str:
    path = tmp_path / "nightly.yaml"
    path.write_text(MANIFEST)
    options = Options(ledger=f"{tmp_path}/{pattern}", state_dir=tmp_path / "state")
    with run_job(manifest.load(path), options, now) as made_:
        return made_.path.name


TODAY = "nightly-2026-03-01.ndjson"
YESTERDAY = "nightly-2026-02-28.ndjson"


@pytest.mark.parametrize(
    ("hours", "left", "name"),
    [
        (19.9, 1, YESTERDAY),
        (19.9, None, YESTERDAY),
        (20.1, 1, YESTERDAY),
        (20.1, None, TODAY),
        (19.9, 0, TODAY),
    ],
    ids=["young", "crashed", "old and deferred", "old and crashed", "finished"],
)
def test_a_young_unfinished_ledger_of_another_day_is_resumed(tmp_path, hours, left, name):
    started(tmp_path / YESTERDAY, DAY - timedelta(hours=hours), left=left)
    assert chosen(tmp_path) == name


def test_todays_own_ledger_comes_before_those_of_other_days(tmp_path):
    started(tmp_path / YESTERDAY, DAY - timedelta(hours=5))
    started(tmp_path / TODAY, DAY - timedelta(hours=1))
    assert chosen(tmp_path) == TODAY


def test_a_ledger_of_another_manifest_is_not_resumed(tmp_path):
    """A pattern need not hold {name}: then the ledgers of all manifests lie side by side."""
    started(tmp_path / "2026-02-28.ndjson", DAY - timedelta(hours=5), name="weekly")
    assert chosen(tmp_path, "{date}.ndjson") == "2026-03-01.ndjson"


# ---- locks


names = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
endpoints = st.sampled_from(["aws", "simulator", "http://127.0.0.1:8000", "http://127.0.0.1:8001"])


@given(st.tuples(names, names, endpoints), st.tuples(names, names, endpoints))
@patient
def test_account_locks_are_equal_only_for_the_same_name_account_and_endpoint(one, other):
    state = Path("/state")
    paths = account_lock(state, *one), account_lock(state, *other)
    assert (paths[0] == paths[1]) is (one == other)
    assert all(path.parent == state / "locks" for path in paths)


def test_a_dot_that_moves_from_name_to_account_gives_another_lock():
    state = Path("/state")
    paths = {account_lock(state, *pair, "aws") for pair in [("a.b", "c"), ("a", "b.c")]}
    assert len(paths) == 2


@pytest.mark.parametrize("endpoint", ["aws", "simulator", "https://" + "x" * 300])
def test_the_longest_names_still_make_a_file(tmp_path, endpoint):
    path = account_lock(tmp_path, "n" * 64, "a" * 64, endpoint)
    path.parent.mkdir()
    path.touch()
