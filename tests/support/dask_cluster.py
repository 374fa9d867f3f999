"""A Dask cluster as its users run it: `dask scheduler` and `dask worker`, each a process."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.fork_server import ForkedProcess, ProcessSpec
from tests.support.processes import Child, fork_server, until


class Cluster:
    """A scheduler and its workers."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = env
        self._file = folder / "scheduler.json"
        self._running: list[Process | ForkedProcess] = []
        self.workers: list[Process | ForkedProcess] = []
        self.scheduler: Process | ForkedProcess | None = None

    @property
    def address(self) -> str:
        address: str = json.loads(self._file.read_text("utf-8"))["address"]
        return address

    async def start(self) -> None:
        """Start the scheduler, on a port of its own."""
        self._file.unlink(missing_ok=True)
        self.scheduler = await self._process(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(self._file),
        )
        await until(
            lambda: self._file.exists() and self._file.read_text("utf-8").rstrip().endswith("}"), "Dask"
        )

    def lose_scheduler(self) -> None:
        assert self.scheduler is not None
        self.scheduler.kill()

    async def work(self, number: int = 1, **more: str) -> None:
        """Start more workers, with more in their environment."""
        for _ in range(number):
            self.workers.append(
                await self._process(
                    "worker",
                    self.address,
                    *("--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"),
                    **more,
                )
            )

    async def _process(self, kind: str, *arguments: str, **more: str) -> Process | ForkedProcess:
        nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.DEVNULL)
        spec = ProcessSpec([kind, *arguments], str(self._folder), {**self._env, **more}, module="dask")
        start = fork_server(dask=True).start if not more else _interpreted
        process = await start(spec, **nowhere)
        self._running.append(process)
        return process

    async def close(self) -> None:
        for process in self._running:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _interpreted(spec: ProcessSpec, **streams: Any) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", spec.module, *spec.arguments),
        cwd=spec.folder,
        env=spec.environment,
        **streams,
    )


@asynccontextmanager
async def cluster(folder: Path, env: Mapping[str, str], workers: int = 2) -> AsyncIterator[Cluster]:
    """A cluster for the length of the block."""
    made = Cluster(folder, env)
    try:
        await made.start()
        await made.work(workers)
        yield made
    finally:
        await made.close()


def own_workers(child: Child) -> list[psutil.Process]:
    """The worker processes of the cluster that a run has started for itself."""
    return [
        process
        for process in psutil.Process(child.pid).children(recursive=True)
        if "spawn_main" in _line(process)
    ]


def _line(process: psutil.Process) -> str:
    """Its command line; none if it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def alive(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
