"""A state machine of AWS Step Functions, run in virtual time: the states that the documentation uses.

It follows the Amazon States Language with JSONata. An expression without a value is an error. Variables
belong to an iteration of a Map. All of an `Assign` is evaluated before any of it is assigned. An iteration
that fails ends its Map. Here one runs after the other; a Map takes as long as its longest iteration.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from jsonata.jsonata import Jsonata

Json = Any
#: What a task does: its arguments to its result, or a `StatesError`.
Work = Callable[[Json], Json]


class StatesError(Exception):
    """An error as a state sees it: its name, and its cause as text."""

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(f"{error}: {cause}")
        self.error, self.cause = error, cause


class Ended(NamedTuple):
    """How an execution ended, after so many seconds: its output, or the error that failed it."""

    output: Json
    failed: StatesError | None
    seconds: float


def run(machine: Json, given: Json, work: Work) -> Ended:
    """Run a machine with this input."""
    execution = _Execution(work, machine.get("TimeoutSeconds", float("inf")))
    try:
        output = execution.states(machine, given, {})
    except StatesError as error:
        return Ended(None, error, execution.now)
    return Ended(output, None, execution.now)


class _Execution:
    def __init__(self, work: Work, limit: float) -> None:
        self.work, self.limit, self.now = work, limit, 0.0

    def states(self, machine: Json, given: Json, variables: dict[str, Json]) -> Json:
        """Run the states of a machine, or of a Map's processor, to the end."""
        name: str | None = machine["StartAt"]
        while name is not None:
            if self.now > self.limit:
                raise StatesError("States.Timeout")
            state = machine["States"][name]
            given, name = getattr(self, f"_{state['Type'].lower()}")(state, given, variables)
        return given

    def _pass(self, state: Json, given: Json, variables: dict[str, Json]) -> tuple[Json, str | None]:
        return _left(state, {"input": given}, given, variables)

    def _wait(self, state: Json, given: Json, variables: dict[str, Json]) -> tuple[Json, str | None]:
        self.now += _value(state["Seconds"], {"input": given}, variables)
        return given, state.get("Next")

    def _succeed(self, _: Json, given: Json, __: dict[str, Json]) -> tuple[Json, str | None]:
        return given, None

    def _fail(self, state: Json, given: Json, variables: dict[str, Json]) -> tuple[Json, str | None]:
        error, cause = (_value(state[key], {"input": given}, variables) for key in ("Error", "Cause"))
        raise StatesError(error, cause)

    def _choice(self, state: Json, given: Json, variables: dict[str, Json]) -> tuple[Json, str | None]:
        around = {"input": given}
        for rule in state["Choices"]:
            true = _value(rule["Condition"], around, variables)
            if not isinstance(true, bool):
                raise StatesError("States.QueryEvaluationError", f"{rule['Condition']}: {true!r}")
            if true:
                return _left(rule, around, given, variables)
        return given, state["Default"]

    def _task(self, state: Json, given: Json, variables: dict[str, Json]) -> tuple[Json, str | None]:
        around = {"input": given}
        try:
            result = self.work(_value(state["Arguments"], around, variables))
        except StatesError as error:
            for catcher in state.get("Catch", ()):
                if {error.error, "States.ALL"} & {*catcher["ErrorEquals"]}:
                    around["errorOutput"] = {"Error": error.error, "Cause": error.cause}
                    return _left(catcher, around, around["errorOutput"], variables)
            raise
        return _left(state, {**around, "result": result}, result, variables)

    def _map(self, state: Json, given: Json, variables: dict[str, Json]) -> tuple[Json, str | None]:
        begun, ends, outputs = self.now, [self.now], []
        for item in _value(state["Items"], {"input": given}, variables):
            self.now = begun
            outputs.append(self.states(state["ItemProcessor"], item, {**variables}))
            ends.append(self.now)
        self.now = max(ends)
        return _left(state, {"input": given, "result": outputs}, outputs, variables)


def _left(leave: Json, around: Json, output: Json, variables: dict[str, Json]) -> tuple[Json, str | None]:
    """Leave a state by itself, a rule or a catcher: its output, and the state that is next."""
    assigned = _value(leave.get("Assign", {}), around, variables)
    output = _value(leave["Output"], around, variables) if "Output" in leave else output
    variables.update(assigned)
    return output, None if leave.get("End") else leave["Next"]


def _value(template: Json, around: Json, variables: dict[str, Json]) -> Json:
    """A value with its expressions worked out."""
    if isinstance(template, dict):
        return {key: _value(inner, around, variables) for key, inner in template.items()}
    if isinstance(template, list):
        return [_value(inner, around, variables) for inner in template]
    if not isinstance(template, str) or not template.startswith("{%"):
        return template
    try:
        expression = Jsonata(template.removeprefix("{%").removesuffix("%}"))
        # The one function of Step Functions' own that is used.
        expression.register_lambda("parse", json.loads)
        frame = expression.create_frame()
        for name, value in {"states": around, **variables}.items():
            frame.bind(name, value)
        found = expression.evaluate(None, frame)
    except Exception as error:
        raise StatesError("States.QueryEvaluationError", f"{template}: {error}") from error
    if found is None:
        raise StatesError("States.QueryEvaluationError", f"{template}: no value")
    return found
