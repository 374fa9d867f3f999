"""What hypothesis draws: rows, requests, outcomes, headers, and the histories of whole ledgers."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations, product
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from batch_snapshot.ledger.records import End, Header, IntendedRow, Intent, Line, Record, Result
from batch_snapshot.models import (
    Account,
    ErrorKind,
    Outcome,
    Quota,
    Request,
    Row,
    RowError,
    Status,
    client_token,
)

#: A machine under load is no defect.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN_ID = "night-1"

#: What breaks careless line formats: line ends of every kind, quotes, control characters, other planes.
NASTY = [
    "", "\n", "\r\n", "\u2028\u2029\x85", '"', '","', "\\", "\\n", "\0", "\x1b[31m", "\x7f", "é",
    "e\u0301", "\U0001f9ca", "\ufeff", "]}", '{"type":"', "null",
]  # fmt: skip

#: Two of them; one or none, where the other is empty. One choice draws faster than two.
_nasty = st.sampled_from([one + other for one, other in product(NASTY, NASTY)])

#: Text as the service may send it: anything that is Unicode.
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.tuples(_nasty, _nasty).map("".join)
)
optional_texts = st.none() | texts

#: Any moment, in any time zone, to the microsecond.
moments = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - the zone is drawn by `timezones`
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)

rows = st.builds(Row, texts, texts, texts, texts, texts, texts)

#: Few rows, so that the lines of a ledger meet.
POOL = [Row("main", "Sandbox", f"eng-{n}", "Opportunity", f"O{n}", "View") for n in range(5)]
pool_rows = st.sampled_from(POOL)


def some_of(rows: Sequence[Row]) -> st.SearchStrategy[tuple[Row, ...]]:
    """Some of these few rows, each once, in any order: any number of them as likely as another."""
    return st.one_of([st.sampled_from(list(permutations(rows, number))) for number in range(len(rows) + 1)])


some_rows = some_of(POOL)

requests = st.builds(
    Request,
    row=rows,
    client_token=texts,
    generation=st.integers(0, 1000),
    ambiguous=st.booleans(),
    first_sent_at=st.none() | moments,
)
row_errors = st.builds(
    RowError,
    kind=st.sampled_from(ErrorKind),
    code=texts,
    message=texts,
    reason=optional_texts,
    http_status=st.none() | st.integers(100, 599),
)
small_counts = st.integers(0, 10_000)


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """Draw an outcome as the engine makes them: a success names its snapshot, the others an error."""
    status = draw(st.sampled_from(Status))
    done = status is Status.SUCCEEDED
    return Outcome(
        request=draw(requests),
        status=status,
        attempts=draw(small_counts),
        throttles=draw(small_counts),
        ambiguous=draw(st.booleans()),
        first_sent_at=draw(st.none() | moments),
        started_at=draw(moments),
        finished_at=draw(moments),
        arn=draw(texts.filter(bool)) if done else None,
        revision=draw(st.integers(1, 2**31)) if done else None,
        request_id=draw(optional_texts),
        error=None if done else draw(row_errors),
        reconciled=draw(st.booleans()) if done else False,
    )


accounts = st.builds(
    Account,
    name=texts,
    profile=optional_texts,
    region=optional_texts,
    role_arn=optional_texts,
    external_id=optional_texts,
    session_name=optional_texts,
    endpoint_url=optional_texts,
    quota=st.builds(
        Quota,
        per_second=st.none() | st.floats(0.01, 1000),
        per_minute=st.none() | st.integers(1, 10_000),
        per_day=st.none() | st.integers(1, 100_000),
        reserve=st.integers(0, 100),
    ),
)
headers = st.builds(
    Header,
    run_id=texts,
    command=st.sampled_from(["run", "retry"]),
    name=texts,
    manifest=optional_texts,
    manifest_sha256=optional_texts,
    rows=small_counts,
    accounts=st.dictionaries(texts, st.dictionaries(texts, optional_texts, max_size=3), max_size=3),
    endpoint=texts,
    started_at=moments,
    settings=st.dictionaries(texts, optional_texts | st.integers(-9, 9) | st.booleans(), max_size=3),
    discovered_sha256=st.none(),
    unrecorded_since=st.none(),
)
ends = st.builds(
    End,
    outcome=st.sampled_from(["completed", "stopped", "deferred", "interrupted"]),
    counts=st.dictionaries(
        st.sampled_from(["succeeded", "failed", "in_doubt", "unattempted"]), small_counts, max_size=4
    ),
    finished_at=moments,
    run_id=st.none(),
)


def header(*, run_id: str = RUN_ID, rows: int = len(POOL), **changes: Any) -> Header:
    """Make a run line's record."""
    plain = Header(
        run_id=run_id,
        command="run",
        name="nightly",
        manifest="/srv/nightly.yaml",
        manifest_sha256="0" * 64,
        rows=rows,
        accounts={"main": {"role_arn": None, "profile": None, "region": None}},
        endpoint="aws",
        started_at=START,
        settings={},
    )
    return replace(plain, **changes)


def numbered(records: Iterable[Record]) -> list[Line]:
    """Give the records places, as if every line had 100 bytes."""
    return [Line(100 * index, index + 1, record) for index, record in enumerate(records)]


class Invocation(NamedTuple):
    """What one run line opens."""

    records: list[Intent | Result]
    end: End | None


#: Which of the rows were raised to the next generation, by their places.
_raised = st.sampled_from(list(product((0, 1), repeat=len(POOL))))
_seconds = st.integers(0, 10_000)
_ends_of_tries = st.sampled_from(list(product(POOL, (0, 1), Status)))
_errors = st.sampled_from(list(product(ErrorKind, ("A", "B"))))


@st.composite
def _intents(draw: st.DrawFn) -> Intent:
    named = zip(draw(some_rows), draw(_raised), strict=False)
    at = START + timedelta(seconds=draw(_seconds))
    return Intent(
        at, tuple(IntendedRow(client_token(RUN_ID, row, raised), *row, raised) for row, raised in named)
    )


@st.composite
def _results(draw: st.DrawFn) -> Result:
    row, generation, status = draw(_ends_of_tries)
    failed = status is not Status.SUCCEEDED
    return Result(
        **row._asdict(),
        client_token=client_token(RUN_ID, row, generation),
        generation=generation,
        status=status,
        # What a status means: refused for good, or an ambiguous try without an answer.
        ambiguous=status is Status.IN_DOUBT or (not failed and draw(st.booleans())),
        first_sent_at=START - timedelta(seconds=draw(_seconds)),
        error=RowError(*draw(_errors), "failed") if failed else None,
        arn=None if failed else "arn",
        revision=None if failed else 1,
    )


invocations = st.builds(
    Invocation,
    st.lists(st.one_of(_intents(), _results()), max_size=8),
    st.sampled_from([None, End("completed", {}, START)]),
)
#: Ledgers of one run, as the invocations that wrote them; any of them may have crashed.
histories = st.lists(invocations, min_size=1, max_size=5)


def lines_of(history: Iterable[Invocation]) -> list[Line]:
    """The lines that the invocations have left."""
    records: list[Record] = []
    for invocation in history:
        records += [header(), *invocation.records, *([invocation.end] if invocation.end else [])]
    return numbered(records)
