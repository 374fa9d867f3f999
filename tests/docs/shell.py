"""Shell blocks: their commands as the real command line parses them, and as bash runs them.

bash runs the blocks of a page in order, in a folder of the page's own. `batch-snapshot` there is a client of
the fork server, so a command costs no start of an interpreter; AWS is a simulator on loopback.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import click

from batch_snapshot.cli import cli
from tests import ROOT
from tests.docs.pages import Block
from tests.support.processes import environment, fork_server

PROGRAM = "batch-snapshot"

#: Between the outputs of two steps: a number and an exit code stand behind it.
_STEP = "\x01step"

#: Programs of examples that are not everywhere. Where `CI` is set they must be there.
TOOLS = ("curl", "jq")

#: The port that pages show; another one is used.
SHOWN_PORT = "8123"

#: Marks of blocks that other tests run, because they make their own environment.
ELSEWHERE = {"demo", "tests"}


class Step(NamedTuple):
    """What one bash statement or block is expected to do."""

    block: Block
    script: str
    code: int = 0
    #: The output that the page shows; None: it shows none.
    shown: tuple[str, ...] | None = None


# -- parsing -----------------------------------------------------------------------------------------


def commands(script: str) -> list[list[str]]:
    """The words of every command in a script, without redirections and variables."""
    plain = re.sub(r"(?<=\s)\d(?=[<>])", "", script.replace("\\\n", " ").replace("\n", "\n;"))
    lexer = shlex.shlex(plain, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if re.fullmatch(r"[<>&]*[<>][<>&]*", word):
            next(words, None)
        elif re.fullmatch(r"[();|&]+", word):
            found.append([])
        else:
            found[-1].append(word)
    return [[*_without_variables(words)] for words in found if words]


def _without_variables(words: list[str]) -> list[str]:
    count = len([*takewhile(lambda word: re.match(r"[A-Za-z_]\w*=", word), words)])
    return words[count:]


def own_commands(block: Block) -> list[list[str]]:
    """The arguments of each command of the program in a block."""
    script = block.text
    if block.language == "console":
        script = "\n".join(statement for statement, _ in console_steps(block))
    return [words[1:] for words in commands(script) if words and Path(words[0]).name == PROGRAM]


def parse(arguments: list[str]) -> None:
    """Parse arguments as the command line would, and run nothing. Raises click's errors."""
    words, passed_on = arguments, None
    if arguments[:1] == ["schedule"] and "--" in arguments:
        words, passed_on = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    with suppress(click.exceptions.Exit):
        name = next(iter(words), "")
        command = cli.commands.get(name)
        if command is None:
            cli.make_context(PROGRAM, list(words))
        else:
            command.make_context(f"{PROGRAM} {name}", list(words[1:]))
    if passed_on is not None:
        parse(["run", "MANIFEST", *passed_on])


# -- running -----------------------------------------------------------------------------------------


def console_steps(block: Block) -> list[tuple[str, tuple[str, ...]]]:
    """Each command behind `$ `, with the lines shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line.removeprefix('> ')}", [])
        else:
            assert found, f"{block.where}: output without a command"
            found[-1][1].append(line)
    return [(statement, tuple(shown)) for statement, shown in found]


def steps(blocks: tuple[Block, ...]) -> list[Step]:
    found = []
    for block in blocks:
        code = int(block.mark("exit") or 0)
        name = block.mark("file")
        if name:
            found.append(Step(block, f"cat > {shlex.quote(name)} <<'END-OF-FILE'\n{block.text}END-OF-FILE"))
        elif block.mark("not run") is not None or block.named in ELSEWHERE or lacks_tool(block):
            continue
        elif block.language == "sh" and block.named is None:
            found.append(Step(block, block.text, code))
        elif block.language == "console":
            statements = console_steps(block)
            for number, (statement, shown) in enumerate(statements, 1):
                found.append(Step(block, statement, code if number == len(statements) else 0, shown))
    return found


def lacks_tool(block: Block) -> bool:
    """Whether the block uses a program that this machine has not."""
    used = {words[0] for words in commands(block.text) if words and words[0] in TOOLS}
    missing = [tool for tool in sorted(used) if shutil.which(tool) is None]
    assert not (missing and os.environ.get("CI")), f"{block.where}: install {', '.join(missing)}"
    return bool(missing)


_CLIENT = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys
body = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
report, reporter = os.pipe()
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(os.environ["FORK_SERVER"])
    socket.send_fds(connection, [b"%8d" % len(body)], [0, 1, 2, reporter])
    connection.sendall(body)
os.close(reporter)
with open(report) as report:
    pid = int(report.readline())
    with open(os.path.join(os.environ["PROCESSES"], str(os.getpid())), "w") as file:
        file.write(str(pid))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = int(report.readline())
sys.exit(code if code >= 0 else 128 - code)
"""

