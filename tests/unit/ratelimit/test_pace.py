"""The pace: its invariants for any answers at any times, and its rules by examples."""

import json
from itertools import pairwise, product
from math import e, inf, isfinite

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot.ratelimit import pace, pace_handover
from batch_snapshot.ratelimit.pace import FLOOR_RATE, LONGEST_HINT, Pace, Phase
from batch_snapshot.ratelimit.pace_tally import new_tally
from tests.bench.pacing.controllers import Ours
from tests.bench.pacing.random_servers import draw, play_random
from tests.bench.pacing.servers import Bucket
from tests.bench.pacing.simulation import Client, Simulation
from tests.support.strategies import patient

HOUR = 3600.0


class Life:
    """A pace, and the calls that left by it."""

    def __init__(self, start: Pace, now: float = 0.0) -> None:
        self.pace = start
        self.now = now
        #: When the calls in flight were sent.
        self.in_flight: list[float] = []
        self.sent: list[float] = []
        self.ended = 0
        #: Of every pace so far, with the time.
        self.past = [(now, start)]

    def step(self, what: str, number: float) -> None:
        getattr(self, f"_{what}")(number)

    def _wait(self, seconds: float) -> None:
        self.now += seconds

    def _send(self, late: float) -> None:
        # A busy event loop sends some milliseconds late.
        self.now = self.pace.opens(self.now) + late % 0.02
        self.in_flight.append(self.now)
        self.sent.append(self.now)
        self._becomes(self.pace.permitted(self.now))

    def _flow(self, number: float) -> None:
        """Successful calls, one after the other."""
        for _ in range(int(number) % 50):
            self._send(0.0)
            self._answer(0.0)

    def _storm(self, number: float) -> None:
        """Nothing but throttles."""
        for _ in range(int(number) % 50):
            self._send(0.0)
            self._throttle(0.0)

    def _stray(self, number: float) -> None:
        """Throttles on their own."""
        for _ in range(int(number) % 9):
            self._flow(40)
            self._send(0.0)
            self._throttle(0.0)

    def _answer(self, which: float) -> None:
        if self.in_flight:
            self._becomes(self.pace.answered(self._end(which)))

    def _throttle(self, which: float) -> None:
        if self.in_flight:
            self._becomes(self.pace.throttled(self._end(which), self.now, None))

    def _hint(self, seconds: float) -> None:
        if self.in_flight:
            self._becomes(self.pace.throttled(self._end(seconds), self.now, seconds))

    def _drop(self, which: float) -> None:
        if self.in_flight:
            self._end(which)
            self._becomes(self.pace.dropped())

    def _end(self, which: float) -> float:
        self.ended += 1
        return self.in_flight.pop(int(which) % len(self.in_flight))

    def _becomes(self, after: Pace) -> None:
        self.pace = after
        self.past.append((self.now, after))


rates = st.floats(0.01, 1000)
starts = st.one_of(
    st.just(Pace()),
    rates.map(pace.declared),
    st.floats(FLOOR_RATE, 1000).map(lambda rate: pace.learned(rate, 1000.0)),
)
KINDS = ["wait", "send", "flow", "storm", "stray", "answer", "throttle", "hint", "drop"]
TIMES = [0.0, 0.001, 0.05, 0.5, 1.0, 7.0, 60.0, HOUR]
times = st.sampled_from(TIMES) | st.floats(0, 1e5)
#: The same for each kind of step; what is drawn at once is drawn faster.
steps = st.sampled_from(list(product(KINDS, TIMES))) | st.tuples(st.sampled_from(KINDS), st.floats(0, 1e5))


@st.composite
def lives(draw: st.DrawFn, start: st.SearchStrategy[Pace] = starts) -> Life:
    """A pace after any history."""
    life = Life(draw(start), 1000.0)
    for what, number in draw(st.lists(steps, max_size=40)):
        life.step(what, number)
    return life


# -- what always holds ---------------------------------------------------------------------------------


def assert_rate_is_positive_at_any_time(now: float, state: Pace) -> None:
    """Also of a time before it was set: a call can be throttled long after it was sent."""
    for at in (0.0, now - HOUR, now, now + 0.01, now + HOUR, now + 1e9):
        rate = state.rate(at)
        assert isinstance(rate, float)
        assert rate > 0
        assert (rate == inf) is (state.phase is Phase.SEARCH)


