"""How fast one account may call: a pure state machine (its shell is `pacer`).

The limit is unknown, shared with other programs, and may let a burst through before it bites. It is
found and followed by what the service says, in three phases:

* **Search**: no throttle yet. Calls in flight are bounded, and the bound grows with the answers, so
  that the first throttle comes with few others whatever the burst was.
* **Climb**: the burst is used up. From well below what it let through, the rate grows with every
  success, the slower the longer it goes well.
* **Follow**: the limit was measured. A throttle says that the service's tokens are used up; so the
  calls that it let through since the throttle before, over the time between, are the sustained rate.
  The rate starts somewhat below that, returns to it, rests there, and then probes faster and faster
  (the shape of CUBIC, https://www.rfc-editor.org/rfc/rfc9438), so that it loses little to a stray
  throttle and soon finds a limit that was raised. Nothing but throttles more than halves it.

Some calls are throttled whatever the rate: other programs call too, limiters are distributed and their
parts uneven. Such **strays** would bring the rate down step by step, each taken for a limit just below
it. They give themselves away by coming where a limit does not throttle: alone, well below the rate that
was measured when the limit was last exceeded. After some of these, what they took is given back, and
from then on a throttle counts only where more come together than strays do (the CUSUM of Bernoulli
trials, https://en.wikipedia.org/wiki/CUSUM). Who meets no such throttle for long forgets them.

With a declared rate it starts there and only ever adapts downwards. All times are seconds of a
monotonic clock, all rates calls a second. `tests/pacing` compares it with others on many servers.
"""

from __future__ import annotations

import json
from enum import StrEnum
from math import inf
from typing import NamedTuple

#: The lowest rate: five tries a minute keep probing without being noise.
FLOOR_RATE = 1 / 12
#: A hint beyond this is taken for nonsense and bounded, in seconds.
LONGEST_HINT = 300.0
#: A declared rate is undercut by this share: calls that left evenly arrive unevenly.
MARGIN = 0.015
#: A call may leave this much sooner after one that left late, in seconds: a loaded loop loses no rate.
CATCH_UP = 0.005
#: So long without a call the rate neither grows nor is measured, in seconds.
IDLE = 1.0

# The figures below were chosen by measuring: see tests/pacing.

#: Searching: two calls in flight after so many answers, one more after each `SEARCH_STEP` further.
SEARCH_ALONE = 3
SEARCH_STEP = 15
#: So many seconds after the last call another one leaves all the same: a hung call stops nobody.
SEARCH_GAP = 0.25
#: What is left of the rate that the burst let through when the climb begins.
CLIMB_FROM = 0.5
#: What so many answers let through bounds the sustained rate; fewer may have met two calls at once.
TELLING = 20
#: Growth with the n-th success of a climb: 1 / (CLIMB_EASE + n) of the rate. Below one call a second
#: by a half: no quota is known to be lower.
CLIMB_EASE = 9.0
CLIMB_LOW = 1.5
#: So many calls let through in a climb weigh as much as the rate that it reached.
CLIMB_TRUST = 20.0
#: After a throttle the rate starts at this share of what was measured, and is back after
#: `RETURN_TIME` seconds plus the time of `RETURN_CALLS` calls, or `LONGEST_RETURN` seconds.
CUT = 0.95
RETURN_TIME = 2.7
RETURN_CALLS = 22.0
LONGEST_RETURN = 25.0
#: From there on it grows by this share of it times the power of the further time, in the same unit.
PROBE = 0.1
PROBE_POWER = 3.2
#: Without a throttle at so many times the measured rate, the limit was raised for good.
RAISED = 2.0
#: The new rate is a mean of the measured one, which is low where unused tokens were lost, and of the
#: one at which the throttle came, which is high where saved tokens were used. The weight of the first,
#: and how far to stay below.
TRUST = 0.5
CAUTION = 0.99
#: What is left of the rate after nothing but throttles.
SLUMP = 0.4
#: After a throttle that measured the rate the next call waits for this share of the usual gap: the
#: service was short of a part of a token.
RESUME = 0.3
#: If so many were let through before; else for the whole of it.
QUIET = 20
#: Throttles among fewer outcomes than this are chance.
ENOUGH = 6
#: Yet the rate gives way by so much: where it is a little above the limit, every other call is throttled.
YIELD = 0.95
#: But so many are none.
MANY = 3
#: A throttle on its own, below this share of what was measured, is a stray that gave itself away.
BELOW = 0.985
#: Unless another one comes before this share of it is explained: then it was none.
CLOSE = 0.5
#: From so many on they are reckoned with. The first time so many more are credited, or they would be
#: forgotten at once; and this many to whoever declares a rate, as somebody who knows the limit.
SURE = 5.0
FIRM = 4.0
VOUCHED = 2.0
#: No more are counted: however many there seem to be, denser throttles are a limit.
MOST = 15.0
#: They are forgotten by a factor of e in so many calls.
MEMORY = 2500.0
#: So many times their share of the calls may be throttled before it is too much. It is that high
#: because only a part of them gives itself away.
ODDS = 12.0
#: Throttles in excess of that which are still put down to strays.
ROOM = 1.5


