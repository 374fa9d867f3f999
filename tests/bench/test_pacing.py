"""The pace against services of many kinds: near the ideal, with few throttles, and better than others.

`python -m tests.bench.pacing` prints the whole comparison.
"""

from __future__ import annotations

from functools import cache
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.bench.pacing.controllers import CONTROLLERS
from tests.bench.pacing.scenarios import DECLARED, SCENARIOS, play

if TYPE_CHECKING:
    from tests.bench.pacing.scenarios import Result

SEEDS = range(5)


ALL = {**SCENARIOS, **DECLARED}


@cache
def played(name: str, seed: int, who: str = "ours") -> Result:
    """One run of a scenario, shared by several tests."""
    return play(ALL[name], CONTROLLERS[who], seed)


@pytest.mark.parametrize("name", ALL)
def test_the_allowed_rate_is_used_and_rarely_exceeded(name):
    scenario = ALL[name]
    results = [played(name, seed) for seed in SEEDS]
    assert median(result.elapsed for result in results) <= scenario.elapsed
    assert median(result.throttled for result in results) <= scenario.throttled
    # Single runs vary by chance, but not by much.
    assert max(result.elapsed for result in results) <= scenario.elapsed * 1.15
    assert max(result.throttled for result in results) <= scenario.throttled * 1.3
    for result in results:
        assert result.elapsed > 0.98, "faster than the limit: the simulation is wrong"


TOGETHER = [name for name, scenario in SCENARIOS.items() if len(scenario.rows) > 1]


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("seed", range(8))
def test_two_clients_of_one_limit_both_progress(name, seed):
    scenario = SCENARIOS[name]
    least = 0.3 if scenario.shared else 0.2
    assert least <= played(name, seed).share <= 1 - least


@pytest.mark.parametrize("other", [name for name in CONTROLLERS if name != "ours"])
@pytest.mark.parametrize("name", list(SCENARIOS)[:3])
def test_no_other_controller_is_both_faster_and_throttled_less(name, other):
    for seed in SEEDS:
        ours, theirs = (played(name, seed, who) for who in ("ours", other))
        assert ours.elapsed < theirs.elapsed or ours.throttled < theirs.throttled
