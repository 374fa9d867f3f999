"""Installs the package of dist/ as users do, each time into an empty folder, and uses what was installed.

    .ci/run wheel && python -m tests.e2e.packages

sdist and wheel by pip, pipx and uv; then each extra, without which the program says how to install it.
This needs what installs need. It ends with 0, or with 1 and the first step that failed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from tests import ROOT
from tests.bench.processes import served
from tests.support.webhook_server import serve_webhook

#: Seconds for one command; an install may download some 50 MB.
WITHIN = 300

PROGRAM = "batch-snapshot"
RUN = ("run", "manifests/demo.yaml", "--progress", "none", "--ledger", "{name}.ndjson")


class FailedError(Exception):
    """A command did not do what it should; the message says which, and what it printed."""


class Folder:
    """An empty folder, in which no configuration of this machine's AWS accounts and tools is used."""

    def __init__(self, path: Path, **environ: str) -> None:
        (path / "bin").mkdir(parents=True)
        shutil.copytree(ROOT / "manifests", path / "manifests")
        foreign = ("AWS_", "BATCH_SNAPSHOT_", "OTEL_", "PYTHON", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.path = path
        self.environ = {
            **kept,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE000000000",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-example",
            "XDG_STATE_HOME": str(path / "state"),
            "UV_TOOL_DIR": str(path / "tools"),
            "UV_TOOL_BIN_DIR": str(path / "bin"),
            "UV_LINK_MODE": "copy",
            "PIPX_HOME": str(path / "tools"),
            "PIPX_BIN_DIR": str(path / "bin"),
            "PIPX_MAN_DIR": str(path / "man"),
            **environ,
        }

    def run(self, *command: str | Path, code: int = 0, **environ: str) -> str:
        """Run a command to its end; what it printed."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.path,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        if done.returncode != code:
            words = " ".join(map(str, command))
            raise FailedError(f"{words}\nended with {done.returncode}, not {code}:\n{done.stdout}")
        return done.stdout


def used(folder: Folder, version: str) -> None:
    """What an installed program must be able to do, whatever installed it."""
    program = folder.path / "bin" / PROGRAM
    printed = folder.run(program, "--version")
    expect(printed.startswith(f"{PROGRAM} {version}\nPython 3."), f"--version printed:\n{printed}")
    folder.run(program, *RUN, "--simulate")
    [ledger] = folder.path.glob("*.ndjson")
    rows = ledger.read_text("utf-8").count('"status":"succeeded"')
    expect(rows == 40, f"{rows} of the demo's 40 rows succeeded")
    # The page's templates come with the package.
    folder.run(program, "report", ledger, "--html", "report.html")


def expect(fact: bool, otherwise: str) -> None:  # noqa: FBT001 - it reads as assert does
    if not fact:
        raise FailedError(otherwise)


# -- installers -------------------------------------------------------------------------------------------


def pip(tools: Path, folder: Folder, package: str) -> None:
    folder.run(tools / "uv", "venv", "--quiet", "--seed", "--python", sys.executable, folder.path / "pip")
    folder.run(folder.path / "pip/bin/pip", "install", "--quiet", package)
    folder.run(folder.path / "pip/bin/pip", "check")
    (folder.path / "bin" / PROGRAM).symlink_to(folder.path / "pip/bin" / PROGRAM)


def pipx(tools: Path, folder: Folder, package: str) -> None:
    folder.run(tools / "pipx", "install", "--python", sys.executable, package)


def uv(tools: Path, folder: Folder, package: str) -> None:
    folder.run(tools / "uv", "tool", "install", "--quiet", "--python", sys.executable, package)


INSTALLERS: tuple[Callable[[Path, Folder, str], None], ...] = (pip, pipx, uv)


# -- extras -----------------------------------------------------------------------------------------------


def with_dask(folder: Folder, program: Path, *, installed: bool) -> str:
    return folder.run(program, *RUN, "--simulate", "--engine", "dask", code=0 if installed else 2)


def with_otel(folder: Folder, program: Path, *, installed: bool) -> str:
    with serve_webhook() as collector:
        printed = folder.run(program, *RUN, "--simulate", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    received = [one.path for one in collector.received]
    expect(received == ["/v1/metrics"] * installed, f"the collector received {received}:\n{printed}")
    return printed


def with_parquet(folder: Folder, program: Path, *, installed: bool) -> str:
    with served([str(program), "simulate"], folder.path) as url:
        folder.run(program, *RUN, "--endpoint-url", url)
        export = ("export", "demo.ndjson", "--output", "snapshots.parquet", "--endpoint-url", url)
        printed = folder.run(program, *export, code=0 if installed else 2)
    kept = folder.path / "snapshots.parquet"
    expect(kept.exists() == installed, f"export wrote {'no' if installed else 'a'} file:\n{printed}")
    return printed


def with_uvloop(folder: Folder, program: Path, *, installed: bool) -> str:
    printed = folder.run(program, *RUN, "--simulate", PYTHONPROFILEIMPORTTIME="1")
    imported = re.search(r"\| +uvloop$", printed, re.MULTILINE) is not None
    expect(imported == installed, f"uvloop was {'not ' * installed}imported")
    return printed


#: By extra: a command that uses it, and whether the command names the extra where it is missing.
EXTRAS = {
    "dask": (with_dask, True),
    "otel": (with_otel, True),
    "parquet": (with_parquet, True),
    "uvloop": (with_uvloop, False),
}


# -- all of it --------------------------------------------------------------------------------------------


def main() -> int:
    began = monotonic()
    [wheel], [sdist] = (ROOT / "dist").glob("*.whl"), (ROOT / "dist").glob("*.tar.gz")
    version = sdist.name.removesuffix(".tar.gz").rpartition("-")[2]
    with tempfile.TemporaryDirectory(prefix="packages-") as name:
        work = Path(name)
        subprocess.run([sys.executable, "-m", "venv", work / "installers"], check=True)
        tools = work / "installers/bin"
        subprocess.run([tools / "pip", "install", "--quiet", "pipx", "uv"], check=True)
        step = ""
        try:
            for install in INSTALLERS:
                for package in (wheel, sdist):
                    step = f"{install.__name__} install {package.name}"
                    folder = Folder(work / step.replace(" ", "-"))
                    install(tools, folder, str(package))
                    used(folder, version)
                    sys.stdout.write(f"{step}: ok, {monotonic() - began:.0f} s\n")
            for extra, (use, is_named) in EXTRAS.items():
                for wanted in ("", f"[{extra}]"):
                    step = f"{extra}, {'installed' if wanted else 'missing'}"
                    folder = Folder(work / f"{extra}{len(wanted)}")
                    uv(tools, folder, f"batch-snapshot{wanted} @ {wheel.as_uri()}")
                    printed = use(folder, folder.path / "bin" / PROGRAM, installed=bool(wanted))
                    named = f"uv tool install 'batch-snapshot[{extra}] @ git+https:" in printed
                    expect(named == (is_named and not wanted), f"the extra is named wrongly in:\n{printed}")
                    sys.stdout.write(f"{step}: ok, {monotonic() - began:.0f} s\n")
        except (FailedError, subprocess.TimeoutExpired) as error:
            sys.stderr.write(f"packages: failed at: {step}\n{error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
