"""Which rows are sent, and under which tokens: whatever crashes, a row gets one snapshot."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.errors import InputError
from batch_snapshot.jobs import plan
from batch_snapshot.jobs.plan import Selection
from batch_snapshot.ledger import history
from batch_snapshot.ledger.history import RowState
from batch_snapshot.models import ErrorKind, Request, Status, client_token
from tests.support import strategies
from tests.support.strategies import POOL, RUN_ID, patient

# ---- run and resume


@given(strategies.histories, strategies.some_rows)
@patient
def test_what_a_run_sends_and_what_is_settled_are_all_rows(invocations, rows):
    past = history.fold(strategies.lines_of(invocations))
    requests = list(plan.resumed(rows, past, RUN_ID))
    assert len(requests) == len(rows)
    for row, request in zip(rows, requests, strict=True):
        status = past.status(row.key)
        if status in {Status.SUCCEEDED, Status.FAILED}:
            assert request is None
            continue
        assert request is not None
        assert request.row == row
        assert request.ambiguous is (status is Status.IN_DOUBT)
        entry = past.unfinished.get(row.key)
        if entry is None:
            assert (request.client_token, request.generation) == (client_token(RUN_ID, row, 0), 0)
        else:
            assert (request.client_token, request.generation) == (entry.client_token, entry.generation)
            assert request.first_sent_at == entry.first_sent_at


# ---- retry


CURABLE = frozenset({ErrorKind.TRANSIENT, ErrorKind.CONFLICT, ErrorKind.QUOTA})
#: What `retry` takes by itself, with `--all`, and with any words of `--only`.
selections = st.sampled_from([Selection(), plan.all_unfinished()]) | st.builds(
    Selection,
    st.frozensets(st.sampled_from(ErrorKind)),
    st.frozensets(st.sampled_from(["A", "B", history.CRASHED])),
    st.booleans(),
)


def test_retry_takes_what_another_try_can_cure_and_with_all_every_kind():
    assert Selection() == Selection(CURABLE, frozenset(), in_doubt=True)
    assert plan.all_unfinished() == Selection(frozenset(ErrorKind), frozenset(), in_doubt=True)


@given(strategies.histories, selections)
@patient
def test_a_retry_sends_what_is_selected_under_its_old_token_if_a_try_was_ambiguous(invocations, selection):
    lines = strategies.lines_of(invocations)
    past = history.fold(lines)
    requests = list(plan.retried(history.unfinished_rows(lines, past), selection, RUN_ID))
    assert len(requests) == len(past.unfinished)
    sent = {request.row: request for request in requests if request}
    for row in POOL:
        entry = past.unfinished.get(row.key)
        if entry is None or entry.status is None:
            assert row not in sent, "it succeeded, or was never tried"
            continue
        doubtful = selection.in_doubt and entry.status is Status.IN_DOUBT
        assert (row in sent) is (doubtful or entry.kind in selection.kinds or entry.code in selection.codes)
        again = entry.generation + 1
        expected = Request(row, client_token(RUN_ID, row, again), again)
        if entry.ambiguous:
            expected = Request(row, *entry[1:3], ambiguous=True, first_sent_at=entry.first_sent_at)
        assert sent.get(row) in {None, expected}


def test_a_failure_that_is_shown_as_unknown_can_be_selected_as_unknown():
    """A result line may have no error; the summary shows such rows as `unknown`."""
    past = RowState(Status.FAILED, "token", 0, ambiguous=False, first_sent_at=None)
    assert history.failure_group(past).kind is ErrorKind.UNKNOWN
    assert plan.parse_only("unknown", []).takes(past)


# ---- --only


@pytest.mark.parametrize(
    ("words", "kinds", "codes", "in_doubt"),
    [
        ("transient", {"transient"}, set(), False),
        ("transient,quota", {"transient", "quota"}, set(), False),
        (" denied , ,in_doubt,", {"denied"}, set(), True),
        ("in_doubt", set(), set(), True),
        ("AccessDeniedException", set(), {"AccessDeniedException"}, False),
        ("RunCrashed,not_found", {"not_found"}, {"RunCrashed"}, False),
    ],
)
def test_only_takes_kinds_codes_and_in_doubt(words, kinds, codes, in_doubt):
    chosen = plan.parse_only(words, ["AccessDeniedException", "RunCrashed", ""])
    assert chosen == Selection(frozenset(map(ErrorKind, kinds)), frozenset(codes), in_doubt)


@pytest.mark.parametrize("word", ["transeint", "Transient", "failed", "SomeException", "transient quota"])
def test_only_refuses_a_word_it_does_not_know_and_names_the_choices(word):
    with pytest.raises(InputError) as caught:
        plan.parse_only(f"quota,{word}", ["Zeta", "Alpha", "", "Alpha"])
    assert str(caught.value) == (
        f"--only {word}: no such kind, and no row of this ledger has that code; there are: "
        "in_doubt, transient, conflict, quota, denied, not_found, invalid, unknown, Alpha, Zeta"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("words", ["", " ", ",", " , "])
def test_only_refuses_to_select_nothing(words):
    with pytest.raises(InputError, match="name at least one kind or code"):
        plan.parse_only(words, ["X"])


# ---- batches


streams = st.lists(
    st.one_of(
        st.integers(1, 30).map(lambda n: [None] * n),
        st.sampled_from(POOL).map(lambda row: [Request(row, "t")]),
    ),
    max_size=40,
).map(lambda parts: [entry for part in parts for entry in part])


@given(streams, st.integers(1, 7), st.integers(1, 12))
@patient
def test_batches_lose_nothing_keep_the_order_and_are_bounded(stream, size, stride):
    taken = 0

    def rows() -> Iterator[Request | None]:
        nonlocal taken
        for entry in stream:
            taken += 1
            yield entry

    found: list[Request] = []
    before = 0
    for batch in plan.batches(rows(), size, stride):
        assert len(batch) <= size
        # Nothing is read ahead, and the caller gets a turn at least once in a stride.
        assert 0 < taken - before <= stride
        assert batch == [entry for entry in stream[before:taken] if entry]
        before = taken
        found += batch
    assert taken == len(stream)
    assert len(stream) - before < stride
    assert found == [entry for entry in stream if entry]


def test_batches_are_full_where_all_rows_are_sent():
    requests = [Request(POOL[0], str(n)) for n in range(130)]
    assert [len(batch) for batch in plan.batches(requests, 64)] == [64, 64, 2]


@given(sent=st.lists(st.booleans(), max_size=30), limit=st.integers(1, 12))
def test_limited_requests_are_the_first_ones_and_nothing_behind_them_is_looked_at(sent, limit):
    requests = [Request(POOL[0], f"t{number}", 0) if one else None for number, one in enumerate(sent)]
    looked_at = iter(requests)
    taken = list(plan.limited(looked_at, limit))
    assert [one for one in taken if one] == [one for one in requests if one][:limit]
    assert taken == requests[: len(taken)]
    if len([one for one in taken if one]) == limit:
        assert taken[-1] is not None
        assert list(looked_at) == requests[len(taken) :]
    assert list(plan.limited(requests, None)) == requests