def assert_peak_is_not_below_the_lowest_rate(state: Pace) -> None:
    assert state.peak >= min(FLOOR_RATE, state.ceiling)
    assert isfinite(state.peak) is (state.phase is not Phase.SEARCH)


def assert_not_starved_above_the_lowest_rate(now: float, state: Pace) -> None:
    if state.starved(now + 1e9, 300):
        assert state.peak <= min(FLOOR_RATE, state.ceiling) * 1.5


@given(lives())
@settings(patient, max_examples=150)
def test_invariants_hold_for_any_history_of_a_pace(life):
    for now, state in life.past:
        assert_rate_is_positive_at_any_time(now, state)
        assert_peak_is_not_below_the_lowest_rate(state)
        assert_not_starved_above_the_lowest_rate(now, state)
        assert pace_handover.load(pace_handover.dump(state)) == state, "it survives being written down"
    for (_, before), (_, after) in pairwise(life.past):
        assert after.next_call_at >= before.next_call_at, "no event lets the next call leave earlier"
    in_flight = life.pace.in_flight
    assert in_flight == len(life.in_flight) == len(life.sent) - life.ended, "what was sent and is not over"


@given(rates, st.data())
@patient
def test_a_declared_rate_is_never_exceeded_whatever_is_answered(rate, data):
    life = data.draw(lives(st.just(pace.declared(rate))))
    for now, state in life.past:
        assert state.rate(now) <= rate
    for earlier, later in zip(life.sent, life.sent[1:], strict=False):
        assert later - earlier >= 1 / rate - pace.CATCH_UP - 1e-6


@given(st.integers(1, 200), st.lists(st.floats(0, 0.2), min_size=2, max_size=400))
@patient
def test_a_declared_rate_is_kept_in_every_window(rate, delays):
    """However late calls leave, no second holds more of them."""
    life = Life(pace.declared(rate), 1000.0)
    for delay in delays:
        opens = life.pace.opens(life.now)
        life.now = opens + (delay if delay > 0.1 else delay / 20)
        life.step("send", 0.0)
        life.step("answer", 0.0)
    for number, at in enumerate(life.sent):
        assert sum(later < at + 1 - 1e-9 for later in life.sent[number:]) <= rate


@given(lives(), st.none() | st.floats(0, 1e9), times)
@patient
def test_a_hint_is_honoured_and_bounded(life, hint, later):
    before, now = life.pace.permitted(life.now), life.now + later
    after = before.throttled(life.now, now, hint)
    rest = min(hint or 0.0, LONGEST_HINT)
    longest_gap = 1 / (pace.CUT * min(FLOOR_RATE, before.ceiling))
    assert now + rest <= after.opens(now)
    assert after.next_call_at <= max(before.next_call_at, now + max(rest, longest_gap) + 1e-3)


@given(lives(), st.floats(1e-3, 1e4), times, st.none() | st.floats(0, 1e4))
@patient
def test_a_throttle_of_a_call_sent_before_the_last_cut_changes_nothing(life, age, later, hint):
    state = life.pace
    if state.cut_at == -inf:
        return
    now = life.now + later
    after = state.throttled(state.cut_at - age, now, None)
    assert after._replace(next_call_at=state.next_call_at) == state.dropped()
    hinted = state.throttled(state.cut_at - age, now, hint)
    same = ("phase", "peak", "known", "tally", "cut_at", "starved_since", "in_flight")
    assert [getattr(hinted, name) for name in same] == [getattr(after, name) for name in same]
    assert hinted.next_call_at == max(state.next_call_at, now + min(hint or 0.0, LONGEST_HINT))


@given(lives(), st.floats(-1e6, 1e6))
@patient
def test_a_shifted_pace_goes_on_as_before_by_the_other_clock(life, seconds):
    """As a worker on another machine takes it over, where nothing is in flight."""
    here = life.pace._replace(in_flight=0)
    there = pace_handover.shifted(life.pace, seconds)
    assert there.in_flight == 0
    now = life.now
    for step in range(12):
        now = max(now, here.opens(now)) + 0.05
        assert there.opens(now + seconds) - seconds == pytest.approx(here.opens(now), abs=1e-3)
        here, there = here.permitted(now), there.permitted(now + seconds)
        if step % 4 == 3:
            here, there = (
                here.throttled(now, now + 0.1, None),
                there.throttled(now + seconds, now + 0.1 + seconds, None),
            )
        else:
            here, there = here.answered(now), there.answered(now + seconds)
        assert there.peak == pytest.approx(here.peak, rel=1e-3)
        assert there.starved(now + seconds + 300, 300) == here.starved(now + 300, 300)


