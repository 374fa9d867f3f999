"""Makes a failing scenario smaller: fewer invocations, rows and faults, while it still fails."""

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.life import Violation, live
from tests.simulation.scenario import Invocation, Scenario

#: What an invocation and a scenario are where nothing happens.
_PLAIN_INVOCATION, _PLAIN_SCENARIO = Invocation(), Scenario(0)

_INVOCATION_FIELDS = ("pause", "clock_step", "disk_fault", "second_after", "crash", "at", "where", "first")
_SCENARIO_FIELDS = (
    "faults",
    "accounts",
    "per_minute",
    "per_second",
    "concurrency",
    "service_rate",
    "service_burst",
    "read_lag",
    "skew",
    "reads_denied",
    "made_before",
    "token_memory",
    "first",
)


def shrink(scenario: Scenario, most: int = 400) -> tuple[Scenario, str]:
    """The smallest scenario found in `most` lives that fails, and its story."""
    story = _story(scenario)
    tried = 0
    found = True
    while found:
        found = False
        for smaller in _smaller(scenario):
            tried += 1
            if tried > most:
                return scenario, story
            if text := _story(smaller):
                scenario, story, found = smaller, text, True
                break
    return scenario, story


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    invocations = scenario.invocations
    rows = scenario.last - scenario.first
    for last in sorted({scenario.first + rows // 2, scenario.last - 1} - {scenario.first}):
        fewer = (replace(one, last=max(one.first + 1, min(one.last, last))) for one in invocations)
        yield replace(scenario, last=last, invocations=tuple(fewer))
    for at in range(len(invocations)):
        yield replace(scenario, invocations=invocations[:at] + invocations[at + 1 :])
    for fault in scenario.faults:
        yield replace(scenario, faults=tuple(one for one in scenario.faults if one != fault))
    for name in _SCENARIO_FIELDS:
        plain = getattr(_PLAIN_SCENARIO, name)
        if getattr(scenario, name) != plain:
            yield replace(scenario, **{name: plain})
    for at, one in enumerate(invocations):
        for name in _INVOCATION_FIELDS:
            plain = getattr(_PLAIN_INVOCATION, name)
            if getattr(one, name) != plain:
                less = replace(one, **{name: plain})
                yield replace(scenario, invocations=(*invocations[:at], less, *invocations[at + 1 :]))


def _story(scenario: Scenario) -> str:
    try:
        live(scenario)
    except Violation as violation:
        return str(violation)
    return ""
