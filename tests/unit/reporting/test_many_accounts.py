"""How many accounts are shown in the summary and on the display."""

from __future__ import annotations

from rich.console import Console

from batch_snapshot.reporting import display
from batch_snapshot.reporting import summary as report
from batch_snapshot.reporting.summary import AccountSummary, Counts
from batch_snapshot.reporting.text import SHOWN_ACCOUNTS, as_text


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


def test_a_thousand_accounts_fit_into_eighty_columns():
    parts = [
        display.DisplayPart(name=f"account-number-{n:04}", done=n % 5, rows=5, rate=0.1) for n in range(1_000)
    ]
    parts[900] = display.DisplayPart(
        name="stopped-one", done=0, rows=5, stopped="account stopped-one: AccessDenied"
    )
    frame = display.Frame(name="many", counts=Counts(2_000, 0, 0, 3_000), elapsed=5.0, parts=parts)
    console = Console(width=80, file=None, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(display.block(frame, 80))
    lines = captured.get().splitlines()
    assert len(lines) <= 6 + display.SHOWN_ACCOUNTS
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  stopped-one") and "stopped: Acc" in line for line in lines)
    assert any(line.startswith("  991 more") for line in lines)
