"""How fast one account may call: a pure state machine; `pacer` applies it.

The limit is unknown, shared with other programs, and may admit a burst before it throttles. The pace finds
and follows it by the service's answers, in three phases:

* **Search**: no throttle yet. The number of calls in flight is bounded, and the bound grows with the answers,
  so that few calls are throttled at once when the burst is used up.
* **Climb**: the burst is used up. From well below the rate of the search, the rate grows with every success,
  by a smaller share the longer it goes well.
* **Follow**: the limit was measured. A throttle says that the service's tokens are used up, so the calls that
  it admitted since the throttle before, over the time between, are the sustained rate. The rate restarts
  somewhat below that, returns to it, stays there, and then probes faster and faster (the shape of CUBIC,
  https://www.rfc-editor.org/rfc/rfc9438), so that it loses little to a stray throttle and soon finds a limit
  that was raised. It takes less time while the measure is new or has just changed: a limit that
  changed often changes back. Only an unbroken series of throttles more than halves the rate.

Some calls are throttled at any rate: other programs call too, and limiters are distributed over machines.
If each such **stray** were taken for a limit, they would bring the rate down step by step. A stray comes
where a limit does not throttle: alone, well below the rate measured when the limit was last exceeded.
After some strays the rate that they cost is restored, and from then on a throttle counts only where more
come together than strays explain (the CUSUM of Bernoulli trials, https://en.wikipedia.org/wiki/CUSUM).
Where throttles go on far below the best rate known, that one is put on trial (`pace_trial`).

A declared rate is only adapted downwards. Times are seconds of a monotonic clock, rates calls per second.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf
from typing import NamedTuple

from batch_snapshot.ratelimit.pace_tally import PaceTally, new_tally
from batch_snapshot.ratelimit.pace_trial import PaceTrial

#: The lowest rate: five calls a minute keep probing without being noise.
FLOOR_RATE = 1 / 12
#: Seconds: a longer retry-after is not believed.
LONGEST_HINT = 300.0
#: The share by which calls stay below a declared rate: calls that leave evenly arrive unevenly.
MARGIN = 0.015
#: Seconds that a call may leave early after one that left late: a busy event loop costs no rate.
CATCH_UP = 0.005
#: Seconds without a call after which the rate neither grows nor is measured.
IDLE = 1.0

# The constants below were chosen by measuring: see tests/bench/pacing.
#: Search: two calls in flight after this many answers, and one more after each `SEARCH_STEP` further ones.
SEARCH_ALONE = 3
SEARCH_STEP = 15
#: Search: seconds in which the calls in flight may double all the same: slow answers are few.
SEARCH_DOUBLING = 2.5
#: Search: seconds after the last call when another one leaves anyway, so that a hung call blocks nothing.
SEARCH_GAP = 0.25
#: The share of the search's rate at which the climb begins.
CLIMB_FROM = 0.5
#: The n-th success of a climb raises the rate by 1 / (CLIMB_EASE + n), or to `CLIMB_LOW` times the rate below
#: one call per second, as no quota is known to be lower, and below `CLIMB_BACK` of the rate before a slump.
CLIMB_EASE = 9.0
CLIMB_LOW = 1.5
CLIMB_BACK = 0.25
#: Calls restart at this share of the rate after a throttle. One that may be chance lowers the rate to it.
#: The return takes `RETURN_TIME` seconds and the time of `RETURN_CALLS` calls, at most `LONGEST_RETURN`.
CUT = 0.95
RETURN_TIME = 2.7
RETURN_CALLS = 22.0
LONGEST_RETURN = 25.0
#: `RETURN_TIME` is divided by this after a first measure, or one that differs from the measure before by more
#: than the share `SAME`; each further measure leaves the share `LESS_HASTE` of the divisor, at least 1.
HASTE = 3.0
LESS_HASTE = 0.75
SAME = 0.1
#: After that the rate grows by this share times the power `PROBE_POWER` of the time, in return times.
PROBE = 0.1
PROBE_POWER = 3.2
#: Without a throttle at this many times the measured rate, the limit was raised for good.
RAISED = 2.0
#: The weight of the measured rate, which is low where unused tokens were lost, in the mean of it and the rate
#: at which the throttle came, which is high where saved tokens were used; and the share of the mean to use.
TRUST = 0.5
CAUTION = 0.99
#: Admitted calls that measure a rate well. In a climb they weigh as much as the rate that it reached.
QUIET = 20
#: With fewer outcomes than this a throttle may be chance, and a first measure is neither shown nor kept.
ENOUGH = 6
#: A throttle on its own below this share of the measured rate is a stray.
BELOW = 0.985
#: Strays from which throttles are compared with the number that strays explain.
SURE = 5.0
#: Strays assumed for a declared rate: its author knows the limit.
VOUCHED = 2.0
#: The most strays that are counted: denser throttles are a limit. As many are assumed when `SURE` is
#: reached, so that they are not forgotten at once.
MOST = 15.0
#: Calls in which strays are forgotten by a factor of e.
MEMORY = 2500.0
#: Times the strays' share of the calls that may be throttled; only a part of the strays is recognised.
ODDS = 12.0
#: Throttles in excess of that share that are still attributed to strays.
ROOM = 1.5


class Phase(StrEnum):
    """What is known about the limit."""

    SEARCH = "search"
    CLIMB = "climb"
    FOLLOW = "follow"


class Pace(NamedTuple):
    """What is known about an account's limit, and when its next call may leave."""

    phase: Phase = Phase.SEARCH
    #: The rate that was measured or, in a climb, reached.
    peak: float = inf
    #: When it was set.
    since: float = 0.0
    #: The sustained rate that was measured last.
    known: float | None = None
    #: The declared rate, which is never exceeded.
    ceiling: float = inf
    #: No call leaves before this time.
    next_call_at: float = 0.0
    in_flight: int = 0
    #: Search: calls that were admitted, and when the first of them left.
    found: int = 0
    began: float | None = None
    tally: PaceTally = PaceTally()
    #: The rate measured last, or before a slump. Cuts on the way back to it may be due to strays.
    crest: float = inf
    #: Strays that were recognised, less those forgotten.
    strays: float = 0.0
    #: When the rate was last cut; throttles of calls sent before say nothing new.
    cut_at: float = -inf
    #: Since when every answer has been a throttle at the lowest rate.
    starved_since: float | None = None
    #: What the return time is divided by, at least 1.
    haste: float = 1.0
    #: Whether a higher rate is on trial, or may soon be.
    trial: PaceTrial = PaceTrial()

    @property
    def declared(self) -> float | None:
        """The declared rate, or None."""
        return None if self.ceiling == inf else self.ceiling / (1 - MARGIN)

    @property
    def allowed(self) -> float:
        """The rate to show people, which no probe or idle time changes; inf: it is not known yet."""
        if self.known is None:
            return inf
        return self.declared or self.known if self.known >= self.ceiling else self.known

    @property
    def source(self) -> str:
        """Where `allowed` comes from."""
        if self.known is None:
            return "measuring"
        if self.known >= self.ceiling:
            return "declared"
        return "from the last run" if self.cut_at == -inf else "measured"

    @property
    def strayed(self) -> bool:
        """Whether strays are known to occur."""
        return self.strays >= SURE

    @property
    def unit(self) -> float:
        """Seconds for the return to the peak after a cut, and between one probe and the next."""
        return min(LONGEST_RETURN, RETURN_TIME / self.haste + RETURN_CALLS / self.peak)

    def rate(self, now: float) -> float:
        """The rate at which calls leave; inf where only those in flight are bounded."""
        if self.phase is Phase.FOLLOW:
            past = max(0.0, now - self.since) / self.unit - 1
            growth: float = PROBE * past**PROBE_POWER if past > 0 else (1 - CUT) * past**3
            return min(self.peak * (1 + min(growth, RAISED)), self.ceiling)
        return min(self.peak, self.ceiling)

    def opens(self, now: float) -> float:
        """When the next call may leave; in a search perhaps earlier, if a call in flight ends."""
        if self.phase is Phase.SEARCH and self.in_flight >= self._width(now):
            return max(now, self.next_call_at + SEARCH_GAP)
        return max(now, self.next_call_at)

    def _width(self, now: float) -> int:
        """Search: the calls that may be in flight."""
        width = 1 if self.found < SEARCH_ALONE else 2 + (self.found - SEARCH_ALONE) // SEARCH_STEP
        doublings = 0.0 if self.began is None else min((now - self.began) / SEARCH_DOUBLING, 32.0)
        return max(width, min(1 + self.found, int(2**doublings)))

    def permitted(self, now: float) -> Pace:
        """After a call took the turn that `opens` allows."""
        pace = self._rested(now) if now - self.next_call_at > IDLE else self
        return pace._replace(
            in_flight=self.in_flight + 1,
            began=now if pace.began is None else pace.began,
            next_call_at=max(self.next_call_at, now - CATCH_UP) + 1 / pace.rate(now),
        )

    def late(self, now: float) -> Pace:
        """After a call that left only `now`, later than its turn: the next keeps its distance."""
        return self._replace(next_call_at=max(self.next_call_at, now + 1 / self.rate(now)))

    def _rested(self, now: float) -> Pace:
        """After a time without calls, which says nothing about the limit."""
        idle = now - max(self.next_call_at, self.since)
        if self.phase is Phase.FOLLOW:
            return self._replace(since=self.since + idle, tally=new_tally(now))
        if self.phase is Phase.CLIMB:
            return self._replace(tally=self.tally.later(idle))
        if self.began is None or self.in_flight:
            return self
        return self._replace(began=self.began + idle)

    def dropped(self) -> Pace:
        """After a call that never left, or whose answer says nothing about limits."""
        return self._replace(in_flight=self.in_flight - 1)

    def unsent(self, sent_at: float) -> Pace:
        """After a call that took its turn at `sent_at` and never left: the last turn is free again."""
        gap = 1 / self.rate(sent_at)
        last = self.next_call_at <= sent_at + gap
        return self.dropped()._replace(next_call_at=self.next_call_at - gap if last else self.next_call_at)

    def answered(self, sent_at: float) -> Pace:
        """After a call sent at `sent_at` was admitted."""
        if self.phase is Phase.SEARCH:
            return self._replace(in_flight=self.in_flight - 1, found=self.found + 1)
        rate = self.rate(sent_at)
        pace = self._replace(
            in_flight=self.in_flight - 1,
            tally=self.tally.with_admitted(sent_at, self._explained(rate)),
            strays=self.strays * (1 - 1 / MEMORY),
            starved_since=None,
        )
        if sent_at <= self.cut_at:
            return pace
        pace = pace._replace(trial=self.trial.answered(throttled=False))
        if pace.trial.passed:
            return pace._replace(strays=MOST, tally=new_tally(sent_at), trial=PaceTrial(pace.peak))
        if self.phase is Phase.CLIMB:
            low = pace.peak < max(1.0, CLIMB_BACK * pace.crest)
            growth = CLIMB_LOW if low else 1 + 1 / (CLIMB_EASE + pace.tally.admitted)
            return pace._replace(peak=pace.peak * growth)
        if pace.tally.admitted == QUIET and not pace.tally.throttled and not pace.trial.retreat:
            pace = pace._replace(trial=pace.trial.quiet(pace.peak))
        if rate >= RAISED * self.peak:
            return pace._replace(phase=Phase.CLIMB, peak=rate)
        return pace

    def _explained(self, rate: float) -> float:
        """The share of calls at `rate` that strays explain; below the peak one in `QUIET`, as cuts add up."""
        share = ODDS * self.strays / MEMORY
        return max(share, 1 / QUIET) if rate < self.peak else share

    def throttled(self, sent_at: float, now: float, hint: float | None) -> Pace:
        """After a call sent at `sent_at` was throttled; `hint` is the retry-after in seconds, if any."""
        pace = self._after_throttle(sent_at, now)
        rest = now + min(hint or 0.0, LONGEST_HINT)
        # The rate does not grow while no call leaves.
        pause = max(0.0, rest - max(now, pace.next_call_at))
        return pace._replace(next_call_at=max(pace.next_call_at, rest), since=pace.since + pause)

    def _after_throttle(self, sent_at: float, now: float) -> Pace:
        pace = self.dropped()
        if sent_at < self.cut_at:
            return pace
        if self.phase is Phase.SEARCH:
            let_through = max(self.found, 1) / max(now - (self.began or 0.0), 1e-3)
            return _cut(pace, now, Phase.CLIMB, let_through * CLIMB_FROM, new_tally(sent_at))
        pace = pace._replace(trial=self.trial.answered(throttled=True))
        if self.trial.retreat or (self.tally.admitted and pace.trial.due(self.peak)):
            return _tried(pace, sent_at, now)
        tally = self.tally._replace(throttled=self.tally.throttled + 1, excess=self.tally.excess + 1)
        if self._alone():
            pace = pace._replace(
                tally=tally, strays=min(MOST, self.strays + self._is_below(self.crest, sent_at))
            )
            if pace.strayed > self.strayed and self.crest > self.peak:
                return _following(pace, self.crest, sent_at, now)._replace(strays=MOST)
            if pace.strayed or self._is_below(self.peak, sent_at):
                return pace
        elif self._disproves_stray():
            pace = pace._replace(strays=max(0.0, self.strays - 1))
        return self._limited(pace, tally, sent_at, now)

    def _limited(self, pace: Pace, tally: PaceTally, sent_at: float, now: float) -> Pace:
        """The pace after a throttle that the limit caused."""
        if not tally.admitted and (tally.throttled > 1 or not (self.strayed or self.phase is Phase.FOLLOW)):
            # Not even one call was admitted in that time. Once that may be chance where a limit was measured.
            peak = 0.5 / max(sent_at - tally.start, 1 / self.rate(sent_at))
            return _cut(pace, now, Phase.CLIMB, peak, tally)
        if self.phase is Phase.FOLLOW and tally.admitted + tally.throttled < ENOUGH:
            floor = min(FLOOR_RATE, pace.ceiling)
            return pace._replace(tally=tally, cut_at=now, peak=max(floor, pace.peak * CUT))
        peak = self._measured(tally, sent_at) * (1.0 if self.strayed else CAUTION)
        return _cut(pace, now, Phase.FOLLOW, peak, new_tally(sent_at))

    def _alone(self) -> bool:
        """Whether a throttle now comes as strays do."""
        if self.strayed:
            return self.tally.excess < ROOM
        return self.phase is Phase.FOLLOW and not self.tally.throttled and self.tally.admitted >= QUIET

    def _disproves_stray(self) -> bool:
        """Whether a throttle now shows that the one before, which was taken for a stray, was the limit's."""
        counted = self.tally.throttled == 1 and self.tally.admitted >= QUIET and self.tally.excess > 0
        return counted and not self.strayed

    def _is_below(self, measured: float, sent_at: float) -> bool:
        """Whether a call sent at `sent_at` left at a rate well below one that was measured."""
        return self.phase is Phase.FOLLOW and self.rate(sent_at) < BELOW * measured

    def _measured(self, tally: PaceTally, sent_at: float) -> float:
        """The sustained rate, by what was admitted and by the rate at which that ended."""
        trust = TRUST
        if self.phase is Phase.CLIMB:
            trust = max(trust, tally.admitted / (tally.admitted + QUIET))
        rate = self.rate(sent_at)
        if self.strayed and tally.admitted >= QUIET and rate < (1 + PROBE) * self.peak:
            # Several throttles were excused: what was admitted between them is the limit.
            return min(rate, tally.rate(sent_at) * (1 + self.strays / MEMORY))
        mean: float = tally.rate(sent_at) ** trust * rate ** (1 - trust)
        return min(rate, mean)

    def starved(self, now: float, patience: float) -> bool:
        """Whether nothing but throttles came at the lowest rate for `patience` seconds."""
        return self.starved_since is not None and now - self.starved_since >= patience


