"""What `plan` prints, and `run` at its start: as text, in a line, and as JSON."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from math import inf
from typing import Any

import pytest

from batch_snapshot.config.options import Options
from batch_snapshot.engine.limits import AccountForecast
from batch_snapshot.jobs import preview, run
from batch_snapshot.jobs.preview import Preview
from batch_snapshot.models import Account, Quota
from batch_snapshot.ratelimit import forecast
from batch_snapshot.ratelimit.windows import DAY, QuotaWindow, windows
from batch_snapshot.reporting.summary import Counts
from tests.support.processes import pairs

#: A Thursday, in a zone two hours ahead.
NOW = datetime(2026, 3, 5, 2, 10, tzinfo=timezone(timedelta(hours=2), "EET"))
DAILY = QuotaWindow("per_day", 10_000, DAY)


def outlook(
    rows: int,
    rate: float,
    basis: str = "declared",
    windows: tuple[QuotaWindow, ...] = (),
    used: tuple[int, ...] = (),
) -> AccountForecast:
    """As if all calls of the windows were made just now."""
    ages = [0.0] * max(used, default=0)
    found = forecast.forecast(rows, rate, [(window.seconds, window.limit) for window in windows], ages)
    return AccountForecast(found, rate, basis, windows, used)


def planned(
    *, catalogs: tuple[str, ...] = ("Sandbox",), now: datetime = NOW, **outlooks: AccountForecast
) -> Preview:
    rows = sum(span.rows for each in outlooks.values() for span in each.forecast.spans)
    return Preview(
        name="nightly",
        ledger="l.ndjson",
        endpoint="aws",
        accounts={name: Account(name) for name in outlooks},
        catalogs=frozenset(catalogs),
        counts=Counts(1000, 0, 0, rows),
        rows=rows,
        outlooks=outlooks,
        now=now,
    )


ONE = planned(main=outlook(7200, 2.0), catalogs=("Sandbox", "AWS"))
DAYS = planned(main=outlook(23_400, 4.0, windows=(DAILY,), used=(0,)))
TWO = planned(
    main=outlook(7200, 2.0, "learned"),
    acme=outlook(100, 1.0, "assumed", (QuotaWindow("per_minute", 60, 60.0), DAILY), (12, 400)),
)
NEVER = planned(main=outlook(5, 1.0, windows=(QuotaWindow("per_hour", 0, 3600.0),), used=(0,)))
NOTHING = planned()


# -- as text ------------------------------------------------------------------------------------------


def test_a_plan_says_what_is_sent_where_how_fast_and_until_when():
    assert preview.as_text(ONE).splitlines() == [
        "nightly: 7,200 of 8,200 rows to send, 7,202 calls",
        "  catalog   AWS, Sandbox",
        "  endpoint  aws",
        "  ledger    l.ndjson (8,200 rows: 1,000 succeeded, 7,200 unattempted)",
        "  account   main: 2 calls/s, declared",
        "            7,200 rows: now; ends 03:10 EET, in 1:00:00",
    ]


def test_a_plan_shows_the_days_on_which_windows_open():
    words = preview.as_text(DAYS).splitlines()[-1].strip()
    assert words.startswith(
        "23,400 rows: 10,000 now, 10,000 from Fri 02:10, 3,400 from Sat 02:10; ends Sat 02:25 EET"
    )
    assert words.endswith("in 2 days, 0:14:10")


def test_a_plan_shows_each_accounts_rate_and_used_windows():
    lines = preview.as_text(TWO).splitlines()
    assert lines[0] == "nightly: 7,300 of 8,300 rows to send, 7,302 calls"
    assert "  account   main: 2 calls/s, learned by an earlier run" in lines
    assert (
        "  account   acme: 1 call/s, assumed: none is declared or learned yet; "
        "per_minute 12 of 60 used; per_day 400 of 10,000 used"
    ) in lines


def test_a_retry_names_no_catalog():
    text = preview.as_text(planned(main=outlook(5, 1.0), catalogs=()))
    assert "catalog" not in text
    assert "5 of 1,005 rows to send, 6 calls" in text


def test_a_plan_without_rows_is_a_plan():
    assert preview.as_text(NOTHING).splitlines() == [
        "nightly: 0 of 1,000 rows to send, 0 calls",
        "  catalog   Sandbox",
        "  endpoint  aws",
        "  ledger    l.ndjson (1,000 rows: 1,000 succeeded)",
    ]


# -- in a line an account ------------------------------------------------------------------------------


def test_the_brief_form_is_a_line_an_account():
    assert preview.brief(ONE) == "7,200 rows: now; ends 03:10 EET, in 1:00:00 (2 calls/s, declared)"
    first, second = preview.brief(TWO).splitlines()
    assert first.startswith("main: 7,200 rows: now; ends ")
    assert second.startswith("acme: 100 rows: ")
    assert second.endswith(" (1 call/s, assumed)")
    assert preview.brief(NOTHING) == ""


def test_of_many_accounts_the_brief_form_names_those_that_take_longest():
    thousand: dict[str, Any] = {f"a{number}": outlook(100 + number, 1.0) for number in range(1000)}
    many = planned(**thousand)
    *named, others = preview.brief(many).splitlines()
    assert [line.split(":")[0] for line in named] == [f"a{number}" for number in range(991, 1000)]
    assert others == "991 other accounts: none takes longer"
    spent = outlook(20, 1.0, windows=(QuotaWindow("per_hour", 10, 3600.0),), used=(10,))
    assert spent.forecast.unwaited
    spent = replace(spent, forecast=spent.forecast.unwaited)
    assert "deferred" in preview.brief(planned(**thousand, spent=spent)), "it is not done before the others"
    ten = dict([*thousand.items()][:10])
    assert len(preview.brief(planned(**ten)).splitlines()) == 10


# -- as JSON -------------------------------------------------------------------------------------------


def test_a_plan_as_json():
    assert json.loads(json.dumps(preview.as_json(DAYS), allow_nan=False)) == {
        "name": "nightly",
        "ledger": "l.ndjson",
        "endpoint": "aws",
        "accounts": ["main"],
        "catalogs": ["Sandbox"],
        "counts": {"succeeded": 1000, "failed": 0, "in_doubt": 0, "unattempted": 23_400},
        "rows": 23_400,
        "calls": 23_401,
        "rate": 4.0,
        "duration_s": pytest.approx(2 * DAY + 3399 / 4, abs=1e-3),
        "ends_at": "2026-03-07T02:24:09+02:00",
        "deferred_rows": 0,
        "forecasts": {
            "main": {
                "rate": 4.0,
                "rate_is": "declared",
                "windows": [{"name": "per_day", "limit": 10_000, "seconds": DAY, "used": 0}],
                "stretches": [
                    {"rows": 10_000, "begins_at": "2026-03-05T02:10:00+02:00"},
                    {"rows": 10_000, "begins_at": "2026-03-06T02:10:00+02:00"},
                    {"rows": 3400, "begins_at": "2026-03-07T02:10:00+02:00"},
                ],
                "duration_s": pytest.approx(2 * DAY + 3399 / 4, abs=1e-3),
                "ends_at": "2026-03-07T02:24:09+02:00",
                "deferred_rows": 0,
                "quota_opens_at": None,
            }
        },
    }


def test_accounts_run_in_parallel_and_the_last_one_sets_the_end():
    found = preview.as_json(TWO)
    ends = {name: each["duration_s"] for name, each in found["forecasts"].items()}
    assert found["rate"] == 3.0
    assert found["duration_s"] == max(ends.values()) == ends["main"]
    assert [window["used"] for window in found["forecasts"]["acme"]["windows"]] == [12, 400]


def test_never_is_null():
    found = json.loads(json.dumps(preview.as_json(NEVER), allow_nan=False))
    assert (found["duration_s"], found["ends_at"]) == (None, None)
    assert found["forecasts"]["main"]["stretches"] == [{"rows": 5, "begins_at": None}]


def test_an_end_after_the_year_9999_has_no_date():
    far = planned(main=outlook(1_000_000, 1e-6))
    found = preview.as_json(far)
    assert found["ends_at"] is None
    assert found["duration_s"] > 9e11
    assert "9999" in preview.as_text(far)


def test_without_rows_there_is_no_rate():
    found = preview.as_json(NOTHING)
    assert (found["rows"], found["calls"], found["rate"], found["duration_s"]) == (0, 0, None, 0.0)
    assert found["forecasts"] == {}


# -- of a job ------------------------------------------------------------------------------------------


def test_a_plan_is_made_of_what_the_manifest_declares_and_nothing_is_written(place):
    manifest = place.manifest(
        [*pairs(30, account="a"), *pairs(20, first=30, account="b")],
        accounts={"a": {"quota": {"per_second": 2, "per_minute": 10}}, "b": {}},
    )
    before = sorted(place.folder.rglob("*"))
    options = Options(simulate=True, state_dir=place.folder, wait=True)
    found = run.dry_run(manifest, options, lambda: datetime(2026, 3, 5, tzinfo=UTC))
    assert sorted(place.folder.rglob("*")) == before
    assert (found.rows, found.calls) == (50, 52)
    one, other = found.outlooks["a"], found.outlooks["b"]
    assert (one.rate, one.basis, one.windows) == (2, "declared", windows(Quota(per_minute=10)))
    assert one.used == (0,)
    assert one.forecast.ends_in == pytest.approx(120 + 9 / 2)
    assert (other.rate, other.basis, other.windows, other.used) == (1, "assumed", (), ())
    assert found.ends_in == one.forecast.ends_in < inf
    assert found.now == datetime(2026, 3, 5, tzinfo=UTC)
    ended = run.dry_run(manifest, replace(options, wait=False), lambda: datetime(2026, 3, 5, tzinfo=UTC))
    assert ended.outlooks["a"].forecast.spans == (forecast.ForecastSpan(0.0, 10),)
    found_json = preview.as_json(ended)
    assert (found_json["deferred_rows"], found_json["duration_s"]) == (20, 19.0)
    at = datetime.fromisoformat(found_json["forecasts"]["a"]["quota_opens_at"])
    assert at == datetime(2026, 3, 5, 0, 1, tzinfo=UTC)
    text = preview.as_text(ended)
    assert "30 rows: 10 now, then its quota is spent until" in text
    assert "exit code 4); --wait waits for it\n" in text, "no time of an end after it"


@pytest.mark.asyncio
async def test_an_account_with_nothing_to_send_is_not_in_the_plan(place):
    manifest = place.manifest(pairs(3, account="a"), accounts={"a": {}, "b": {}})
    options = Options(simulate=True, ledger=str(place.folder / "l.ndjson"), state_dir=place.folder)
    found = run.dry_run(manifest, options)
    assert list(found.outlooks) == ["a"]
    assert found.calls == 4
    manifest = place.manifest(pairs(3))
    options = replace(options, ledger=str(place.folder / "done.ndjson"))
    await run.run(manifest, options)
    found = run.dry_run(manifest, options)
    assert found.outlooks == {}
    assert (found.rows, found.calls, found.counts.succeeded) == (0, 0, 3)