def test_the_rate_that_is_shown_was_declared_or_measured_and_says_which():
    shown = [(each.allowed, each.source) for each in (Pace(), pace.declared(1.0), pace.learned(7.0, 0.0))]
    assert shown == [(inf, "measuring"), (pytest.approx(1.0), "declared"), (7.0, "from the last run")]
    life = Life(pace.learned(7.0, 0.0))
    life.step("flow", 49)
    life.step("wait", HOUR)
    life.step("flow", 49)
    assert life.pace.rate(life.now) > life.pace.allowed == 7.0, "a probe is not shown"
    life.step("storm", 2)
    life.step("flow", 40)
    life.step("send", 0.0)
    life.step("throttle", 0.0)
    assert (life.pace.allowed, life.pace.source) == (life.pace.known, "measured")


def test_a_first_rate_measured_by_few_calls_is_not_told_nor_kept():
    life = Life(Pace())
    for flow in (3, 2, 15):
        assert (life.pace.allowed, life.pace.source) == (inf, "measuring")
        life.step("flow", flow)
        life.step("send", 0.0)
        life.step("throttle", 0.0)
    assert (life.pace.phase, life.pace.source) == (Phase.FOLLOW, "measured")
    assert life.pace.allowed == life.pace.known


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=18) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


@given(st.text() | json_values.map(json.dumps))
@patient
def test_text_that_is_no_pace_is_refused(text):
    assert pace_handover.load(text) is None


@given(st.integers(0, 30), json_values)
@patient
def test_a_pace_that_was_cut_lengthened_or_written_by_another_version_is_refused(place, value):
    written = json.loads(pace_handover.dump(pace.learned(5.0, 0.0)))
    layout = written[0]
    for spoiled in (
        written[:place],
        [*written, value],
        [layout + 1, *written[1:]],
        [str(layout), *written[1:]],
    ):
        if spoiled != written:
            assert pace_handover.load(json.dumps(spoiled)) is None


# -- idle times ----------------------------------------------------------------------------------------


@given(lives(), st.sampled_from(["answer", "drop", "none"]), st.floats(2, 1e6))
@patient
def test_the_rate_does_not_grow_while_no_call_leaves(life, ending, idle):
    if life.pace.phase is Phase.SEARCH:
        return
    begins = max(life.now, life.pace.next_call_at, life.pace.since)
    before = life.pace.rate(begins)
    life.now = begins + idle
    grown = 1.0
    if ending != "none" and life.in_flight:
        # It was in flight all the time; a success may raise the rate by its own step.
        grown = pace.CLIMB_LOW if ending == "answer" else 1.0
        life.step(ending, 0.0)
    life.now += idle
    life.step("send", 0.0)
    assert life.pace.rate(life.now) <= before * grown * (1 + 1e-6)


@pytest.mark.parametrize("hint", [10.0, 60.0, LONGEST_HINT])
def test_the_rate_does_not_grow_while_a_retry_after_delays_calls(hint):
    """Whatever says so: the throttle that cuts the rate, one of the same burst, one by chance."""
    followed = Life(pace.learned(10.0, 0.0), 0.0)
    followed.step("flow", 40)
    for start in (pace.learned(10.0, 0.0), pace.declared(10.0), followed.pace):
        life = Life(start, followed.now)
        for _ in range(4):
            life.step("send", 0.0)
        before = life.pace.rate(life.now)
        life.step("throttle", 0.0)
        life.step("hint", hint)
        life.step("send", 0.0)
        assert life.pace.rate(life.now) <= before
        life.step("answer", 0.0)
        assert life.pace.phase is not Phase.FOLLOW or life.pace.rate(life.now) <= before


