"""The options of `run` and `retry` with their defaults, and what of them a ledger's run line records."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from batch_snapshot import files, paths
from batch_snapshot.errors import LedgerError
from batch_snapshot.failures import retry
from batch_snapshot.models import REGION

#: Seconds: an unfinished ledger of another day that is not older is resumed first.
RESUME_WITHIN = 20 * 3600.0

#: Seconds for which a worker of a cluster sends one batch, and what may be given instead.
BUDGET = 5.0
SHORTEST_BUDGET, LONGEST_BUDGET = 1.0, 60.0
#: Seconds after it was handed out within which a batch begins, or it has less than its budget.
BEGIN_WITHIN = 10.0
#: A worker's clock may run faster or slower than ours by this share.
CLOCK_DRIFT = 0.05
#: Seconds: a longer drain time-out in a ledger is taken for damage.
LONGEST_DRAIN = 3600.0


def silent_after(budget: float, drain: float) -> float:
    """Seconds after which a batch that was handed out makes no call any more, wherever its worker is."""
    return (BEGIN_WITHIN + budget + drain) * (1 + CLOCK_DRIFT)


def recorded_silence(settings: Mapping[str, Any]) -> float:
    """The same by a run line's settings; 0: its calls were not made on a cluster."""

    def seconds(name: str, longest: float, default: float) -> float:
        value = settings.get(name)
        return float(value) if isinstance(value, int | float) and 0 < value <= longest else default

    drain = seconds("drain_s", LONGEST_DRAIN, DEFAULT_SETTINGS.drain_timeout)
    budget = seconds("lease_s", LONGEST_BUDGET, BUDGET)
    return silent_after(budget, drain) if settings.get("engine") == "dask" else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a run is driven. Times are in seconds."""

    #: Most calls in flight, shared out evenly among the accounts.
    concurrency: int = 32
    max_attempts: int = 8
    #: How long the service is trusted to remember a token.
    token_ttl: float = 600.0
    #: How long it takes until a snapshot is sure to show in reads.
    read_lag: float = retry.READ_LAG
    #: Send a row in doubt again where its snapshot cannot be looked up.
    resend_in_doubt: bool = False
    #: How long calls in flight may take when the run is stopped.
    drain_timeout: float = 30.0
    max_duration: float | None = None
    #: After this time with nothing but throttles at the lowest rate, the quota counts as spent.
    patience: float = 300.0
    #: While nothing can be reached, or quotas refuse all rows, an account probes for this time; then it is
    #: deferred.
    pause: float = 120.0
    failure_limit: retry.FailureLimit = retry.NO_LIMIT


DEFAULT_SETTINGS = Settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    #: Address of its scheduler, such as tcp://10.0.0.5:8786; None: a cluster on this machine, for this run.
    scheduler: str | None = None
    #: Worker processes of the cluster on this machine; None: one a core.
    workers: int | None = None
    #: Seconds for which a worker sends an account's rows before it reports. A lost worker's rows are sent
    #: again once this and the drain time-out are over.
    budget: float = BUDGET


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How `run` and `retry` go about it. Times are in seconds."""

    #: Path of the ledger; may hold {name} and {date}. None: the default of the manifest's name.
    ledger: str | None = None
    #: Of a CSV or NDJSON file that is run as a manifest: its name (None: the file's), and its catalog.
    name: str | None = None
    catalog: str | None = None
    #: Report all problems of the manifest, not only the first.
    all_problems: bool = False
    #: Send at most this many rows in this invocation; None: all.
    limit: int | None = None
    #: For a new ledger; None: a random one.
    run_id: str | None = None
    #: Accounts to call for, by name or as tag:NAME; empty: all.
    accounts: tuple[str, ...] = ()
    #: Calls a second and account: a number over the manifest's, "auto" to find it out, None: the manifest's.
    rate: float | str | None = None
    #: Calls in any 24 hours and account, over the manifest's; None: the manifest's.
    daily_quota: int | None = None
    #: Wait for a spent quota window to open, instead of ending.
    wait: bool = False
    #: Against a simulator that lives as long as the run.
    simulate: bool = False
    #: Fields of `SimulatorSettings` that differ from `simulator.DEMO`.
    simulator_settings: Mapping[str, Any] = field(default_factory=dict)
    #: The same as the flag --simulate has it, for commands to run next.
    simulator_text: str = ""
    #: The file that keeps what the simulator holds from one command to the next.
    simulator_state: Path | None = None
    #: Reads a second and account; None: what AWS allows.
    read_rate: float | None = None
    #: Leave out pairs whose opportunity was not modified since their "last" snapshot, or a time
    #: (see `filters.since`); None: leave out none.
    changed_since: str | None = None
    #: Leave out pairs that a running snapshot job of AWS's takes care of.
    skip_active_jobs: bool = False
    endpoint_url: str | None = None
    #: For accounts that name none of their own.
    region: str | None = None
    profile: str | None = None
    #: The folder for what outlives a run; None: as the environment says.
    state_dir: Path | None = None
    #: The state folder of a simulated run (see `isolate_simulated_state`).
    simulated_state_dir: Path | None = None
    #: Begin a new ledger though an unfinished one has vanished, or is elsewhere.
    new_ledger: bool = False
    #: With {date} in the ledger's name: an unfinished ledger that is not older, in seconds, is resumed first.
    resume_within: float = RESUME_WITHIN
    engine: Settings = DEFAULT_SETTINGS
    #: None: this process makes the calls.
    cluster: ClusterOptions | None = None
    #: The command line that resumes where this one stops, for the summary.
    command_line: str | None = None

    @property
    def simulated(self) -> Mapping[str, Any]:
        """Fields of `SimulatorSettings`, the file of its world among them."""
        return {**self.simulator_settings, "state": self.simulator_state}


