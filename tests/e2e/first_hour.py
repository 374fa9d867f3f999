"""The first hour of a new user: a fresh clone, then every command of README.md, from install to report.

    python -m tests.e2e.first_hour

The commands are read out of README.md and run by bash, so this needs what an install needs, and takes a
minute or two. It ends with 0, or with 1 and the first step that did not do what README.md says.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests import ROOT
from tests.docs import shell
from tests.docs.pages import Block, blocks

#: Seconds for all commands, the install included.
WITHIN = 540

#: What the commands leave in the clone: each file, and what stands in it.
LEFT = {
    "ledgers/demo.simulated.ndjson": '"outcome":"completed"',
    "ledgers/deals.simulated.ndjson": '"status":"succeeded"',
    "deals.html": "deals: completed, 10 of 10 rows succeeded",
    "units/batch-snapshot-deals.timer": "OnCalendar=",
}


def steps(page: tuple[Block, ...], text: str) -> list[shell.Step]:
    """The install and the demo, command by command; then all other commands, with the demo's program."""
    [demo] = [block for block in page if block.named == "demo"]
    path = re.search(r'`(PATH="[^`]+")`', text)
    assert path, "README.md says nowhere how the demo's program gets onto the PATH"
    install = [command.strip() for command in demo.text.replace("\\\n", "").split("&&")]
    return [shell.Step(demo, command) for command in (*install, path[1])] + shell.steps(page)


def environment(home: Path) -> dict[str, str]:
    """That of this process without its AWS account and virtual environment; its state folder is new."""
    foreign = ("AWS_", "BATCH_SNAPSHOT_", "PYTHON", "VIRTUAL_ENV", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    mine = str(Path(sys.executable).parent)
    path = os.pathsep.join(one for one in kept["PATH"].split(os.pathsep) if one != mine)
    return {**kept, "PATH": path, "XDG_STATE_HOME": str(home), "AWS_CONFIG_FILE": os.devnull}


def _clone(folder: Path) -> None:
    """Clone the repository; without one, copy the files that a clone would have."""
    if (ROOT / ".git").exists():
        here = ["git", "-c", f"safe.directory={ROOT / '.git'}", "-c", f"safe.directory={ROOT}"]
        subprocess.run([*here, "clone", "--quiet", str(ROOT), str(folder)], check=True)
    else:
        shutil.copytree(
            ROOT, folder, ignore=shutil.ignore_patterns(".venv", "dist", ".*_cache", "__pycache__")
        )


def main() -> int:
    began = monotonic()
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        clone = Path(name) / "batch-snapshot"
        _clone(clone)
        wanted = steps(blocks(ROOT / "README.md"), (clone / "README.md").read_text("utf-8"))
        printed = shell.output(wanted, clone, environment(Path(name) / "state"), within=WITHIN)
        try:
            shell.judge(wanted, printed)
            for file, text in LEFT.items():
                found = (clone / file).is_file() and text in (clone / file).read_text("utf-8")
                assert found, f"the end: {file} is missing, or has no {text} in it"
        except AssertionError as error:
            sys.stderr.write(f"first hour: failed at {error}\n")
            return 1
    sys.stdout.write(f"first hour: {len(wanted)} steps of README.md passed in {monotonic() - began:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