@pytest.mark.parametrize("phase", [Phase.CLIMB, Phase.FOLLOW])
def test_a_throttle_soon_after_a_pause_is_measured_without_the_pause(phase):
    life = followed(10.0)
    if phase is Phase.CLIMB:
        life = Life(Pace(phase=Phase.CLIMB, peak=10.0, crest=10.0))
        life.step("flow", 17)
    assert life.pace.phase is phase
    for _ in range(3):
        before = life.pace.rate(life.now)
        life.step("wait", HOUR)
        life.step("flow", 2)
        life.step("send", 0.0)
        life.step("throttle", 0.0)
        assert life.pace.rate(life.now) > before / 2


def settled(service: Bucket, rows: int, start: Pace, at: float) -> tuple[Pace, float]:
    """What becomes of a pace that sends so many rows to a service, and when that is done."""
    client = Client(Ours(start), rows, at)
    Simulation(service, [client], limit=inf).run()
    assert len(client.done) == rows
    assert isinstance(client.controller, Ours)
    return client.controller.pace, client.done[-1]


@pytest.mark.parametrize(
    ("rows", "phase"),
    [(15, Phase.SEARCH), (35, Phase.CLIMB), (300, Phase.FOLLOW)],
    ids=["search", "climb", "follow"],
)
@pytest.mark.parametrize("idle", [60.0, HOUR, 24 * HOUR])
def test_a_time_without_calls_keeps_the_measured_rate(rows, phase, idle):
    """An hour without calls between two throttles is not a rate of nearly nothing."""
    service = Bucket(10, 20)
    before, now = settled(service, rows, Pace(), 0.0)
    assert before.phase is phase
    after, ends = settled(service, 200, before, now + idle)
    assert after.rate(ends) > 6
    assert ends - now - idle < 25


# -- search, climb, follow -----------------------------------------------------------------------------


def test_a_climb_out_of_a_slump_soon_comes_near_the_rate_before():
    start, now = settled(Bucket(10, 20), 35, Pace(), 0.0)
    life = Life(start, now)
    life.step("storm", 4)
    assert life.pace.phase is Phase.CLIMB
    assert life.pace.rate(life.now) < start.peak / 8
    for _ in range(8):
        life.step("send", 0.0)
        life.step("wait", 0.1)
        life.step("answer", 0.0)
    assert start.peak / 5 < life.pace.rate(life.now) < start.peak


def followed(rate: float = 20.0) -> Life:
    """A pace that knows its limit, after some calls."""
    life = Life(pace.learned(rate, 0.0))
    life.step("flow", 49)
    return life


def test_a_stray_throttle_keeps_a_declared_rate_below_the_lowest():
    life = Life(pace.declared(0.06), 1000.0)
    life.step("flow", 2)
    life.step("send", 0.0)
    life.step("throttle", 0.0)
    assert life.pace.peak == life.pace.ceiling


def measured(rate: float, haste: float = 1.0) -> Pace:
    """A pace that followed 10 a second, after a throttle that measured `rate`."""
    tally = new_tally(0.0)
    for number in range(1, 41):
        tally = tally.with_admitted(number / rate, 1.0)
    follows = pace.learned(10.0, 0.0)._replace(tally=tally, haste=haste, in_flight=3)
    then = 41 / rate
    for sent_at in (then, then + 0.01, then + 0.02):
        follows = follows.throttled(sent_at, sent_at, None)
    return follows


def test_a_changed_limit_is_probed_in_less_time_and_a_confirmed_one_in_more():
    changed, confirmed = measured(5.0, haste=1.0), measured(10.0, haste=2.0)
    assert (changed.haste, confirmed.haste) == (pace.HASTE, 2.0 * pace.LESS_HASTE)
    assert measured(10.0).haste == 1.0
    assert confirmed.unit < measured(10.0).unit


def test_after_a_first_measure_the_limit_is_probed_in_less_time():
    found, _ = settled(Bucket(20, 20), 300, Pace(), 0.0)
    assert found.phase is Phase.FOLLOW
    assert 1.0 < found.haste <= pace.HASTE


def test_throttles_of_calls_sent_before_another_rate_was_declared_do_not_cut_it():
    now = 5000.0
    state = pace.redeclared(measured(100.0)._replace(in_flight=8, next_call_at=now), 10.0, now)
    for late in range(6):
        state = state.throttled(now - 0.05, now + 0.01 * late, None)
    assert state.rate(now + 1) == pytest.approx(10.0, rel=0.03)