class Phase(StrEnum):
    """What is known about the limit."""

    #: Nothing yet.
    SEARCH = "search"
    #: It has bitten, but was not measured.
    CLIMB = "climb"
    #: It was measured.
    FOLLOW = "follow"


class PaceTally(NamedTuple):
    """The outcomes of calls sent since a throttle."""

    #: When the throttled call was sent.
    start: float = 0.0
    admitted: int = 0
    throttled: int = 0
    #: The throttles beyond what strays explain; the one it began with is the first.
    excess: float = 1.0
    #: How many were admitted, and when, at two powers of two: the latest, and the one before.
    mark: tuple[int, float] = (0, 0.0)
    earlier: tuple[int, float] = (0, 0.0)

    def with_admitted(self, sent_at: float, explained: float) -> PaceTally:
        """After a call sent at `sent_at` was let through, of whose throttling strays explain a share."""
        excess = max(0.0, self.excess - explained)
        if sent_at <= self.start:
            return self._replace(excess=excess)
        count = self.admitted + 1
        if count >= 2 and count >= 2 * self.mark[0]:
            return self._replace(admitted=count, excess=excess, earlier=self.mark, mark=(count, sent_at))
        return self._replace(admitted=count, excess=excess)

    def rate(self, at: float) -> float:
        """What the service let through a second, until a throttle of a call sent at `at`.

        Taken over about the last half of the calls: tokens that were lost earlier don't count.
        """
        late = 3 * (self.admitted - self.mark[0]) >= self.admitted
        count, since = self.mark if late else self.earlier
        return (self.admitted - count + 0.5) / max(at - since, 1e-3)

    def later(self, idle: float) -> PaceTally:
        """The same, but for a time in which nothing was sent."""
        (count, at), (before, then) = self.mark, self.earlier
        return self._replace(start=self.start + idle, mark=(count, at + idle), earlier=(before, then + idle))


def _tally(start: float) -> PaceTally:
    return PaceTally(start, mark=(0, start), earlier=(0, start))


_NO_TALLY = _tally(0.0)


