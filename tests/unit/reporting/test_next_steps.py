"""The commands that continue from a ledger."""

import shlex
from dataclasses import replace

import pytest

from batch_snapshot.jobs import plan
from batch_snapshot.ledger.history import RowState
from batch_snapshot.reporting import next_steps
from batch_snapshot.reporting.summary import Counts
from tests.support.reports import (
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


@pytest.mark.parametrize(
    ("counts", "failures", "run", "steps"),
    [
        (DONE, {}, RUN, []),
        (SOME_LEFT, {}, RUN, [RUN]),
        (SOME_LEFT, {}, None, []),  # the manifest is not known
        (SOME_FAILED, {DENIED: 1}, RUN, []),
        (SOME_FAILED, {BROKEN: 1}, RUN, [RETRY]),
        (SOME_IN_DOUBT, {DOUBT: 1}, RUN, [RETRY]),
        (Counts(0, 1, 0, 1), {BROKEN: 1}, RUN, [RUN, RETRY]),
        (Counts(0, 0, 1, 1), {DOUBT: 1}, RUN, [RUN]),
    ],
)
def test_next_steps_run_what_is_left_and_retry_curable_failures(counts, failures, run, steps):
    ended = replace(SUMMARY, counts=counts, failures=failures, run_again=run)
    assert ended.next_steps == steps


@pytest.mark.parametrize(
    ("group", "word"),
    [
        (DENIED, "AccessDeniedException"),
        (DOUBT, "in_doubt"),
        (DENIED._replace(code=""), "denied"),
        (DENIED._replace(code="a,b"), "denied"),
        (DENIED._replace(code=" odd"), "denied"),
        (DENIED._replace(code="it's $odd"), """'it'"'"'s $odd'"""),
    ],
)
def test_remedy_selects_exactly_its_group(group, word):
    assert next_steps.remedy(group, "l.ndjson") == f"batch-snapshot retry l.ndjson --only {word}"
    chosen = shlex.split(next_steps.remedy(group, "l.ndjson"))[-1]
    past = RowState(
        group.status, "t", 0, ambiguous=False, first_sent_at=None, kind=group.kind, code=group.code
    )
    assert plan.parse_only(chosen, [group.code]).takes(past)


def test_paths_in_the_present_folder_are_short_unless_the_ledger_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"simulator_state": str(tmp_path / "w.ndjson"), "simulate": "rate=5"}
    assert next_steps.retry_command("l.ndjson", settings).endswith(" --simulate=rate=5 --state w.ndjson")
    quoted = """batch-snapshot retry 'my ledger'"'"'s.ndjson' --"""
    assert next_steps.retry_command("my ledger's.ndjson", settings).startswith(quoted)
    assert next_steps.retry_command("/l.ndjson", settings).endswith(f" --state {tmp_path}/w.ndjson")
    elsewhere = settings | {"simulator_state": "/w.ndjson"}
    assert next_steps.retry_command("l.ndjson", elsewhere).endswith(" --state /w.ndjson")
