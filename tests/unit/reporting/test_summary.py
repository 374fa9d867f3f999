"""The summary of a run: exit codes, counts, JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.models import Skip, Status
from batch_snapshot.reporting.summary import Counts, as_json, count, exit_code
from tests.support.reports import AGAIN, DONE, RETRY, RUN, SOME_FAILED, SOME_IN_DOUBT, SOME_LEFT, SUMMARY
from tests.support.strategies import patient


@pytest.mark.parametrize(
    ("outcome", "counts", "signum", "code"),
    [
        ("completed", DONE, None, 0),
        ("completed", Counts(), None, 0),
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


@pytest.mark.parametrize("outcome", ["completed", "stopped", "deferred", "interrupted"])
@given(st.builds(Counts, *[st.integers(0, 3)] * 4, unchanged=st.integers(0, 3), active_job=st.integers(0, 3)))
@patient
def test_only_a_completed_run_without_other_rows_exits_0(outcome, counts):
    perfect = outcome == "completed" and not (counts.failed or counts.in_doubt or counts.unattempted)
    assert (exit_code(outcome, counts) == 0) is perfect


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


def test_counts_are_never_negative():
    assert count({Status.SUCCEEDED: 3}, 2) == Counts(succeeded=3)


def test_summary_as_json():
    assert json.loads(json.dumps(as_json(SUMMARY))) == {
        "outcome": "stopped",
        "counts": {"succeeded": 1000, "failed": 30, "in_doubt": 2, "unattempted": 5},
        "this_run": None,
        "ledger_totals": {"rows": 1037, "succeeded": 1000, "failed": 30, "in_doubt": 2, "unattempted": 5},
        "failures": [
            {
                "status": "failed",
                "kind": "denied",
                "code": "AccessDeniedException",
                "count": 22,
                "next": f"{AGAIN} AccessDeniedException",
                "examples": [],
            },
            {
                "status": "failed",
                "kind": "transient",
                "code": "InternalServerException",
                "count": 8,
                "next": f"{AGAIN} InternalServerException",
                "examples": [],
            },
            {
                "status": "in_doubt",
                "kind": "denied",
                "code": "AccessDeniedException",
                "count": 2,
                "next": f"{AGAIN} in_doubt",
                "examples": [],
            },
        ],
        "ledger": "ledgers/nightly.ndjson",
        "run_id": "night-1",
        "elapsed_s": 12.346,
        "calls": 1250,
        "throttled_calls": 50,
        "learned_rate": 20.0,
        "accounts": {
            "main": {
                "calls": 1000,
                "throttled_calls": 50,
                "learned_rate": 12.5,
                "stopped": None,
                "counts": {},
            },
            "acme": {
                "calls": 250,
                "throttled_calls": 0,
                "learned_rate": 7.5,
                "stopped": "20 denials in a row",
                "counts": {},
            },
            "idle": {"calls": 0, "throttled_calls": 0, "learned_rate": None, "stopped": None, "counts": {}},
        },
        "reasons": ["account acme: 20 denials in a row"],
        "vanished": 3,
        "vanished_rows": ["eng-1/O1", "eng-2/O2"],
        "warnings": ["a warning"],
        "next_steps": [RUN, RETRY],
        "report": "batch-snapshot report ledgers/nightly.ndjson --html ledgers/nightly.html",
    }
