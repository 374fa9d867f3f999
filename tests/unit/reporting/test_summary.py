"""The summary of a run: exit codes, counts, JSON."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.models import ErrorKind, Skip, Status
from batch_snapshot.reporting import summary as report
from batch_snapshot.reporting.summary import (
    SHOWN_ACCOUNTS,
    AccountSummary,
    Counts,
    Example,
    Summary,
    ThisRun,
    as_json,
    as_text,
    count,
    exit_code,
)
from tests.support.reports import (
    AGAIN,
    BROKEN,
    DENIED,
    DONE,
    DOUBT,
    RETRY,
    RUN,
    SOME_FAILED,
    SOME_IN_DOUBT,
    SOME_LEFT,
    SUMMARY,
)
from tests.support.strategies import POOL, patient


@pytest.mark.parametrize(
    ("outcome", "counts", "signum", "code"),
    [
        ("completed", DONE, None, 0),
        ("completed", Counts(), None, 0),
        ("completed", Counts(3, unchanged=2, active_job=1), None, 0),
        ("completed", SOME_FAILED, None, 1),
        ("completed", SOME_IN_DOUBT, None, 1),
        ("completed", SOME_LEFT, None, 1),
        ("deferred", SOME_LEFT, None, 4),
        ("deferred", SOME_FAILED, None, 4),
        ("stopped", SOME_LEFT, None, 3),
        ("stopped", SOME_FAILED, None, 3),
        ("interrupted", SOME_LEFT, 2, 130),
        ("interrupted", SOME_LEFT, 15, 143),
        ("interrupted", SOME_FAILED, 15, 143),
        ("interrupted", SOME_LEFT, None, 130),
    ],
)
def test_most_serious_reason_gives_the_exit_code(outcome, counts, signum, code):
    assert exit_code(outcome, counts, signum) == code


@given(st.dictionaries(st.sampled_from([*Status, *Skip]), st.integers(0, 9)), st.integers(0, 40))
@patient
def test_counts_sum_to_the_rows(statuses, more):
    counted = sum(statuses.values())
    counts = count(statuses, counted + more)
    assert counts.total == counted + more
    assert counts.unattempted == more
    assert (counts.succeeded, counts.failed, counts.in_doubt) == tuple(
        statuses.get(status, 0) for status in Status
    )
    assert (counts.unchanged, counts.active_job) == tuple(statuses.get(reason, 0) for reason in Skip)
    assert count({Status.SUCCEEDED: 3}, 2) == Counts(succeeded=3), "never negative"


def test_summary_as_json():
    assert json.loads(json.dumps(as_json(SUMMARY))) == {
        "outcome": "stopped",
        "counts": {"succeeded": 1000, "failed": 30, "in_doubt": 2, "unattempted": 5},
        "this_run": None,
        "ledger_totals": {"rows": 1037, "succeeded": 1000, "failed": 30, "in_doubt": 2, "unattempted": 5},
        "failures": [
            {"status": status, "kind": kind, "code": code, "count": count, "next": step, "examples": []}
            for status, kind, code, count, step in (
                ("failed", "denied", DENIED.code, 22, f"{AGAIN} AccessDeniedException"),
                ("failed", "transient", BROKEN.code, 8, f"{AGAIN} InternalServerException"),
                ("in_doubt", "denied", DOUBT.code, 2, f"{AGAIN} in_doubt"),
            )
        ],
        "ledger": "ledgers/nightly.ndjson",
        "run_id": "night-1",
        "elapsed_s": 12.346,
        "calls": 1250,
        "throttled_calls": 50,
        "learned_rate": 20.0,
        "accounts": {
            name: dict(zip(AccountSummary._fields, values, strict=True))
            for name, *values in (
                ("main", 1000, 50, 12.5, None, {}),
                ("acme", 250, 0, 7.5, "20 denials in a row", {}),
                ("idle", 0, 0, None, None, {}),
            )
        },
        "reasons": ["account acme: 20 denials in a row"],
        "vanished": 3,
        "vanished_rows": ["eng-1/O1", "eng-2/O2"],
        "warnings": ["a warning"],
        "next_steps": [RUN, RETRY],
        "report": "batch-snapshot report ledgers/nightly.ndjson --html ledgers/nightly.html",
    }


# -- a summary as text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"counts": Counts(1200, 0, 3, 0)}, "stopped: 1,203 rows: 1,200 succeeded, 3 in doubt\n"),
        ({"counts": Counts()}, "stopped: 0 rows: 0 succeeded\n"),
        ({"counts": Counts(1)}, "stopped: 1 row: 1 succeeded\n"),
        ({"vanished": 1}, "\nno longer in the manifest: 1 row ("),
        ({"vanished": 2}, "\nno longer in the manifest: 2 rows (eng-1/O1, eng-2/O2)\n"),
    ],
)
def test_zeros_are_left_out_and_one_is_no_plural(changes, words):
    assert words in report.as_text(replace(SUMMARY, **changes))


def test_summary_as_text():
    assert report.as_text(SUMMARY).splitlines() == [
        "stopped: 1,037 rows: 1,000 succeeded, 30 failed, 2 in doubt, 5 unattempted",
        "  account acme: 20 denials in a row",
        "",
        "     22 failed, denied, AccessDeniedException",
        f"        {report.ADVICE[ErrorKind.DENIED]}",
        f"        $ {AGAIN} AccessDeniedException",
        "      8 failed, transient, InternalServerException",
        f"        {report.ADVICE[ErrorKind.TRANSIENT]}",
        f"        $ {AGAIN} InternalServerException",
        "      2 in doubt, denied, AccessDeniedException",
        f"        {report.DOUBT_ADVICE}",
        f"        $ {AGAIN} in_doubt",
        "",
        "no longer in the manifest: 3 rows (eng-1/O1, eng-2/O2 …)",
        "",
        "account main  1,000 calls, 50 throttled, pace at the end 12.5/s",
        "account acme  250 calls, 0 throttled, pace at the end 7.5/s, stopped early",
        "account idle  0 calls, 0 throttled",
        "",
        "ledger  ledgers/nightly.ndjson",
        "run id  night-1",
        "calls   1,250 in 12.3 s, 50 throttled (4.0%); pace at the end 20/s",
        f"next    {RUN}",
        f"next    {RETRY}",
        "report  batch-snapshot report ledgers/nightly.ndjson --html ledgers/nightly.html",
    ]


THIS_RUN = ThisRun(
    rows=20, sent=15, looked_up=0, succeeded=3, failed=12, in_doubt=0, left_out=0, unattempted=5
)


def test_summary_begins_with_what_this_command_did():
    lines = report.as_text(replace(SUMMARY, outcome="deferred", this_run=THIS_RUN)).splitlines()
    assert lines[0] == "This command: 15 sent, 3 succeeded, 12 failed, 5 not sent"
    assert lines[1].startswith("Ledger: deferred: 1,037 rows: 1,000 succeeded")
    looked_up = replace(THIS_RUN, sent=13, looked_up=2, left_out=5, unattempted=0)
    assert report.as_text(replace(SUMMARY, this_run=looked_up)).startswith(
        "This command: 13 sent, 3 succeeded, 2 of them found by a look-up, 12 failed, 5 left out\n"
    )


@pytest.mark.parametrize(
    ("outcome", "counts", "words"),
    [
        ("completed", DONE, "completed"),
        ("completed", SOME_FAILED, "completed with failures"),
        ("completed", SOME_IN_DOUBT, "completed with rows in doubt"),
        ("completed", SOME_LEFT, "incomplete"),
        ("completed", Counts(1, 1, 1, 1), "incomplete"),
        ("deferred", SOME_LEFT, "deferred"),
        ("stopped", SOME_FAILED, "stopped"),
    ],
)
def test_only_a_run_without_rows_left_is_called_completed(outcome, counts, words):
    summary = replace(SUMMARY, outcome=outcome, counts=counts)
    assert report.as_text(summary).startswith(f"{words}: ")
    assert as_json(summary)["outcome"] == outcome


def test_failures_have_example_rows_with_their_messages():
    examples = {DENIED: [Example(POOL[0], "is\x1b not allowed"), Example(POOL[1], "x" * 500)]}
    lines = report.as_text(replace(SUMMARY, examples=examples)).splitlines()
    assert lines[3:6] == [
        "     22 failed, denied, AccessDeniedException",
        "        eng-0/O0  is\\x1b not allowed",
        f"        eng-1/O1  {'x' * 159}…",
    ]
    found = as_json(replace(SUMMARY, examples=examples))["failures"]
    assert found[0]["examples"][0] == {**POOL[0]._asdict(), "message": "is\x1b not allowed"}
    assert found[1]["examples"] == []


def test_groups_with_the_same_advice_share_it():
    slow = FailureGroup(Status.IN_DOUBT, ErrorKind.TRANSIENT, "ReadTimeout")
    lines = report.as_text(replace(SUMMARY, failures={DOUBT: 2, BROKEN: 1, slow: 4})).splitlines()
    assert lines[3:9] == [
        "      4 in doubt, transient, ReadTimeout",
        "      2 in doubt, denied, AccessDeniedException",
        f"        {report.DOUBT_ADVICE}",
        f"        $ {AGAIN} in_doubt",
        "      1 failed, transient, InternalServerException",
        f"        {report.ADVICE[ErrorKind.TRANSIENT]}",
    ]


@pytest.mark.parametrize("code", ["ClocksDisagree", "FirstTryLost"])
def test_a_snapshot_that_may_be_older_is_not_said_to_be_settled_by_a_retry(code):
    group = FailureGroup(Status.IN_DOUBT, ErrorKind.TRANSIENT, code)
    lines = report.as_text(replace(SUMMARY, failures={group: 1})).splitlines()
    assert lines[4] == f"        {report.UNDECIDED_ADVICE}"


def test_summary_without_calls_omits_them():
    plain = Summary(outcome="completed", exit_code=0, counts=DONE, failures={}, ledger="l.ndjson", run_id="r")
    assert report.as_text(plain).splitlines() == [
        "completed: 3 rows: 3 succeeded",
        "",
        "ledger  l.ndjson",
        "run id  r",
        "report  batch-snapshot report l.ndjson --html l.html",
    ]
    found = as_json(plain)
    assert (found["calls"], found["throttled_calls"], found["learned_rate"]) == (0, 0, None)


def summary(accounts):
    reasons = [f"account {name}: {one.stopped}" for name, one in accounts.items() if one.stopped]
    return replace(SUMMARY, failures={}, vanished=0, accounts=accounts, reasons=reasons)


def test_a_summary_shows_each_accounts_rows():
    accounts = {
        "good": AccountSummary(5, 0, None, None, {"succeeded": 5, "failed": 0, "unattempted": 0}),
        "bad": AccountSummary(1, 0, None, "denied", {"succeeded": 0, "failed": 0, "unattempted": 5}),
    }
    text = as_text(summary(accounts))
    assert "account good  5 succeeded, 5 calls, 0 throttled\n" in text
    assert "account bad   5 unattempted, 1 call, 0 throttled, stopped early\n" in text
    assert "  account bad: denied\n" in text
    message = report.as_json(summary(accounts))["accounts"]["bad"]
    assert (message["counts"]["unattempted"], message["stopped"]) == (5, "denied")


def test_of_a_thousand_accounts_failing_ones_are_named_and_the_rest_summed_up():
    accounts = {f"a{n:03}": AccountSummary(5, 1, None, None, {"succeeded": 5}) for n in range(1_000)}
    accounts["a777"] = AccountSummary(2, 0, None, "expired", {"succeeded": 1, "unattempted": 4})
    lines = as_text(summary(accounts)).splitlines()
    named = [line for line in lines if line.startswith("account ")]
    assert len(named) == SHOWN_ACCOUNTS
    assert named[0].startswith("account a777")
    assert "980 more accounts: 4,900 succeeded, 4,900 calls, 980 throttled" in lines
    every = {name: AccountSummary(0, 0, None, "no", {}) for name in accounts}
    assert "  … and 980 more: --format json names them" in as_text(summary(every)).splitlines()