def test_a_first_throttle_under_another_declared_rate_cuts_it_by_no_more_than_at_the_start():
    now = 5000.0
    state = pace.redeclared(measured(100.0)._replace(in_flight=0, next_call_at=now), 10.0, now)
    sent = state.opens(now)
    state = state.permitted(sent).throttled(sent, sent + 0.05, None)
    assert state.rate(sent + 1) > 10 * FLOOR_RATE


def test_a_climb_ends_at_the_declared_rate():
    life = Life(pace.declared(10))
    life.step("storm", 3)
    assert life.pace.phase is Phase.CLIMB
    for _ in range(4):
        life.step("flow", 49)
    assert life.pace.rate(life.now) == pace.declared(10).rate(life.now)


def test_a_search_that_found_next_to_nothing_ends_at_the_lowest_rate_or_above():
    state = Pace(found=30, began=0.0, next_call_at=3599.0).permitted(3599.5).throttled(3599.5, HOUR, None)
    for number in range(10):
        now = HOUR + 20.0 * (number + 1)
        state = state.permitted(now).answered(now)
        assert state.peak >= FLOOR_RATE


@pytest.mark.parametrize(("found", "width"), [(9, 8), (4, 5)])
def test_a_search_of_slow_answers_widens_with_time_but_no_faster_than_it_is_answered(found, width):
    # It may double every two seconds and a half; by its answers alone two calls would be in flight.
    now = 7.5
    state = Pace(found=found, began=0.0, next_call_at=now)
    while state.opens(now) == now:
        state = state.permitted(now)
    assert state.in_flight == width


def test_the_next_call_waits_a_moment_after_a_throttle():
    life = followed()
    life.step("send", 0.0)
    life.step("wait", 0.2)
    life.step("throttle", 0.0)
    assert life.pace.opens(life.now) >= life.now + 0.2 / life.pace.rate(life.now)


# -- strays -------------------------------------------------------------------------------------------


def returning(rate: float = 20.0) -> Life:
    """A pace that exceeded its limit once, and is on its way back."""
    life = followed(rate)
    life.step("flow", 49)
    life.step("stray", 1)
    assert life.pace.rate(life.now) < pace.BELOW * life.pace.peak
    return life


def test_a_throttle_on_its_own_well_below_the_measured_rate_is_no_limit():
    life = returning(200.0)
    before = life.pace
    life.step("flow", pace.QUIET)
    life.step("send", 0.0)
    life.step("throttle", 0.0)
    same = ("phase", "peak", "since", "known", "cut_at", "crest")
    assert [getattr(life.pace, name) for name in same] == [getattr(before, name) for name in same]
    assert life.pace.strays == pytest.approx(before.strays + 1, rel=0.02)


def test_a_second_throttle_below_the_same_peak_is_a_limit():
    """Nothing is known of strays yet: it may be a limit that fell by a little."""
    life = returning(200.0)
    before = life.pace
    life.step("stray", 1)
    assert life.pace.peak == before.peak
    life.step("flow", pace.QUIET)
    life.step("send", 0.0)
    life.step("throttle", 0.0)
    assert life.pace.peak < before.peak


def test_a_stray_that_another_throttle_follows_soon_was_a_limit():
    """A limit that fell by little lets some calls through before it bites, and then bites often."""
    life = returning(200.0)
    life.step("stray", 1)
    before = life.pace
    life.step("flow", 5)
    life.step("send", 0.0)
    life.step("throttle", 0.0)
    assert before.strays > life.pace.strays + 0.9


def strayed(rate: float = 200.0, haste: float = 1.0) -> Life:
    """A pace that knows of strays, and hastened until then."""
    life = returning(rate)
    for _ in range(20):
        if not life.pace.strayed:
            life.pace = life.pace._replace(haste=haste)
            life.step("stray", 1)
    assert life.pace.strayed
    return life


def test_the_rate_that_strays_cost_is_restored_once_they_are_recognised():
    life = strayed(haste=pace.HASTE)
    peaks = [state.peak for _, state in life.past]
    crest = life.past[-2][1].crest
    assert min(peaks[-200:]) < crest
    assert life.pace.peak == crest
    assert life.pace.haste == 1.0