def _following(pace: Pace, rate: float, sent_at: float, now: float) -> Pace:
    """The pace that follows the limit from such a rate on."""
    peak = min(rate, pace.ceiling)
    tally = new_tally(sent_at)
    return pace._replace(phase=Phase.FOLLOW, peak=peak, crest=peak, since=now, haste=1.0, tally=tally)


def _tried(pace: Pace, sent_at: float, now: float) -> Pace:
    """The pace after a throttle that begins a trial, or comes in one."""
    trial = pace.trial
    if trial.failed:
        before = _following(pace, trial.retreat, sent_at, now)
        return before._replace(cut_at=now, trial=PaceTrial(before.peak))
    if trial.due(pace.peak):
        best = _following(pace, trial.best, sent_at, now)
        return best._replace(cut_at=now, trial=trial.begun(pace.peak))
    return pace


def _cut(pace: Pace, now: float, phase: Phase, peak: float, tally: PaceTally) -> Pace:
    """The pace after its rate was cut to start from `peak`."""
    floor = min(FLOOR_RATE, pace.ceiling)
    peak = min(max(floor, peak), pace.ceiling)
    measured = phase is Phase.FOLLOW and (pace.known is not None or pace.tally.admitted >= ENOUGH)
    returning = pace.phase is phase is Phase.FOLLOW and now - pace.since < pace.unit
    slumped = phase is Phase.CLIMB and pace.phase is not Phase.SEARCH
    cut = pace._replace(
        phase=phase,
        peak=peak,
        since=now,
        known=peak if measured else pace.known,
        tally=tally,
        crest=pace.crest if returning or slumped else peak,
        cut_at=now,
        starved_since=now if pace.starved_since is None and peak <= floor else pace.starved_since,
        haste=_haste(pace, phase, peak),
        trial=pace.trial.measured(peak) if measured else pace.trial,
    )
    return cut._replace(next_call_at=max(pace.next_call_at, now + 1 / cut.rate(now)))


