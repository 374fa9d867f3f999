"""Calls in flight: each account has its share of them, whichever engine calls for it."""

import anyio
import pytest

from batch_snapshot.engine.limits import ConcurrencyLimit

pytestmark = pytest.mark.anyio


def test_the_share_of_an_account_is_rounded_up():
    limit = ConcurrencyLimit(32)
    assert limit.share(1) == 32
    assert limit.share(3) == 11
    assert limit.share(100) == 1


def test_accounts_of_other_engines_have_their_share_kept():
    limit = ConcurrencyLimit(32)
    limit.expected = 8
    assert limit.share(1) == 4
    limit.expected = 1
    assert limit.share(1) == 32


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
