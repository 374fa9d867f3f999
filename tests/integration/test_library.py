"""The package within other programs: what the documentation shows, and what a library may not do."""

import ast
import asyncio
import inspect
import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import pytest
import trio

import batch_snapshot
from batch_snapshot import Hooks, InputError, LockedError, Options, Selection, paths
from batch_snapshot.clock import utc_now
from batch_snapshot.ledger import locks
from tests.docs.pages import block
from tests.support.processes import pairs, results, write_manifest

SIMULATED = Options(simulate=True)


@pytest.fixture(autouse=True)
def place(cwd):
    write_manifest(Path("trial.yaml"), pairs(4))
    return cwd


# -- the documentation's examples, word by word but for the endpoint and the folder -------------------------


@pytest.fixture
def endpoint(monkeypatch):
    """A simulator in a thread of its own, as AWS's own variable names it."""
    from batch_snapshot.simulator import serve

    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serve()) as it,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_PARTNERCENTRAL_SELLING", it[0])
        yield it[1]


def example(name: str, folder: Path) -> str:
    return re.sub(r"/srv/snapshots|/mnt/snapshots", str(folder), block(name))


def test_the_example_of_a_notebook(place, endpoint, capsys):
    write_manifest(Path("backfill.yaml"), pairs(2), name="backfill")
    names: dict[str, Any] = {}
    code = compile(example("notebook", place), "notebook", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def cell() -> None:
        made = eval(code, names)
        if inspect.isawaitable(made):
            await made

    asyncio.run(cell())
    assert names["summary"].counts.succeeded == 2
    told = capsys.readouterr().out.splitlines()
    assert sorted(told) == [f"O{n} succeeded None" for n in (1, 2)]
    assert len(endpoint.snapshots) == 2


class FailForGoodError(Exception):
    """Stands for `AirflowFailException`."""


@pytest.fixture
def airflow_task(place, endpoint, monkeypatch):
    """The function of the example; `tests.e2e.airflow_example` runs it in a real Airflow."""
    for name in ("airflow", "airflow.sdk", "airflow.sdk.exceptions"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules["airflow.sdk.exceptions"]).update(AirflowFailException=FailForGoodError)
    names: dict[str, Any] = {}
    exec(example("airflow", place), names)
    return names["nightly"]


def test_the_example_of_an_airflow_task(place, endpoint, airflow_task):
    write_manifest(place / "nightly.yaml", pairs(3), name="nightly")
    assert airflow_task() == {"succeeded": 3, "failed": 0, "in_doubt": 0, "unattempted": 0}
    # Tried again it resumes the same night.
    assert airflow_task()["succeeded"] == 3
    assert len(endpoint.snapshots) == 3
    assert len(list((place / "ledgers").glob("nightly-????-??-??.ndjson"))) == 1


def test_the_example_of_an_airflow_task_fails_for_good_where_another_try_cannot_help(place, airflow_task):
    (place / "nightly.yaml").write_text("version: 1\nname: nightly\npears: []\n", "utf-8")
    with pytest.raises(FailForGoodError, match="pears"):
        airflow_task()
    unknown = {"main": {"profile": "unknown"}}
    rows = pairs(3, account="main")
    write_manifest(place / "nightly.yaml", rows, name="nightly", accounts=unknown)
    with pytest.raises(FailForGoodError, match="unknown"):
        airflow_task()


def test_the_example_of_an_airflow_task_is_tried_again_after_a_lock_and_a_signal(
    place, endpoint, airflow_task, monkeypatch
):
    write_manifest(place / "nightly.yaml", pairs(3), name="nightly")
    ledger = place / "ledgers" / f"nightly-{utc_now():%Y-%m-%d}.ndjson"
    ledger.parent.mkdir()
    with locks.hold(paths.ledger_lock(ledger), what="the ledger", since="now"), pytest.raises(LockedError):
        airflow_task()

    def hooks(**given: Any) -> Hooks:
        return Hooks(**given, outcome=lambda _: os.kill(os.getpid(), signal.SIGTERM))

    monkeypatch.setitem(airflow_task.__globals__, "Hooks", hooks)
    with pytest.raises(RuntimeError, match=r"interrupted: .*: the next try continues"):
        airflow_task()


def test_the_example_of_a_lambda_handler(place, endpoint):
    write_manifest(place / "nightly.yaml", pairs(3), name="nightly")
    names: dict[str, Any] = {}
    exec(example("lambda", place), names)
    handler = names["handler"]
    short = handler({}, SimpleNamespace(get_remaining_time_in_millis=lambda: 59_000))
    assert (short["outcome"], short["unattempted"]) == ("deferred", 3)
    assert handler({}, SimpleNamespace(get_remaining_time_in_millis=lambda: 900_000)) == {
        "outcome": "completed", "succeeded": 3, "failed": 0, "in_doubt": 0, "unattempted": 0,
    }  # fmt: skip
    assert len(endpoint.snapshots) == 3


# -- with and without a loop -------------------------------------------------------------------------


def test_run_sync_without_a_loop_returns_when_the_run_is_over():
    summary = batch_snapshot.run_sync("trial.yaml", SIMULATED)
    assert (summary.outcome, summary.counts.succeeded) == ("completed", 4)
    again = batch_snapshot.retry_sync(summary.ledger, Selection(), SIMULATED)
    assert (again.exit_code, again.calls) == (0, 0)


@pytest.mark.parametrize("loop", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_run_sync_in_a_running_loop_returns_when_the_run_is_over(loop):
    here: list[threading.Thread] = []

    async def cell() -> batch_snapshot.Summary:
        hooks = Hooks(outcome=lambda _: here.append(threading.current_thread()))
        return batch_snapshot.run_sync("trial.yaml", SIMULATED, hooks)

    made = cell()
    summary = asyncio.run(made) if loop is asyncio.run else trio.run(lambda: made)
    assert summary.counts.succeeded == 4
    assert threading.main_thread() not in here


def test_run_sync_in_a_running_loop_refuses_signals():
    async def cell() -> None:
        batch_snapshot.run_sync("trial.yaml", SIMULATED, Hooks(signals=True))

    with pytest.raises(InputError, match="leave signals out, or await"):
        asyncio.run(cell())
    assert not Path("ledgers").exists()


def test_an_interrupt_in_a_running_loop_ends_the_run_before_it_is_raised():
    """As a notebook's stop button: no thread is left that makes snapshots."""
    write_manifest(Path("trial.yaml"), pairs(400))

    pressed: list[bool] = []

    def stop(_: object) -> None:
        if pressed:
            return
        pressed.append(True)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    async def cell() -> None:
        batch_snapshot.run_sync("trial.yaml", SIMULATED, Hooks(outcome=stop))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            # A loop that leaves the signal to Python, as a notebook's does.
            trio.run(cell, restrict_keyboard_interrupt_to_checkpoints=False)
    finally:
        signal.signal(signal.SIGINT, before)
    ledger = Path("ledgers/trial.simulated.ndjson")
    with locks.hold(paths.ledger_lock(ledger), what="the ledger", since="now"):
        assert 0 < len(results(ledger)) < 100


# -- what a library may not do -----------------------------------------------------------------------


def test_the_library_prints_nothing_logs_nothing_and_takes_no_signal(capfd, caplog):
    handlers: set[object] = set()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    hooks = Hooks(outcome=lambda _: handlers.update({(n, signal.getsignal(n)) for n in before}))

    async def main() -> batch_snapshot.Summary:
        return await batch_snapshot.run("trial.yaml", SIMULATED, hooks)

    with caplog.at_level(logging.INFO, "batch_snapshot"):
        # asyncio.run takes SIGINT for itself.
        loop = asyncio.new_event_loop()
        try:
            summary = loop.run_until_complete(main())
        finally:
            loop.close()
    assert summary.counts.succeeded == 4
    assert handlers == set(before.items())
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("batch_snapshot")]


def test_every_public_name_has_a_docstring():
    for name in set(batch_snapshot.__all__) - {"__version__"}:
        thing = getattr(batch_snapshot, name)
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            assert "return" in inspect.get_annotations(thing), name
