"""Leases: whatever happens to messages and clocks, a worker is silent before another one calls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.cluster.lease import MARGIN, Lease, Term

SECONDS = 10.0


def test_nobody_may_call_before_the_first_renewal():
    assert Lease(SECONDS).left(0.0) < 0
    assert Term(SECONDS).left(0.0) < 0


def test_a_renewal_counts_from_the_stamp_and_not_from_its_arrival():
    lease = Lease(SECONDS)
    lease.renew(100.0)
    assert lease.left(109.0) == 1.0
    assert lease.left(110.0) == 0.0


def test_an_old_stamp_takes_nothing_away():
    lease = Lease(SECONDS)
    lease.renew(100.0)
    lease.renew(90.0)
    assert lease.left(105.0) == 5.0


delays = st.floats(0, 30)


@given(
    # Of each renewal: the pause before it, its way to the worker (None: lost), the answer's way back.
    st.lists(st.tuples(delays, st.none() | delays, st.none() | delays), min_size=1, max_size=20),
    st.floats(-1e6, 1e6),
    st.floats(1 / (1 + MARGIN), 1 + MARGIN),
)
def test_a_worker_is_silent_when_its_coordinator_takes_its_lease_for_over(renewals, offset, speed):
    """The worker's clock is off by any offset, and slower or faster by no more than the margin."""

    def worker_clock(time):
        return offset + time * speed

    lease, term = Lease(SECONDS), Term(SECONDS)
    time, stamp = 0.0, worker_clock(0.0)
    arrivals = []
    for pause, there, back in renewals:
        time += pause
        term.renew(time)
        if there is None:
            continue
        arrivals.append((time + there, stamp))
        if back is not None:
            # The next renewal is sent after the answer has come, or was given up: here, it came.
            stamp = worker_clock(time + there)
            time += there + back
    over = time + max(0.0, term.left(time))
    for arrival, stamped in arrivals:
        if arrival <= over:
            lease.renew(stamped)
    assert lease.left(worker_clock(over + 1e-3 * max(1.0, over))) <= 1e-6 * max(1.0, abs(offset))