class Pace(NamedTuple):
    """What is known about an account's limit, and when its next call may leave."""

    phase: Phase = Phase.SEARCH
    #: The rate that was measured or, climbing, has been reached.
    peak: float = inf
    #: When it was set.
    since: float = 0.0
    #: Climbing: what the search let through, burst and all, so the sustained rate is below it.
    bound: float = inf
    #: The sustained rate that was measured last.
    known: float | None = None
    #: The declared rate, which is never exceeded.
    ceiling: float = inf
    #: No call leaves before this time.
    next_slot: float = 0.0
    in_flight: int = 0
    #: Calls that were let through while searching, and when the first of them left.
    found: int = 0
    began: float | None = None
    tally: PaceTally = _NO_TALLY
    #: What was measured when it was last exceeded: cuts on the way back to it may be due to strays.
    crest: float = inf
    #: Strays that gave themselves away, less what was forgotten.
    strays: float = 0.0
    #: When the rate was last cut; throttles of calls sent before say nothing new.
    cut_at: float = -inf
    #: Since when every answer has been a throttle at the lowest rate.
    starved_since: float | None = None

    @property
    def declared(self) -> float | None:
        """The rate that was declared; None: it is sought."""
        return None if self.ceiling == inf else self.ceiling / (1 - MARGIN)

    @property
    def strayed(self) -> bool:
        """Whether strays are reckoned with."""
        return self.strays >= SURE

    @property
    def unit(self) -> float:
        """Seconds for the return to the peak after a cut, and between one probe and the next."""
        return min(LONGEST_RETURN, RETURN_TIME + RETURN_CALLS / self.peak)

    def rate(self, now: float) -> float:
        """The rate at which calls leave; inf where only those in flight are bounded."""
        if self.phase is Phase.FOLLOW:
            past = max(0.0, now - self.since) / self.unit - 1
            growth: float = PROBE * past**PROBE_POWER if past > 0 else (1 - CUT) * past**3
            return min(self.peak * (1 + min(growth, RAISED)), self.ceiling)
        return min(self.peak, self.ceiling)

    def opens(self, now: float) -> float:
        """When the next call may leave: now or later; searching, perhaps earlier if one in flight ends."""
        if self.phase is Phase.SEARCH:
            bound = 1 if self.found < SEARCH_ALONE else 2 + (self.found - SEARCH_ALONE) // SEARCH_STEP
            if self.in_flight >= bound:
                return max(now, self.next_slot + SEARCH_GAP)
        return max(now, self.next_slot)

    def permitted(self, now: float) -> Pace:
        """After one call took its slot."""
        pace = self._rested(now) if now - self.next_slot > IDLE else self
        return pace._replace(
            in_flight=self.in_flight + 1,
            began=now if pace.began is None else pace.began,
            next_slot=max(self.next_slot, now - CATCH_UP) + 1 / pace.rate(now),
        )

    def late(self, now: float) -> Pace:
        """After a call that left only `now`, later than it took its slot: the next keeps its distance."""
        return self._replace(next_slot=max(self.next_slot, now + 1 / self.rate(now)))

    def _rested(self, now: float) -> Pace:
        """After a time without calls: it teaches nothing."""
        idle = now - max(self.next_slot, self.since)
        if self.phase is Phase.FOLLOW:
            return self._replace(since=self.since + idle, tally=_tally(now))
        if self.phase is Phase.CLIMB:
            return self._replace(tally=self.tally.later(idle))
        if self.began is None or self.in_flight:
            return self
        return self._replace(began=self.began + idle)

    def dropped(self) -> Pace:
        """After a call that never left, or whose answer says nothing about limits."""
        return self._replace(in_flight=self.in_flight - 1)

    def unsent(self, sent_at: float) -> Pace:
        """After a call that took its slot at `sent_at` and never left: the last slot is free again."""
        gap = 1 / self.rate(sent_at)
        last = self.next_slot <= sent_at + gap
        return self.dropped()._replace(next_slot=self.next_slot - gap if last else self.next_slot)

    def answered(self, sent_at: float, now: float) -> Pace:
        """After a call sent at `sent_at` was let through: room to grow."""
        if self.phase is Phase.SEARCH:
            return self._replace(in_flight=self.in_flight - 1, found=self.found + 1)
        rate = self.rate(sent_at)
        pace = self._replace(
            in_flight=self.in_flight - 1,
            tally=self.tally.with_admitted(sent_at, self._explained(rate)),
            strays=self.strays * (1 - 1 / MEMORY),
            starved_since=None,
        )
        if self.phase is Phase.CLIMB:
            return _climbed(pace, now) if sent_at > self.cut_at else pace
        if rate >= RAISED * self.peak:
            return pace._replace(phase=Phase.CLIMB, peak=rate, bound=inf)
        return pace

    def _explained(self, rate: float) -> float:
        """The share of the calls at `rate` whose throttling strays explain.

        On the way back to the measured rate at least one in `QUIET`: cuts add up there.
        """
        share = ODDS * self.strays / MEMORY
        return max(share, 1 / QUIET) if rate < self.peak else share

    def throttled(self, sent_at: float, now: float, hint: float | None) -> Pace:
        """After a call sent at `sent_at` was throttled, perhaps with a hint when to come back."""
        pace = self._bitten(sent_at, now)
        rest = now + min(hint or 0.0, LONGEST_HINT)
        # The rate does not grow while nobody calls.
        pause = max(0.0, rest - max(now, pace.next_slot))
        return pace._replace(next_slot=max(pace.next_slot, rest), since=pace.since + pause)

    def _bitten(self, sent_at: float, now: float) -> Pace:
        pace = self.dropped()
        if sent_at < self.cut_at:
            return pace
        if self.phase is Phase.SEARCH:
            let_through = max(self.found, 1) / max(now - (self.began or 0.0), 1e-3)
            bound = max(FLOOR_RATE, let_through) if self.found >= TELLING else inf
            climbing = pace._replace(bound=bound)
            return _cut(climbing, now, Phase.CLIMB, let_through * CLIMB_FROM, _tally(sent_at))
        tally = self.tally._replace(throttled=self.tally.throttled + 1, excess=self.tally.excess + 1)
        if self._alone():
            pace = pace._replace(tally=tally, strays=self._counted(sent_at))
            if pace.strayed > self.strayed and self.crest > self.peak:
                return _given_back(pace, sent_at, now)
            if pace.strayed or self._is_below(self.peak, sent_at):
                return pace
        elif self._belies():
            pace = pace._replace(strays=max(0.0, self.strays - 1))
        return self._limited(pace, tally, sent_at, now)

    def _limited(self, pace: Pace, tally: PaceTally, sent_at: float, now: float) -> Pace:
        """The pace after a throttle that the limit was the cause of."""
        if not tally.admitted and not (self.strayed and tally.throttled == 1):
            peak = min(self.rate(sent_at) * SLUMP, 0.5 / max(sent_at - tally.start, 1e-3))
            return _cut(pace, now, Phase.CLIMB, peak, tally)
        chance = tally.throttled < MANY and tally.admitted + tally.throttled < ENOUGH
        if self.phase is Phase.FOLLOW and chance:
            return pace._replace(tally=tally, cut_at=now, peak=pace.peak * YIELD)
        caution = 1.0 if self.strayed else CAUTION
        return _cut(pace, now, Phase.FOLLOW, self._measured(tally, sent_at) * caution, _tally(sent_at))

    def _alone(self) -> bool:
        """Whether a throttle now comes as strays do."""
        if self.strayed:
            return self.tally.excess < ROOM
        return self.phase is Phase.FOLLOW and not self.tally.throttled and self.tally.admitted >= QUIET

    def _belies(self) -> bool:
        """Whether a throttle now shows that the one before, which was taken for a stray, was none.

        A limit that was undercut by too little lets some calls through, and then bites often.
        """
        counted = self.tally.throttled == 1 and self.tally.admitted >= QUIET
        return counted and self.tally.excess > CLOSE and not self.strayed

    def _counted(self, sent_at: float) -> float:
        """The strays with this one, if it gave itself away."""
        return min(MOST, self.strays + 1) if self._is_below(self.crest, sent_at) else self.strays

    def _is_below(self, measured: float, sent_at: float) -> bool:
        """Whether a call sent at `sent_at` left at a rate well below one that was measured."""
        return self.phase is Phase.FOLLOW and self.rate(sent_at) < BELOW * measured

    def _measured(self, tally: PaceTally, sent_at: float) -> float:
        """The sustained rate, by what was let through and by the rate at which that ended."""
        trust = TRUST
        if self.phase is Phase.CLIMB:
            trust = max(trust, tally.admitted / (tally.admitted + CLIMB_TRUST))
        rate = self.rate(sent_at)
        if self.strayed and tally.admitted >= QUIET and rate < (1 + PROBE) * self.peak:
            # Several throttles were excused: what came between them was all that there was to be had.
            return min(rate, tally.rate(sent_at) * (1 + self.strays / MEMORY))
        mean: float = tally.rate(sent_at) ** trust * rate ** (1 - trust)
        return min(rate, mean)

    def starved(self, now: float, patience: float) -> bool:
        """Whether nothing but throttles came at the lowest rate for `patience` seconds."""
        return self.starved_since is not None and now - self.starved_since >= patience