def state_folder_of(options: Options) -> Path:
    return options.simulated_state_dir or paths.state_folder(options.state_dir, os.environ)


@contextmanager
def isolate_simulated_state(options: Options, *, simulated: bool) -> Iterator[Options]:
    if options.simulated_state_dir or not simulated:
        yield options
    elif options.simulator_state:
        folder = paths.simulated_state(options.simulator_state, options.state_dir)
        yield replace(options, simulated_state_dir=folder)
    else:
        with paths.temporary_state() as folder:
            yield replace(options, simulated_state_dir=folder)


def option_warnings(options: Options) -> list[str]:
    if options.region in {None, REGION}:
        return []
    return [f"--region {options.region}: only {REGION} serves the API"]


#: Settings that a run line records as they are.
_RECORDED = (
    *("concurrency", "rate", "daily_quota", "wait", "profile", "region"),
    *("max_attempts", "token_ttl", "resend_in_doubt", "max_duration"),
)
#: Those that it records where they are given. Until a row is sent, `new_ledger` holds for later runs of the
#: ledger too.
_IF_GIVEN = ("changed_since", "skip_active_jobs", "limit", "name", "catalog", "new_ledger")
#: Settings that a retry takes over from the run where its own options name none, and that the commands which
#: continue from a ledger repeat: who signs, and under which quotas.
KEPT = ("name", "catalog", "profile", "region", "rate", "daily_quota", "state_dir")


def recorded_settings(options: Options, before: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    engine, cluster = options.engine, options.cluster
    settings = {
        **{name: getattr(engine if hasattr(engine, name) else options, name) for name in _RECORDED},
        "accounts": list(options.accounts),
        "state_dir": str(options.state_dir) if options.state_dir else None,
        "engine": "dask" if cluster else None,
        "scheduler": cluster.scheduler if cluster else None,
    }
    kept = {key: before[key] for key in (*KEPT, "simulate") if key in before and settings.get(key) is None}
    if_given = {name: getattr(options, name) for name in _IF_GIVEN} | {
        "lease_s": cluster.budget if cluster else None,
        "drain_s": engine.drain_timeout if cluster else None,
        "simulate": options.simulator_text,
        "simulator_state": str(files.resolved(options.simulator_state)) if options.simulator_state else None,
    }
    return {**settings, **kept, **{name: value for name, value in if_given.items() if value}}


def with_recorded_quotas(path: Path, options: Options, settings: Mapping[str, Any]) -> Options:
    rate, daily = settings["rate"], settings["daily_quota"]
    number = isinstance(rate, float | int) and 1e-6 <= rate <= 999_999
    if not (rate is None or rate == "auto" or number) or not (
        daily is None or (isinstance(daily, int) and daily > 0)
    ):
        raise LedgerError(
            f"{path}: the run line has an invalid rate or daily_quota: restore it from a backup"
        )
    return replace(options, rate=rate, daily_quota=daily)