def _haste(pace: Pace, phase: Phase, peak: float) -> float:
    """What the return time is divided by once the rate `peak` was measured."""
    if phase is not Phase.FOLLOW:
        return pace.haste
    if pace.phase is Phase.FOLLOW and abs(peak / pace.peak - 1) < SAME:
        return max(1.0, pace.haste * LESS_HASTE)
    return HASTE


def declared(rate: float) -> Pace:
    """The pace under a declared rate: start there, adapt downwards only."""
    ceiling = rate * (1 - MARGIN)
    pace = Pace(Phase.FOLLOW, peak=ceiling, since=-1e9, known=ceiling, ceiling=ceiling, crest=ceiling)
    return pace._replace(strays=VOUCHED, trial=PaceTrial(ceiling))


def redeclared(pace: Pace, rate: float, now: float) -> Pace:
    """The pace under another declared rate, about which throttles of calls sent before `now` say nothing."""
    start = declared(rate)._replace(in_flight=pace.in_flight, tally=new_tally(now), cut_at=now)
    return start._replace(next_call_at=min(pace.next_call_at, now + 1 / start.ceiling))


def learned(rate: float, now: float) -> Pace:
    """The pace of an account whose rate an earlier run found: start near it, and measure again."""
    pace = Pace(phase=Phase.FOLLOW, peak=rate, known=rate, tally=new_tally(now), crest=rate)
    return pace._replace(since=now - pace.unit / 2)
