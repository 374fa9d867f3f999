"""The pace against services of many kinds: near the ideal, with few throttles, and better than others.

`python -m tests.bench.pacing` prints the whole comparison.
"""

import copy
from functools import cache
from statistics import median

import pytest

from tests.bench.pacing.controllers import CONTROLLERS, Aimd, Ours
from tests.bench.pacing.oracle import soonest
from tests.bench.pacing.random_servers import KINDS, draw, play_random, score
from tests.bench.pacing.scenarios import DECLARED, SCENARIOS, Result, play
from tests.bench.pacing.servers import Bucket, Fixed, Sliding, Weighted

SEEDS = range(5)


ALL = {**SCENARIOS, **DECLARED}
#: Tens of thousands of calls.
LARGE = {name for name, scenario in ALL.items() if sum(scenario.rows) > 2_500}


@cache
def played(name: str, seed: int, who: str = "ours") -> Result:
    """One run of a scenario, shared by several tests."""
    return play(ALL[name], CONTROLLERS[who], seed)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in LARGE)) for name in ALL]
)
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


TOGETHER = [name for name, scenario in SCENARIOS.items() if len(scenario.rows) > 1 and name not in LARGE]


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


def test_a_seed_always_draws_the_same_service():
    assert draw(5) == draw(5) != draw(6)
    assert {draw(seed).kind for seed in range(100)} == set(KINDS)


@pytest.mark.parametrize("window", [Sliding(20, 1.0), Fixed(20, 1.0), Weighted(20, 1.0)])
def test_a_window_admits_its_limit_in_the_long_run(window):
    calls = sum(window.admits(number / 25) for number in range(25 * 60))
    assert 0.85 * 20 * 60 <= calls <= 20 * 61


@pytest.mark.parametrize(
    "server", [Bucket(5, 3, ((4.0, 2.0),)), Sliding(20, 1.0), Fixed(20, 1.0), Weighted(4, 1.0)]
)
def test_a_server_admits_a_call_when_it_opens_and_none_just_before(server):
    now = 0.1
    for _ in range(60):
        opens = server.opens(now)
        if opens > now + 1e-6:
            assert not copy.deepcopy(server).admits(opens - 1e-6)
        assert server.admits(opens)
        now = opens + 0.01


def test_no_client_can_be_done_before_the_server_has_admitted_its_calls():
    # A burst of 3 at once, then 5 a second; the other program's calls cost half a second in all.
    alone = soonest(Bucket(5, 3), 23, latency=0.1, stray=0.0, others=(), seed=1)
    shared = soonest(Bucket(5, 3), 23, latency=0.1, stray=0.0, others=(0.3, 0.5, 1.7), seed=1)
    assert alone == pytest.approx(4.1, abs=0.01)
    assert shared == pytest.approx(4.7, abs=0.01)
    # With 32 workers, 320 calls of a second take ten seconds however much is admitted.
    assert soonest(Bucket(1000, 1000), 320, 1.0, 0.0, (), 1) == pytest.approx(10.0, rel=0.02)


def test_a_client_that_knows_the_limit_scores_better_than_any_pace():
    services = [draw(seed) for seed in range(100, 115)]
    informed = score([play_random(each) for each in services])
    assert 1.0 <= informed.mean <= 1.06
    assert informed.worst <= 1.3
    assert informed.throttled <= 0.04


def test_random_services_are_used_better_than_by_a_usual_controller():
    """A part of the score of `python -m tests.bench.pacing --random 300`."""
    services = [draw(seed) for seed in range(100, 115)]
    ours, aimd = (score([play_random(each, make) for each in services]) for make in (Ours, Aimd))
    assert ours.mean <= 1.6
    assert ours.throttled <= 0.08
    assert ours.mean < aimd.mean
    assert ours.throttled < aimd.throttled
