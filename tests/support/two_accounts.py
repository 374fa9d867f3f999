"""Runs of two accounts: one is called good, and the other is in trouble."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import batch_snapshot
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.models import Outcome
from batch_snapshot.reporting import status
from batch_snapshot.reporting.summary import Summary
from tests.support.processes import assert_exactly_once, of_type, pairs, results, write_manifest

MANIFEST, LEDGER = Path("trial.yaml"), Path("ledgers/trial.ndjson")
GOOD_ROWS = pairs(10, account="good")
OTHER_ROWS = pairs(16, first=100, account="other")
ROWS = [*OTHER_ROWS, *GOOD_ROWS]


def write(**other: str) -> None:
    """A manifest of two accounts: one called good, and the other."""
    write_manifest(MANIFEST, ROWS, accounts={"good": {"profile": "good"}, "other": other})


async def run(url: str, *, concurrency: int = 2, outcome: Callable[[Outcome], None] | None = None) -> Summary:
    settings = Settings(concurrency=concurrency)
    options = Options(endpoint_url=url, rate=200.0, engine=settings)
    return await batch_snapshot.run(MANIFEST, options, batch_snapshot.Hooks(outcome=outcome))


def after(number: int, account: str, act: Callable[[], None]) -> Callable[[Outcome], None]:
    """Do something once so many rows of the account have an outcome."""
    seen: Counter[str] = Counter()

    def on_outcome(outcome: Outcome) -> None:
        seen[outcome.request.row.account] += 1
        if outcome.request.row.account == account and seen[account] == number:
            act()

    return on_outcome


def assert_other_stopped(summary: Summary, *words: str, done: int | None = 0) -> None:
    """The other account has stopped with a clear line, and its rows wait; the good one's are done."""
    assert (summary.outcome, summary.exit_code) == ("stopped", 3)
    (line,) = summary.reasons
    assert "\n" not in line
    for word in ("account other: ", *words):
        assert word in line
    assert summary.accounts["good"].stopped is None
    lines = Counter((key[0], line["status"]) for key, line in results(LEDGER).items())
    made = lines["other", "succeeded"]
    assert done is None or made == done
    assert lines == Counter({("good", "succeeded"): len(GOOD_ROWS), ("other", "succeeded"): made}), (
        "no row is blamed for its account's credentials"
    )
    assert summary.counts == (10 + made, 0, 0, 16 - made)
    assert of_type(LEDGER, "end")[-1]["counts"] == summary.counts._asdict()


async def assert_resumed(url: str, simulator: Any) -> None:
    assert (await run(url)).exit_code == 0
    assert_exactly_once(simulator, LEDGER, ROWS)
    assert status.check_ledger(LEDGER) == len(ROWS)