def _climbed(pace: Pace, now: float) -> Pace:
    """The pace after a success of its climb, which ends at what the search let through."""
    growth = 1 + 1 / (CLIMB_EASE + pace.tally.admitted) if pace.peak >= 1 else CLIMB_LOW
    if (peak := pace.peak * growth) < pace.bound:
        return pace._replace(peak=peak)
    top = pace._replace(phase=Phase.FOLLOW, peak=pace.bound, bound=inf)
    return top._replace(since=now - 1.5 * top.unit)


def _given_back(pace: Pace, sent_at: float, now: float) -> Pace:
    """The pace as it was before the cuts that strays, it turns out, were the cause of."""
    peak = min(pace.crest, pace.ceiling)
    return pace._replace(peak=peak, strays=SURE + FIRM, since=now, tally=_tally(sent_at))


def _cut(pace: Pace, now: float, phase: Phase, peak: float, tally: PaceTally) -> Pace:
    """The pace after its rate was cut to start from `peak`."""
    floor = min(FLOOR_RATE, pace.ceiling)
    peak = min(max(floor, peak), pace.ceiling)
    starved = now if pace.starved_since is None and peak <= floor else pace.starved_since
    known = peak if phase is Phase.FOLLOW else pace.known
    returning = pace.phase is phase is Phase.FOLLOW and now - pace.since < pace.unit
    cut = pace._replace(
        phase=phase,
        peak=peak,
        since=now,
        known=known,
        tally=tally,
        crest=pace.crest if returning else peak,
        cut_at=now,
        starved_since=starved,
    )
    pause = RESUME if pace.phase is Phase.FOLLOW and pace.tally.admitted >= QUIET else 1.0
    return cut._replace(next_slot=max(pace.next_slot, now + pause / cut.rate(now)))


