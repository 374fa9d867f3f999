"""Calls in flight: each account has its share of them, however many engines begin."""

import anyio
import pytest

from batch_snapshot.engine.limits import ConcurrencyLimit

pytestmark = pytest.mark.anyio


def test_the_share_counts_the_accounts_of_all_engines_and_is_rounded_up():
    limit = ConcurrencyLimit(32)
    assert limit.share("one", 1) == 32
    assert limit.share("another", 19) == 2
    assert limit.share("one", 3) == 2
    limit.leave("another")
    assert limit.share("one", 3) == 11
    assert limit.share("one", 100) == 1


def test_expected_accounts_have_their_share_kept():
    limit = ConcurrencyLimit(32)
    limit.expected = 8
    assert limit.share("the first", 1) == 4
    limit.expected = 1
    assert limit.share("the first", 1) == 32


async def test_no_more_calls_are_in_flight_than_the_limit():
    limit = ConcurrencyLimit(2)
    assert limit.take_nowait()
    assert limit.take_nowait()
    assert not limit.take_nowait()
    with anyio.move_on_after(0) as waited:
        await limit.take()
    assert waited.cancelled_caught
    limit.give_back()
    await limit.take()