def test_no_more_than_the_declared_rate_is_restored():
    """Who joins a pace that is shared may have declared less than its crest."""
    life = returning()
    life.pace = life.pace._replace(strays=pace.SURE - 0.1, ceiling=15.0, peak=14.0)
    life.step("stray", 1)
    assert life.pace.strayed
    assert life.pace.peak == 15.0


def test_strays_that_are_known_cost_nothing_at_any_rate():
    life = strayed()
    life.step("wait", 0.9)
    for _ in range(15):
        before = life.pace.peak
        life.step("flow", 49)
        life.step("stray", 1)
        assert life.pace.peak == before
    assert life.pace.rate(life.now) > before


def test_throttles_together_are_a_limit_though_strays_are_known():
    life = strayed()
    before = life.pace.peak
    for _ in range(3):
        life.step("flow", 3)
        life.step("send", 0.0)
        life.step("throttle", 0.0)
    assert life.pace.peak < before


def test_strays_that_stop_are_forgotten():
    life = strayed(20.0)
    rounds = int(2 * pace.MEMORY / 49)
    for _ in range(rounds):
        life.step("flow", 49)
    assert not life.pace.strayed


class Every:
    """A service without a limit that throttles each so-and-so-manieth call."""

    def __init__(self, number: int) -> None:
        self.number, self.calls = number, 0

    def admits(self, at: float) -> bool:
        self.calls += 1
        return self.calls % self.number != 0


class Watched(Ours):
    """A pace whose lowest rate is remembered."""

    lowest = inf

    def throttled(self, sent_at: float, now: float) -> None:
        super().throttled(sent_at, now)
        self.lowest = min(self.lowest, self.pace.rate(now))


@given(st.floats(20, 200), st.integers(60, 300), st.sampled_from([0.02, 0.08]))
@settings(patient, max_examples=30)
def test_strays_alone_bring_no_declared_rate_down_by_much(rate, number, latency):
    watched = Watched(pace.declared(rate))
    client = Client(watched, 1500)
    Simulation(Every(number), [client], latency).run()
    assert watched.lowest > 0.6 * rate
    assert 1500 / client.done[-1] > 0.75 * rate


def test_denser_throttles_are_a_limit_however_many_strays_are_counted():
    """Or throttles that are taken for strays would excuse ever more of them."""
    life = strayed()
    life.pace = life.pace._replace(strays=pace.MOST, crest=100 * life.pace.peak)
    life.step("stray", 1)
    assert life.pace.strays <= pace.MOST
    before = life.pace.peak
    for _ in range(40):
        life.step("flow", 8)
        life.step("send", 0.0)
        life.step("throttle", 0.0)
    assert life.pace.peak < 0.9 * before


def doubts(start: Pace) -> int:
    """How many strays it takes until they are known."""
    life = Life(start)
    for number in range(40):
        if life.pace.strayed:
            return number
        life.step("stray", 1)
    raise AssertionError("never known")


# -- starving ------------------------------------------------------------------------------------------


def test_starving_means_only_throttles_at_the_lowest_rate_for_a_time():
    life = followed()
    life.step("storm", 12)
    assert life.pace.peak == FLOOR_RATE
    since = life.pace.starved_since
    assert since is not None
    assert not life.pace.starved(since + 299, 300)
    assert life.pace.starved(since + 300, 300)
    life.step("send", 0.0)
    life.step("answer", 0.0)
    assert not life.pace.starved(since + 1e9, 300)


@given(st.floats(1, 100), st.integers(1, 49))
@patient
def test_the_measured_rate_survives_any_series_of_throttles(rate, number):
    """A spent daily quota is no lower rate: the next run begins where this one was."""
    life = Life(pace.learned(rate, 0.0))
    life.step("storm", number)
    assert life.pace.known == rate


# -- what the constants mean ----------------------------------------------------------------------------
# In figures of their own: each fails if its constant is doubled or halved.


def test_the_lowest_rate_is_five_calls_a_minute_and_the_longest_hint_five_minutes():
    life = followed()
    life.step("storm", 30)
    life.step("wait", 100.0)
    life.step("send", 0.0)
    assert life.pace.next_call_at - life.now == pytest.approx(12.0, abs=0.1)
    life.step("hint", 1e9)
    assert life.pace.opens(life.now) - life.now == pytest.approx(300.0)