#: A signal to a client is for its process, also one that the client cannot pass on.
_KILL = """
kill() {
    local word words=()
    for word; do words+=("$(cat "$PROCESSES/$word" 2>/dev/null || printf %s "$word")"); done
    builtin kill "${words[@]}"
}
"""

#: Profiles that examples name.
_AWS_CONFIG = """
[profile partner]
aws_access_key_id = AKIAEXAMPLE000000001
aws_secret_access_key = secret-of-the-partner
[profile hub]
aws_access_key_id = AKIAEXAMPLE000000002
aws_secret_access_key = secret-of-the-hub
"""


def run(page: tuple[Block, ...], folder: Path, endpoint: str) -> None:
    """Run a page's blocks. Fails at the first one that ends or prints otherwise than the page says."""
    wanted = steps(page)
    environ = {**prepare(folder), "AWS_ENDPOINT_URL_PARTNERCENTRAL_SELLING": endpoint}
    judge(wanted, output(wanted, folder, environ, within=50, functions=_KILL))


def output(
    wanted: list[Step], folder: Path, environ: dict[str, str], *, within: float, functions: str = ""
) -> str:
    """What bash prints for these steps, in order, up to the first one that fails (see `judge`)."""
    script = functions + "".join(_watched(number, step) for number, step in enumerate(wanted))
    with (folder / "output").open("w+", encoding="utf-8", errors="replace") as printed:
        process = subprocess.Popen(
            ["bash", "-uc", script.replace(SHOWN_PORT, free_port())],
            cwd=folder,
            env=environ,
            stdout=printed,
            process_group=0,
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=within)
        finally:
            # What runs in the background.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        printed.seek(0)
        return printed.read()


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def _watched(number: int, step: Step) -> str:
    """A step that ends the script if a command of it fails that should not."""
    return f"""
code=0
trap 'code=$(( code ? code : $? ))' ERR
{{ {step.script.rstrip()}
}} </dev/null 2>&1
last=$?
trap - ERR
code=$(( code ? code : last ))
printf '{_STEP} %d %d\\n' {number} $code
test $code -eq {step.code} || exit
"""


def prepare(folder: Path) -> dict[str, str]:
    """Fill the folder of a page; its environment."""
    for name in ("bin", "home", "processes"):
        (folder / name).mkdir()
    (folder / "bin" / PROGRAM).write_text(_CLIENT, "utf-8")
    (folder / "bin" / PROGRAM).chmod(0o755)
    (folder / "home" / "config").write_text(_AWS_CONFIG, "utf-8")
    (folder / "manifests").symlink_to(ROOT / "manifests")
    server = fork_server()
    environ = environment(folder)
    return {
        **environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}",
        "AWS_CONFIG_FILE": str(folder / "home" / "config"),
        "FORK_SERVER": server.address,
        "PROCESSES": str(folder / "processes"),
    }


def judge(wanted: list[Step], output: str) -> None:
    pieces = re.split(rf"{_STEP} (\d+) (\d+)\n", output)
    ended = [(pieces[at - 1], int(pieces[at + 1])) for at in range(1, len(pieces) - 1, 3)]
    for step, (printed, code) in zip(wanted, ended, strict=False):
        where = f"{step.block.where}: {step.script.strip()}"
        assert code == step.code, f"{where}\nended with {code}, not {step.code}:\n{printed}"
        if step.shown is not None:
            assert has_shape(printed, step.shown), (
                f"{where}\nprinted:\n{printed}\nthe page shows:\n" + "\n".join(step.shown)
            )
    assert len(ended) == len(wanted), f"{wanted[len(ended)].block.where}: was not reached:\n{pieces[-1]}"


# -- the shape of an output --------------------------------------------------------------------------

_DAY = r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b"
_VARIABLE = re.compile(
    rf"{_DAY}|(?<=\d\d:\d\d) (?:[A-Z]{{3,5}}|[+-]\d+)\b"
    r"|[0-9a-f]{8}-[0-9a-f-]{27}|[━─╸╺█▏▎▍▌▋▊▉]+|\d[\d.,:TZ-]*(?:ms|s|m|h|d)?\b"
)


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, times and their zones, ids, bars, spaces."""
    return " ".join(_VARIABLE.sub("#", line).split())


def has_shape(printed: str, shown: tuple[str, ...]) -> bool:
    """Whether an output is what the page shows; a line `…` stands for any lines."""
    lines = [shape(line) for line in printed.splitlines()]
    pattern = "".join(
        "(?:.*\n)*?" if line.strip() == "…" else re.escape(shape(line)).replace("…", ".*") + "\n"
        for line in shown
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def as_json(block: Block) -> list[object]:
    """The JSON values of a block: one, or one a line."""
    try:
        return [json.loads(block.text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in block.text.splitlines() if line.strip()]
