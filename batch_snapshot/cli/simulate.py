"""`simulate`: serve the API on loopback."""

from difflib import get_close_matches
from typing import Any

import click
from click.core import ParameterSource

from batch_snapshot import interrupts
from batch_snapshot.cli import options, params, terminal
from batch_snapshot.errors import InputError
from batch_snapshot.text import plural


def _change(text: str) -> tuple[float, float]:
    rate, at, moment = text.partition("@")
    try:
        return float(rate), params.short_duration(moment if at else "")
    except ValueError:
        raise click.BadParameter(f"{rate!r} is not a rate; write RATE@TIME, such as 10@20s") from None


@options.command(
    """
    Serve a simulated API on this machine.
    $ batch-snapshot simulate --rate 20 --burst 20 --latency 80ms
    $ batch-snapshot simulate --faults internal=0.05,reset-after=0.1 --state world.ndjson
    --port=INTEGER          Port to serve on. Default: any free one.
    --rate=FLOAT            Writes a second for each access key (a token bucket). Default: no limit.
    --burst=INTEGER         Size of that bucket.
    --window=N/TIME windows  A rolling window for writes, such as 100/1m; may be repeated.
    --latency=TIME          Added to each answer, such as 80ms.
    --faults=KIND=SHARE,…   Faults and how often they happen, such as internal=0.05,reset-after=0.1; an
                            unknown kind prints the list.
    --state=FILE state      Keep the world in this file, from one start to the next.
    [Simulator]
    --host=TEXT             A loopback address.
    --then=RATE@TIME changes  Change the rate at TIME after the first write, such as 10@20s; may be
                            repeated.
    --read-rate=FLOAT       Reads a second for each access key. Default: no limit.
    --retry-hint/--no-retry-hint retry_after  Whether a throttle says how long to wait.
    --forget-after=TIME     How long a ClientToken is remembered. Default: forever.
    --seed=INTEGER          Decides which calls meet a fault.
    --engagements=INTEGER   How many engagements the lists show.
    --opportunities=INTEGER opportunities_per_engagement  How many opportunities each of them has.
    --invitations=INTEGER   How many invitations to further engagements there are.
    """,
    port={"type": click.IntRange(0, 65535)},
    burst={"default": 1},
    windows={"multiple": True},
    latency={"type": params.short_duration},
    faults={"type": str},
    host={"default": "127.0.0.1"},
    changes={"type": _change, "multiple": True},
    retry_after={"default": True},
    forget_after={"type": params.short_duration},
    seed={"default": 0},
    invitations={"default": 0, "show_default": False},
)
def simulate_command(host: str, port: int | None, **given: Any) -> None:
    """Serve a simulated API on this machine until Ctrl-C, and print its URL.

    GET URL/_simulator/record lists every snapshot made.
    """
    from batch_snapshot import simulator

    def note_calls(served: simulator.Simulator) -> None:
        calls, made = sum(served.calls.values()), len(served.snapshots)
        note = f": {plural(calls, 'call')} answered, {plural(made, 'snapshot')} in its world"
        terminal.current_reporter().interrupt_note = note

    try:
        chosen = simulator.SimulatorSettings(**_fields(given))
        interrupts.run(simulator.run_forever(chosen, host, port or 0, click.echo, note_calls))
    except ValueError as error:
        raise InputError(f"simulate: {error}") from None
    except OSError as error:
        raise InputError(
            f"simulate: cannot serve ({error.strerror or error}); leave out --port for any free one, or name "
            "another --host"
        ) from None


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    from batch_snapshot import simulator

    own = {"changes", "faults"}
    fields = {name: value for name, value in given.items() if value is not None and name not in own}
    if changes := given.get("changes"):
        if given.get("rate") is None:
            raise InputError("simulate: --then changes a rate; give the first with --rate")
        fields["rate"] = ((given["rate"], 0.0), *changes)
    if given.get("faults"):
        fields["faults"] = simulator.Faults.parse(given["faults"])
    return fields


#: Options of `simulate` that a run with `--simulate` decides.
_NOT_SETTINGS = {"host", "port", "state"}


def parse_settings(text: str) -> dict[str, Any]:
    """The fields of `SimulatorSettings` in the value of `--simulate`, such as rate=500,internal=0.05."""
    from batch_snapshot.simulator import KINDS, SimulatorSettings

    names = {
        flag.removeprefix("--")
        for one in simulate_command.options
        if one.name not in _NOT_SETTINGS
        for flag in (*one.opts, *one.secondary_opts)
    }
    words, faults = [], []
    for piece in filter(None, map(str.strip, text.split(","))):
        name, equals, value = piece.partition("=")
        if name in {*KINDS, "late-delay", "slow-delay"}:
            faults.append(piece)
        elif name == "faults":
            faults.append(value)
        elif name in names:
            words.append(f"--{name}{equals}{value}")
        elif name == "state":
            raise click.BadParameter(f"{name} is not a setting; write --simulate --state {value or 'FILE'}")
        else:
            known = sorted({*names, *KINDS})
            near = get_close_matches(name, known, 1, 0.7)
            meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise click.BadParameter(f"there is no setting {name!r} of the simulator; {meant}")
    if faults:
        words.append(f"--faults={','.join(faults)}")
    try:
        context = simulate_command.make_context("simulate", words)
        given = {
            name: value
            for name, value in context.params.items()
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        fields = _fields(given)
        SimulatorSettings(**fields)
    except click.BadParameter as error:
        name = error.param.opts[0].removeprefix("--") if error.param else "settings"
        raise click.BadParameter(f"{name}: {error.message}") from None
    except (click.UsageError, ValueError) as error:
        raise click.BadParameter(getattr(error, "message", str(error))) from None
    return fields