def test_calls_stay_a_hundredth_or_two_below_a_declared_rate():
    assert 98 < pace.declared(100.0).rate(0.0) < 99


def test_a_call_that_leaves_late_lets_the_next_leave_some_milliseconds_earlier():
    late = followed(10.0).pace._replace(next_call_at=99.0).permitted(100.0)
    assert 0.003 < 100.0 + 1 / late.rate(100.0) - late.next_call_at < 0.008


@pytest.mark.parametrize(("idle", "rests"), [(0.7, False), (1.5, True)])
def test_a_second_without_calls_is_a_rest(idle, rests):
    before = followed(10.0).pace._replace(next_call_at=100.0)
    assert (before.permitted(100.0 + idle).since != before.since) is rests


def test_a_search_has_two_calls_in_flight_from_the_third_answer_on_and_three_from_the_eighteenth():
    def width(found: int) -> int:
        state = Pace(found=found)
        while state.opens(0.0) == 0.0:
            state = state.permitted(0.0)
        assert 0.2 < state.opens(0.0) < 0.3
        return state.in_flight

    assert [width(found) for found in (1, 2, 3, 17, 18, 32, 33)] == [1, 1, 2, 2, 3, 3, 4]


def climbing(peak: float, crest: float = inf) -> float:
    """The growth of a climb by its first success."""
    state = Pace(phase=Phase.CLIMB, peak=peak, crest=crest, in_flight=1).answered(1.0)
    return state.peak / peak


def test_a_climb_grows_by_a_tenth_at_first_and_faster_where_it_is_far_below():
    assert climbing(10.0, crest=20.0) == pytest.approx(1.1, abs=0.03)
    assert climbing(0.9, crest=1.0) == pytest.approx(1.5, abs=0.1)
    assert climbing(3.9, crest=20.0) == climbing(0.9, crest=1.0)
    assert climbing(6.1, crest=20.0) == climbing(10.0, crest=20.0)


def following(peak: float, haste: float = 1.0) -> Pace:
    return Pace(phase=Phase.FOLLOW, peak=peak, haste=haste)


def test_the_return_takes_some_seconds_and_some_calls():
    assert following(20.0).unit == pytest.approx(3.8, rel=0.2)
    assert following(2.0).unit == pytest.approx(13.7, rel=0.2)
    assert following(0.1).unit == pytest.approx(25.0, rel=0.2)


def test_the_rate_returns_then_grows_slowly_and_then_fast_to_thrice_the_measure():
    state = following(10.0)
    seen = [state.rate(state.unit * units) for units in (0, 1, 2, 3, 100)]
    assert seen == pytest.approx([9.5, 10.0, 11.0, 19.2, 30.0], rel=0.04)


def once(rate: float) -> Pace:
    """A pace that followed 10 a second, after a throttle that ended `rate`."""
    tally = new_tally(0.0)
    for number in range(1, 41):
        tally = tally.with_admitted(number / rate, 1.0)
    then = 41 / rate
    before = following(10.0, haste=2.0)._replace(tally=tally, since=then - 5.0, in_flight=1)
    return before.throttled(then, then, None)


def test_a_measure_is_the_mean_of_what_was_admitted_and_the_rate_that_was_throttled():
    assert once(5.0).peak == pytest.approx((5.0 * 10.0) ** 0.5, rel=0.04)


def test_a_measure_that_differs_by_more_than_a_tenth_hastens():
    assert [once(rate).haste for rate in (8.0, 8.5, 10.0)] == pytest.approx([3.0, 1.5, 1.5])


def test_two_throttles_on_end_may_be_chance_where_a_limit_was_measured_and_three_more_than_halve_the_rate():
    life = followed()
    for _ in range(3):
        before = life.pace.rate(life.now)
        life.step("send", 0.0)
        life.step("throttle", 0.0)
        cuts = life.pace.peak / before
        if life.pace.tally.throttled == 1:
            assert cuts > 0.9
    assert 0.2 < cuts <= 0.5


# -- a trial -------------------------------------------------------------------------------------------