def declared(rate: float) -> Pace:
    """The pace under a declared rate: start there, adapt downwards only."""
    ceiling = rate * (1 - MARGIN)
    return Pace(
        phase=Phase.FOLLOW,
        peak=ceiling,
        since=-1e9,
        known=ceiling,
        ceiling=ceiling,
        crest=ceiling,
        strays=VOUCHED,
    )


def learned(rate: float, now: float) -> Pace:
    """The pace of somebody who found this rate earlier: start near it, and look how things are."""
    pace = Pace(phase=Phase.FOLLOW, peak=rate, known=rate, tally=_tally(now), crest=rate)
    return pace._replace(since=now - pace.unit / 2)


def dump(pace: Pace) -> str:
    """The pace as text, for other processes that call for the same account."""
    return json.dumps([_FORMAT, *pace])


def load(text: str) -> Pace:
    """The pace out of its text.

    Raises:
        ValueError: another version wrote it.
    """
    try:
        layout, phase, *values = json.loads(text)
        found = dict(zip(_FIELDS, [Phase(phase), *values], strict=True))
        start, admitted, throttled, excess, mark, earlier = found.pop("tally")
        tally = PaceTally(start, admitted, throttled, excess, tuple(mark), tuple(earlier))
    except (TypeError, KeyError) as error:
        raise ValueError(str(error)) from None
    if layout != _FORMAT:
        raise ValueError(f"format {layout}")
    return Pace(**found, tally=tally)


#: Of the text; raised when a field's meaning changes.
_FORMAT = 2
_FIELDS = Pace._fields
