"""Slots for calls in flight: an account has its share of them, whoever else has begun by then."""

import anyio
import pytest

from batch_snapshot.engine.limits import ConcurrencyLimit

pytestmark = pytest.mark.anyio


def test_the_share_counts_the_accounts_of_all_engines_and_is_rounded_up():
    slots = ConcurrencyLimit(32)
    assert slots.share("one", 1) == 32
    assert slots.share("another", 19) == 2
    assert slots.share("one", 3) == 2
    slots.leave("another")
    assert slots.share("one", 3) == 11
    assert slots.share("one", 100) == 1


def test_expected_accounts_have_their_share_kept():
    slots = ConcurrencyLimit(32)
    slots.expected = 8
    assert slots.share("the first", 1) == 4
    slots.expected = 1
    assert slots.share("the first", 1) == 32


async def test_no_more_calls_are_in_flight_than_the_limit():
    slots = ConcurrencyLimit(2)
    assert slots.take_nowait()
    assert slots.take_nowait()
    assert not slots.take_nowait()
    with anyio.move_on_after(0) as waited:
        await slots.take()
    assert waited.cancelled_caught
    slots.give_back()
    await slots.take()
