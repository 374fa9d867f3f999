"""`simulate`: serve the API on loopback."""

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import interrupts
from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.params import short_duration, window
from batch_snapshot.errors import InputError

if TYPE_CHECKING:
    from batch_snapshot.simulator import Simulator


def _note_calls(served: "Simulator") -> None:
    calls, made = sum(served.calls.values()), len(served.snapshots)
    terminal.current_reporter().interrupt_note = (
        f": {calls:,} calls answered, {made:,} snapshots in its world"
    )


def _change(text: str) -> tuple[float, float]:
    rate, at, moment = text.partition("@")
    try:
        return float(rate), short_duration(moment if at else "")
    except ValueError:
        raise click.BadParameter(f"{rate!r} is no rate; write RATE@TIME, such as 10@20s") from None


_time = partial(click.option, type=short_duration, metavar="TIME")


@click.command("simulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free one.")
@click.option(
    "--rate", type=float, help="Writes a second and access key (a token bucket). Default: no limit."
)
@click.option("--burst", type=int, default=1, show_default=True, help="Size of that bucket.")
@click.option(
    "--then",
    "changes",
    type=_change,
    multiple=True,
    metavar="RATE@TIME",
    help="Another rate from TIME after the first write on, such as 10@20s; may be repeated.",
)
@click.option(
    "--window",
    "windows",
    type=window,
    multiple=True,
    metavar="N/TIME",
    help="A rolling window for writes, such as 100/1m; may be given more than once.",
)
@click.option("--read-rate", type=float, help="Reads a second and key. Default: no limit.")
@click.option(
    "--retry-hint/--no-retry-hint",
    "retry_after",
    default=True,
    show_default=True,
    help="Whether throttles say how long to wait.",
)
@_time("--latency", default="0", help="Added to each answer.")
@_time("--forget-after", help="How long a ClientToken is remembered. Default: forever.")
@click.option(
    "--faults",
    metavar="KIND=SHARE,…",
    help="Faults and how often they happen, such as internal=0.05,reset-after=0.1; "
    "an unknown kind lists those there are.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which calls meet a fault.")
@options.path("--state", help="Keep the world in this file, from one start to the next.")
@click.option("--engagements", type=int, default=0, help="Engagements for the lists to show.")
@click.option("--opportunities", "opportunities_per_engagement", type=int, default=0, help="And of each.")
def simulate_command(
    host: str,
    port: int,
    *,
    rate: float | None,
    changes: tuple[tuple[float, float], ...],
    faults: str | None,
    **settings: Any,
) -> None:
    """Serve the API on loopback, until interrupted; prints its URL.

    \b
    batch-snapshot simulate --rate 20 --burst 20 --faults internal=0.05 --state world.ndjson
    GET URL/_simulator/record lists every snapshot made.
    """
    from batch_snapshot import simulator

    if changes and rate is None:
        raise InputError("simulate: --then changes a rate; give the first with --rate")
    rates = rate if rate is None else ((rate, 0.0), *changes)
    try:
        plan = simulator.Faults.parse(faults) if faults else simulator.Faults()
        chosen = simulator.SimulatorSettings(rate=rates, faults=plan, **settings)
        interrupts.run(simulator.run_forever(chosen, host, port, click.echo, _note_calls))
    except ValueError as error:
        raise InputError(f"simulate: {error}") from None
    except OSError as error:
        raise InputError(
            f"simulate: cannot serve ({error.strerror or error}); choose another --port"
        ) from None
