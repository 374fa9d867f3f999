"""Makes a failing scenario smaller: fewer invocations, rows and faults, while it still fails."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, TypeVar

from tests.simulation.life import Violation, live
from tests.simulation.scenario import Invocation, Scenario

Drawn = TypeVar("Drawn", Invocation, Scenario)


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
    yield from _plainer(scenario, but={"seed", "last", "invocations"})
    for at, one in enumerate(invocations):
        for less in _plainer(one, but={"command", "last", "resend_in_doubt"}):
            yield replace(scenario, invocations=(*invocations[:at], less, *invocations[at + 1 :]))


def _plainer(one: Drawn, but: set[str]) -> Iterator[Drawn]:
    """The same, each time with one more field as where nothing happens."""
    for field in fields(one):
        plain: dict[str, Any] = {field.name: field.default}
        if field.name not in but and getattr(one, field.name) != field.default:
            yield replace(one, **plain)


def _story(scenario: Scenario) -> str:
    try:
        live(scenario)
    except Violation as violation:
        return str(violation)
    return ""
