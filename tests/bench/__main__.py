"""The command line of the benchmarks: one command a bench."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import click

from tests.bench import figures, measure
from tests.bench.clients import CLIENTS
from tests.bench.scenarios import QUICK, SCENARIOS
from tests.bench.speed import accounts, cluster, ledgers, manifests, million, resume, startup, throughput


class _Names(click.ParamType[tuple[str, ...]]):
    """Some of these names, with commas between them."""

    name = "names"

    def __init__(self, known: Iterable[str]) -> None:
        self._known = tuple(known)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = tuple(str(value).split(","))
        for unknown in {*names} - {*self._known}:
            self.fail(f"{unknown!r} is none of {', '.join(self._known)}", param, ctx)
        return names


@click.group()
def cli() -> None:
    """Benchmarks on this machine; nothing leaves it."""


@cli.command()
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs of each.")
@click.option("--only", type=_Names(one.name for one in SCENARIOS), metavar="NAME,…", help="These scenarios.")
@click.option("--clients", type=_Names(CLIENTS), metavar="NAME,…", help="These clients.")
@click.option("--quick", is_flag=True, help="The scenarios that take less than a minute, once.")
@click.option("--json", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def quota(
    *,
    repeat: int,
    only: tuple[str, ...] | None,
    clients: tuple[str, ...] | None,
    quick: bool,
    out: Path | None,
) -> None:
    """Get rows through limits of many kinds, against what people use today.

    Without flags that takes hours. Interrupted, it tells what it has measured.
    """
    chosen = [
        one for one in SCENARIOS if (only is None or one.name in only) and not (quick and one.ideal > QUICK)
    ]
    repeat = 1 if quick else repeat
    _report((measure.table(scenario, clients or CLIENTS, repeat) for scenario in chosen), out)


#: Starts are short and scatter: they are repeated so often, whatever is asked for.
STARTS = 10

#: The benches of speed, by name: they get whether it is to be quick, and the number of repeats.
SPEED: Mapping[str, Callable[[bool, int], figures.Table]] = {
    "throughput": lambda quick, repeat: throughput.table(4_000 if quick else 20_000, repeat),
    "manifest": lambda quick, repeat: manifests.table(_sizes(10_000, 100_000, quick=quick), repeat),
    "ledger": lambda quick, repeat: ledgers.table(_sizes(100_000, quick=quick), repeat),
    "resume": lambda quick, repeat: resume.table([100_000 if quick else 1_000_000], repeat),
    "startup": lambda quick, repeat: startup.table(STARTS),
    "accounts": lambda quick, repeat: accounts.table(
        1_000 if quick else 10_000, [1, 20, 200] if quick else [1, 20, 200, 1_000], repeat
    ),
    "million": lambda quick, repeat: million.table([10_000, 100_000 if quick else 1_000_000], repeat),
}

#: Too long for anybody who has not asked for it.
LONG = "million"


def _sizes(*few: int, quick: bool) -> list[int]:
    return [*few] if quick else [*few, 1_000_000]


@cli.command()
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs of each.")
@click.option("--only", type=_Names(SPEED), metavar="NAME,…", help=f"These of {', '.join(SPEED)}.")
@click.option("--quick", is_flag=True, help="Fewer rows.")
@click.option("--json", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def speed(*, repeat: int, only: tuple[str, ...] | None, quick: bool, out: Path | None) -> None:
    """Throughput, memory, start-up: what the program costs where the service is no limit.

    Without flags all but `million`, which runs only when named. Interrupted, it tells what it has measured.
    """
    _report((SPEED[name](quick, repeat) for name in only or SPEED if only or name != LONG), out)


#: Seconds that an endpoint takes for an answer which takes its time.
LATENCY = 0.08


@cli.command("cluster")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs of each.")
@click.option("--quick", is_flag=True, help="Fewer rows, and only an endpoint that takes its time.")
@click.option("--json", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def on_a_cluster(*, repeat: int, quick: bool, out: Path | None) -> None:
    """One worker of a Dask cluster and two, against the program alone; needs the extra `dask`.

    At last once where the endpoint takes no time. Interrupted, it tells what it has measured.
    """
    rows, repeats = (1_000, {LATENCY: repeat}) if quick else (2_000, {LATENCY: repeat, 0.0: 1})
    _report((cluster.table(rows, times, [20, 200], latency) for latency, times in repeats.items()), out)


def _report(measured: Iterable[figures.Table], out: Path | None) -> None:
    """Measure one after the other, and report each."""
    load = figures.load_now()
    tables: list[figures.Table] = []
    with suppress(KeyboardInterrupt):
        tables.extend(measured)
    click.echo(figures.as_markdown(tables, load))
    if out is not None:
        out.write_text(json.dumps(figures.as_json(tables, load), indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    cli()
