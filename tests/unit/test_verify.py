"""Which snapshots of a list confirm a ledger, contradict it, or are in no ledger."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.verify import (
    Claim,
    ListedSnapshot,
    Verification,
    _Verifier,
    disagreement,
    unknown_snapshots,
)
from tests.support.strategies import POOL, START

revisions = st.integers(1, 6)

listings = st.lists(
    st.builds(ListedSnapshot, revisions, st.sampled_from(["a1", "a2", "a3"]), st.just("")),
    max_size=5,
    unique=True,
)


@given(listings, revisions, st.sampled_from(["a1", "a2", "a3"]))
def test_a_claim_holds_where_the_list_has_just_that(listed, revision, arn):
    found = disagreement(Claim(POOL[0], "succeeded", arn, revision), listed)
    exact = any((one.revision, one.arn) == (revision, arn) for one in listed)
    near = any(one.revision == revision or one.arn == arn for one in listed)
    assert (found.what if found else None) == (None if exact else "mismatched" if near else "missing")


@given(listings, st.sets(revisions))
def test_snapshots_that_no_ledger_names_are_unknown_latest_first(listed, known):
    found = [one.revision for one in unknown_snapshots(listed, known)]
    highest = max([*known, *(one.revision for one in listed)], default=0)
    assert found == sorted(set(range(1, highest + 1)) - known, reverse=True)


def test_a_revision_of_another_endpoint_is_not_counted_down_from():
    assert [one.revision for one in unknown_snapshots([ListedSnapshot(10**15, "a", "")], {1})] == [10**15]


@pytest.mark.parametrize(("arn", "findings"), [("arn:1", []), (None, ["missing"])])
@pytest.mark.asyncio
async def test_a_snapshot_that_the_list_leaves_out_is_missing_only_if_a_read_does_not_find_it(arn, findings):
    async def read(*_, **__):
        return {"Arn": arn}

    result = Verification(ledger="l.ndjson")
    nothing: Any = None
    verifier = _Verifier(nothing, nothing, None, START, result)
    reader: Any = SimpleNamespace(name="main", read=read)
    claim = Claim(POOL[0], "succeeded", "arn:1", 1)
    await verifier._check_claim(reader, claim, [])
    assert [finding.what for finding in result.findings] == findings
