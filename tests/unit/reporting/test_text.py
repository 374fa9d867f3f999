"""A summary as text."""

from dataclasses import replace

from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.models import ErrorKind, Status
from batch_snapshot.reporting import summary as report
from batch_snapshot.reporting import text
from batch_snapshot.reporting.summary import AccountSummary, Counts, Summary, as_json
from batch_snapshot.reporting.text import SHOWN_ACCOUNTS, as_text
from tests.support.reports import AGAIN, BROKEN, DONE, DOUBT, RETRY, RUN, SUMMARY


def test_states_in_words_omit_zeros_except_successes():
    assert text.states(Counts(1200, 0, 3, 0)) == "1,203 rows: 1,200 succeeded, 3 in doubt"
    assert text.states(Counts()) == "0 rows: 0 succeeded"


def test_every_error_kind_has_advice():
    assert set(text.ADVICE) == set(ErrorKind)


def test_summary_as_text():
    assert text.as_text(SUMMARY).splitlines() == [
        "stopped: 1,037 rows: 1,000 succeeded, 30 failed, 2 in doubt, 5 unattempted",
        "  account acme: 20 denials in a row",
        "",
        "     22 failed, denied, AccessDeniedException",
        f"        {text.ADVICE[ErrorKind.DENIED]}",
        f"        $ {AGAIN} AccessDeniedException",
        "      8 failed, transient, InternalServerException",
        f"        {text.ADVICE[ErrorKind.TRANSIENT]}",
        f"        $ {AGAIN} InternalServerException",
        "      2 in doubt, denied, AccessDeniedException",
        f"        {text.DOUBT_ADVICE}",
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
    ]


def test_groups_with_the_same_advice_share_it():
    slow = FailureGroup(Status.IN_DOUBT, ErrorKind.TRANSIENT, "ReadTimeout")
    lines = text.as_text(replace(SUMMARY, failures={DOUBT: 2, BROKEN: 1, slow: 4})).splitlines()
    assert lines[3:9] == [
        "      4 in doubt, transient, ReadTimeout",
        "      2 in doubt, denied, AccessDeniedException",
        f"        {text.DOUBT_ADVICE}",
        f"        $ {AGAIN} in_doubt",
        "      1 failed, transient, InternalServerException",
        f"        {text.ADVICE[ErrorKind.TRANSIENT]}",
    ]


def test_summary_without_calls_omits_them():
    plain = Summary(outcome="completed", exit_code=0, counts=DONE, failures={}, ledger="l.ndjson", run_id="r")
    assert text.as_text(plain).splitlines() == [
        "completed: 3 rows: 3 succeeded",
        "",
        "ledger  l.ndjson",
        "run id  r",
    ]
    found = as_json(plain)
    assert (found["calls"], found["throttled_calls"], found["learned_rate"]) == (0, 0, None)


def test_few_vanished_rows_are_all_named():
    named = replace(SUMMARY, vanished=2)
    assert "no longer in the manifest: 2 rows (eng-1/O1, eng-2/O2)" in text.as_text(named).splitlines()


def summary(accounts):
    reasons = [f"account {name}: {one.stopped}" for name, one in accounts.items() if one.stopped]
    return report.Summary(
        outcome="stopped",
        exit_code=3,
        counts=Counts(5, 0, 0, 5),
        failures={},
        ledger="l",
        run_id="r",
        accounts=accounts,
        reasons=reasons,
    )


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