def throttled_often(life: Life, each: int = 3) -> None:
    """So many calls are admitted between two throttles, whatever the rate, until a trial begins."""
    for _ in range(60):
        life.step("flow", each)
        life.step("send", 0.0)
        life.step("throttle", 0.0)
        if life.pace.trial.retreat:
            return
    raise AssertionError(life.pace)


def test_throttles_that_go_on_far_below_the_best_rate_put_it_on_trial():
    life = followed(20.0)
    best = life.pace.trial.best
    throttled_often(life)
    assert 15 < best < 25
    assert life.pace.peak == best
    assert 0.3 < life.pace.trial.retreat / best < 0.45


def test_a_measured_rate_is_the_best_one_though_no_time_was_quiet():
    life = Life(Pace())
    for _ in range(2):
        life.step("flow", 15)
        life.step("send", 0.0)
        life.step("throttle", 0.0)
    best = life.pace.known
    assert best is not None
    throttled_often(life)
    assert life.pace.peak == life.pace.trial.best >= best


def test_a_declared_rate_is_the_best_one_from_the_start():
    life = Life(pace.declared(20.0), 1000.0)
    throttled_often(life)
    assert life.pace.peak == pace.declared(20.0).peak


def test_a_trial_is_passed_if_less_than_half_of_its_calls_are_throttled():
    life = followed(20.0)
    throttled_often(life)
    for _ in range(5):
        life.step("flow", 1)
        life.step("send", 0.0)
        life.step("throttle", 0.0)
    life.step("flow", 2)
    assert not life.pace.trial.retreat
    assert life.pace.peak == life.pace.trial.best > 15
    assert life.pace.strayed


@pytest.mark.parametrize("admitted", [0, 5])
def test_a_trial_fails_if_half_of_its_calls_are_throttled(admitted):
    life = followed(20.0)
    throttled_often(life)
    retreat = life.pace.trial.retreat
    life.step("flow", admitted)
    life.step("storm", 5)
    assert life.pace.trial.retreat == retreat
    life.step("storm", 1)
    assert (life.pace.trial.retreat, life.pace.peak, life.pace.trial.best) == (0, retreat, retreat)


def test_nothing_but_throttles_puts_no_rate_on_trial():
    """A spent daily quota is no chance."""
    life = followed(20.0)
    life.step("flow", 30)
    for _ in range(40):
        life.step("storm", 1)
        assert not life.pace.trial.retreat


def test_a_lower_rate_that_holds_draws_the_best_one_down():
    life = followed(20.0)
    before = life.pace.trial.best
    life.pace = life.pace._replace(peak=5.0, tally=new_tally(life.now))
    life.step("flow", 25)
    assert life.pace.trial.best == pytest.approx((5 * before) ** 0.5)


@pytest.mark.parametrize("seed", [43000007, 43000064, 62000016])
def test_calls_of_others_do_not_bring_the_rate_down_for_good(seed):
    """Limits of 5 to 20 a second without a burst, of which other programs call whatever is answered."""
    elapsed, throttled = play_random(draw(seed), Ours)
    assert elapsed < 1.8
    assert throttled < 0.15


@pytest.mark.parametrize(("admitted", "stray"), [(15, False), (25, True)])
def test_a_stray_comes_after_twenty_admitted_calls(admitted, stray):
    life = returning(200.0)
    before = life.pace.peak
    life.step("flow", admitted)
    life.step("send", 0.0)
    life.step("throttle", 0.0)
    assert (life.pace.peak == before) is stray


def test_two_strays_are_assumed_of_a_declared_rate():
    assert (doubts(pace.declared(200.0)), doubts(pace.learned(200.0, 0.0))) == (8, 12)


def test_of_known_strays_one_throttle_in_fourteen_calls_is_explained_and_one_more_excused():
    life = strayed(200.0)
    before = life.pace.peak
    life.step("send", 0.0)
    life.step("throttle", 0.0)
    assert life.pace.peak == before
    life.step("flow", 7)
    assert life.pace.tally.excess == pytest.approx(1.5, abs=0.1)


def test_strays_fade_by_a_factor_of_e_in_two_thousand_five_hundred_calls():
    life = strayed(200.0)
    for _ in range(2500):
        life.step("flow", 1)
    assert life.pace.strays == pytest.approx(15 / e, rel=0.1)
