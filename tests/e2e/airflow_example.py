"""Run the DAGs of docs/how-to/airflow.md in a real Airflow, against the simulator.

    python -m tests.e2e.airflow_example                             # installs Airflow: minutes, a gigabyte
    python -m tests.e2e.airflow_example --python VENV/bin/python    # with an Airflow that is there

Airflow and this package go into a temporary environment with a SQLite database. `airflow dags test` runs each
DAG as the page has it but for the folder and, where a task is to be tried again, the hour between two tries.
What became of it is read from Airflow's database, and what was made from the simulator's record.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.bench.processes import folder as new_folder
from tests.bench.processes import served
from tests.docs.pages import block
from tests.support.processes import environment, pairs, write_manifest

VERSION = "3.3.2"

#: Makes a DAG of the function of the first example, as the page says.
ONE_TASK = """
from datetime import timedelta
from airflow.sdk import dag, task

@dag(schedule=None)
def one_task():
    task(retries=18, retry_delay=timedelta(hours=1))(nightly)()

one_task()
"""


class Airflow:
    """An Airflow in a folder, with made-up credentials and no network but loopback."""

    def __init__(self, folder: Path, python: Path, endpoint: str) -> None:
        self.home, self.python, self.endpoint = folder / "airflow", python, endpoint
        (self.home / "dags").mkdir(parents=True)
        self.env = environment(folder) | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AWS_ENDPOINT_URL": endpoint,
        }
        # Airflow has packages of its own, and the examples name their state folders.
        del self.env["PYTHONPATH"], self.env["BATCH_SNAPSHOT_STATE_DIR"]
        self.airflow("db", "migrate")

    def airflow(self, *words: str) -> str:
        done = subprocess.run(
            [self.python, "-m", "airflow", *words],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        return done.stdout

    def test(self, dag: str, source: str, folder: Path) -> tuple[str, list[tuple[str, int]], str]:
        """Run a DAG: the state of its run, its tasks by state and number of tries, and the log."""
        (self.home / "dags" / f"{dag}.py").write_text(source.replace("/srv/snapshots", str(folder)), "utf-8")
        log = self.airflow("dags", "test", dag)
        runs = self.read("SELECT run_id, state FROM dag_run WHERE dag_id = ? ORDER BY id", dag)
        if not runs:
            raise SystemExit(f"{log}\n{dag} did not run")
        [*_, (run, state)] = runs
        asked = "SELECT state, try_number FROM task_instance WHERE run_id = ? ORDER BY map_index"
        return state, self.read(asked, run), log

    def read(self, query: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(self.home / "airflow.db")) as db:
            return db.execute(query, values).fetchall()

    def made(self) -> Counter[str]:
        """How many snapshots of each engagement the simulator has made."""
        with urllib.request.urlopen(f"{self.endpoint}/_simulator/record", timeout=10) as answer:
            return Counter(snapshot["engagement"] for snapshot in json.load(answer)["snapshots"])


def expect(what: str, found: object, wanted: object) -> None:
    said = "ok   " if found == wanted else "WRONG"
    sys.stdout.write(f"{said} {what}: {found}\n")
    sys.stdout.flush()
    if found != wanted:
        raise SystemExit(f"expected: {wanted}")


class Checks:
    """What the examples must do, and the snapshots that must have been made after each."""

    def __init__(self, airflow: Airflow, root: Path) -> None:
        self.airflow, self.root = airflow, root
        self.wanted: Counter[str] = Counter()

    def place(self, name: str, *accounts: str, quota: int | None = None) -> Path:
        """A folder with a manifest of four rows an account; the first one has this quota a minute."""
        folder = self.root / name
        folder.mkdir()
        begun = len(self.wanted)
        rows = [
            pair | {"account": account}
            for n, account in enumerate(accounts)
            for pair in pairs(4, begun + n * 4)
        ]
        settings: dict[str, Any] = {account: {} for account in accounts}
        if quota:
            settings[accounts[0]] = {"quota": {"per_minute": quota}}
        write_manifest(folder / "nightly.yaml", rows, name="nightly", accounts=settings)
        self.wanted += Counter(row["engagement"] for row in rows)
        return folder

    def made_once(self) -> None:
        made = self.airflow.made()
        expect("each row has one snapshot", (made == self.wanted, made.total()), (True, len(self.wanted)))

    def one_task_an_account(self) -> None:
        source, dag = block("airflow accounts"), "nightly_snapshots"
        soon = source.replace("timedelta(hours=1)", "timedelta(seconds=5)")

        folder = self.place("good", "main", "acme")
        state, tasks, _ = self.airflow.test(dag, source, folder)
        expect("the page unchanged", (state, tasks), ("success", [("success", 1)] * 2))
        ledgers = sorted(path.name[: -len("-2026-01-30.ndjson")] for path in folder.glob("ledgers/*.ndjson"))
        expect("ledgers", ledgers, ["nightly-acme", "nightly-main"])
        [(when,)] = self.airflow.read("SELECT next_dagrun FROM dag WHERE dag_id = ?", dag)
        expect("Airflow would begin it at", str(when)[11:16], "02:17")
        self.made_once()

        state, tasks, log = self.airflow.test(dag, soon, self.place("deferred", "main", "acme", quota=3))
        tried = tasks[0][1] > 1 and "exit code 4: tried again" in log
        expect("a spent quota is tried again", (state, tried, tasks[1]), ("success", True, ("success", 1)))
        self.made_once()

        state, tasks, log = self.airflow.test(dag, soon, self.place("unknown", "main"))
        expect("a mistake is not", (state, tasks), ("failed", [("success", 1), ("failed", 1)]))
        named = "acme" in log and "exit code 2: the log says what to fix" in log
        expect("the log names it", named, wanted=True)
        self.made_once()

        folder = self.place("locked", "main", "acme")
        with self.other_run(folder):
            state, tasks, log = self.airflow.test(dag, soon, folder)
        tried = tasks[0][1] > 1 and "exit code 5: tried again" in log
        expect("a lock is waited for", (state, tried, tasks[1]), ("success", True, ("success", 1)))
        self.made_once()

    @contextmanager
    def other_run(self, folder: Path) -> Iterator[None]:
        """A run of the same rows in another process, which takes a minute."""
        words = ["batch-snapshot", "run", f"{folder}/nightly.yaml", "--accounts", "main", "--rate", "0.05"]
        words += ["--ledger", f"{folder}/ledgers/{{name}}-main-{{date}}.ndjson", "--progress", "none"]
        words += ["--state-dir", f"{folder}/state/main"]
        with subprocess.Popen(words, env=self.airflow.env, stdout=subprocess.DEVNULL) as other:
            while not any(folder.glob("ledgers/*.ndjson")):
                if other.poll() is not None:
                    raise SystemExit("the other run has ended")
            yield

    def one_task(self) -> None:
        source = block("airflow") + ONE_TASK
        folder = self.place("one", "main", "acme", quota=3)
        state, tasks, _ = self.airflow.test("one_task", source, folder)
        expect("one task that waits for a quota", (state, tasks), ("success", [("success", 1)]))
        self.made_once()
        (folder / "nightly.yaml").write_text("version: 1\nname: nightly\npears: []\n", "utf-8")
        state, tasks, log = self.airflow.test("one_task", source, folder)
        expect("a mistake is not tried again", (state, tasks), ("failed", [("failed", 1)]))
        expect("the log names it", "nightly.yaml:3" in log, wanted=True)


def installed(folder: Path) -> Path:
    """A Python with Airflow and this package."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    packages = [f"apache-airflow=={VERSION}", str(ROOT)]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def main() -> None:
    lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=lines)
    parser.add_argument("--python", type=Path, help="a Python that has Airflow and this package")
    chosen = parser.parse_args().python
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with new_folder() as root, served(["batch-snapshot", "simulate"], root) as endpoint:
        checks = Checks(Airflow(root, chosen or installed(root), endpoint), root)
        checks.one_task_an_account()
        checks.one_task()


if __name__ == "__main__":
    main()
