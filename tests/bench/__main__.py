"""The command line of the benchmarks: one command a bench."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import click

from tests.bench import cluster, figures, quota, speed
from tests.bench.clients import CLIENTS
from tests.bench.scenarios import QUICK, SCENARIOS

Names = tuple[str, ...]


class _Names(click.ParamType[Names]):
    """Some of these names, with commas between them."""

    name = "names"

    def __init__(self, known: Iterable[str]) -> None:
        self._known = tuple(known)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Names:
        names = tuple(str(value).split(","))
        for unknown in {*names} - {*self._known}:
            self.fail(f"{unknown!r} is none of {', '.join(self._known)}", param, ctx)
        return names


_REPEAT = click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs of each.")
_OUT = click.option("--json", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
_QUICK = click.option("--quick", is_flag=True, help="Fewer rows.")


def _only(names: Iterable[str]) -> Callable[..., Callable[..., None]]:
    known = tuple(names)
    return click.option("--only", type=_Names(known), metavar="NAME,…", help=f"These of {', '.join(known)}.")


@click.group()
def cli() -> None:
    """Benchmarks on this machine; nothing leaves it. Interrupted, they tell what they have measured."""


@cli.command("quota")
@_REPEAT
@_only(one.name for one in SCENARIOS)
@click.option("--clients", type=_Names(CLIENTS), metavar="NAME,…", help="These clients.")
@click.option("--quick", is_flag=True, help="The scenarios that take less than a minute, once.")
@_OUT
def under_a_quota(
    *, repeat: int, only: Names | None, clients: Names | None, quick: bool, out: Path | None
) -> None:
    """Get rows through limits of many kinds, against what people use today.

    Without flags that takes hours.
    """
    chosen = [
        one for one in SCENARIOS if (only is None or one.name in only) and not (quick and one.ideal > QUICK)
    ]
    repeat = 1 if quick else repeat
    _report((quota.table(scenario, clients or CLIENTS, repeat) for scenario in chosen), out)


#: Starts are short and scatter: they are repeated so often, whatever is asked for.
STARTS = 10

#: The benches of speed, by name: they get whether it is to be quick, and the number of repeats.
SPEED: Mapping[str, Callable[[bool, int], figures.Table]] = {
    "throughput": lambda quick, repeat: speed.throughput(4_000 if quick else 20_000, repeat),
    "manifest": lambda quick, repeat: speed.manifests(_sizes(10_000, 100_000, quick=quick), repeat),
    "ledger": lambda quick, repeat: speed.ledgers(_sizes(100_000, quick=quick), repeat),
    "resume": lambda quick, repeat: speed.resume([100_000 if quick else 1_000_000], repeat),
    "startup": lambda quick, repeat: speed.startup(STARTS),
    "accounts": lambda quick, repeat: speed.accounts(
        1_000 if quick else 10_000, [1, 20, 200] if quick else [1, 20, 200, 1_000], repeat
    ),
    "million": lambda quick, repeat: speed.million([10_000, 100_000 if quick else 1_000_000], repeat),
}

#: Too long for anyone who has not asked for it.
LONG = "million"


def _sizes(*few: int, quick: bool) -> list[int]:
    return [*few] if quick else [*few, 1_000_000]


@cli.command("speed")
@_REPEAT
@_only(SPEED)
@_QUICK
@_OUT
def without_a_limit(*, repeat: int, only: Names | None, quick: bool, out: Path | None) -> None:
    """Throughput, memory, start-up: what the program costs where the service is no limit.

    Without flags all but `million`, which runs only when named.
    """
    _report((SPEED[name](quick, repeat) for name in only or SPEED if only or name != LONG), out)


#: Seconds that an endpoint takes for an answer which takes its time.
LATENCY = 0.08


@cli.command("cluster")
@_REPEAT
@_QUICK
@_OUT
def on_a_cluster(*, repeat: int, quick: bool, out: Path | None) -> None:
    """One worker of a Dask cluster and two, against the program alone; needs the extra `dask`.

    At last, unless it is to be quick, once where the endpoint takes no time.
    """
    rows, repeats = (1_000, {LATENCY: repeat}) if quick else (2_000, {LATENCY: repeat, 0.0: 1})
    _report((cluster.table(rows, times, [20, 200], latency) for latency, times in repeats.items()), out)


def _report(measured: Iterable[figures.Table], out: Path | None) -> None:
    """Measure one after the other, and report each with the length of the run queue before."""
    load = os.getloadavg()[0]
    tables: list[figures.Table] = []
    with suppress(KeyboardInterrupt):
        tables.extend(measured)
    click.echo(figures.as_markdown(tables, load))
    if out is not None:
        out.write_text(json.dumps(figures.as_json(tables, load), indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    cli()
