"""Commands to an active run: a Unix socket that the run serves, and the request of `control`.

The socket is in the state folder, and only the run's user can open it. A request and its answer are one JSON
object each, on a line. A command is in the ledger before it takes effect.
"""

import errno
import json
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from batch_snapshot import files, paths
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.engine.pool import Engine
from batch_snapshot.errors import InputError, file_errors
from batch_snapshot.jobs.recorder import Recorder
from batch_snapshot.ledger import locks, reader
from batch_snapshot.models import LARGEST_CONCURRENCY
from batch_snapshot.text import plural, shell_argument

#: Called with each command that took effect, as a sentence and its facts by name.
Notify = Callable[[str, Mapping[str, Any]], None]

#: Seconds for a request and its answer.
TIMEOUT = 10.0
#: Seconds for which the end of the run waits until an answer is taken.
ANSWERED_WITHIN = 1.0
#: Bytes of a request or an answer.
LONGEST = 4096
#: Bytes of a socket's path that every system accepts; Linux takes 107, macOS 103.
LONGEST_PATH = 100
#: Calls a second.
LOWEST_RATE, HIGHEST_RATE = 1e-6, 999_999.0


class Command(NamedTuple):
    action: str
    value: float | None = None
    account: str | None = None


def parse(action: str, value: str | None, account: str | None = None) -> Command:
    if action not in {"pause", "resume", "drain", "rate", "concurrency"}:
        raise InputError(
            f"{action!r} is not an action: give pause, resume, drain, rate CALLS-A-SECOND or "
            "concurrency CALLS"
        )
    if account is not None and action != "rate":
        raise InputError(f"--account is for rate; {action} applies to the whole run: leave out --account")
    given, number = f"{action} {value}" if value else action, 0.0
    with suppress(ValueError):
        number = float(value or "")
    if action == "rate":
        if not LOWEST_RATE <= number <= HIGHEST_RATE:
            raise InputError(f"{given}: give calls a second from 0.000001 to 999999, such as 2.5")
        return Command(action, number, account)
    if action == "concurrency":
        if not (1 <= number <= LARGEST_CONCURRENCY and number.is_integer()):
            most = f"{LARGEST_CONCURRENCY:,}"
            raise InputError(f"{given}: give a whole number of calls in flight, from 1 to {most}")
        return Command(action, int(number))
    if value is not None:
        raise InputError(f"{action} takes no value: leave {value!r} out")
    return Command(action)


@dataclass(frozen=True, slots=True)
class Controller:
    engine: Engine
    limits: AccountLimits
    recorder: Recorder
    notify: Notify

    def carry_out(self, command: Command, user: int) -> str:
        """Record a command, let it take effect, and describe the effect; one that is refused is not recorded.

        If it cannot be recorded, the `StorageError` ends the run.
        """
        engine = self.engine
        if command.action != "drain" and not engine.steerable:
            raise InputError("a run on a cluster takes only drain: drain it, then run it with other options")
        if engine.stop is not None:
            raise InputError(f"the run is stopping ({engine.stop.reason}): start it again when it has ended")
        if command.account is not None and command.account not in engine.accounts:
            raise InputError(f"account {command.account!r}: this run calls for {', '.join(engine.accounts)}")
        self.recorder.control(command.action, user, value=command.value, account=command.account)
        text = self._apply(command)
        self.notify(f"control: {text}", command._asdict() | {"by": user})
        return text

    def _apply(self, command: Command) -> str:
        engine, value = self.engine, command.value or 0
        match command.action:
            case "pause":
                engine.pause()
                flying = engine.in_flight
                calls = f"{plural(flying, 'call')} in flight can finish" if flying else "no call is in flight"
                return f"paused: no further call begins, and {calls}; resume continues"
            case "resume":
                engine.resume()
                return "resumed"
            case "drain":
                engine.request_stop(Stop(StopKind.DEFERRED, "drained by `control`"))
                return "draining: no further row is sent; calls in flight can finish"
            case "concurrency":
                engine.set_concurrency(int(value))
                return f"at most {plural(int(value), 'call')} in flight"
        names = [command.account] if command.account else list(engine.accounts)
        for name in names:
            self.limits.declare_rate(engine.accounts[name], value)
        return f"{value:g} call{'s' * (value != 1)}/s declared for {', '.join(names)}"

    async def serve(self) -> None:
        try:
            job = self.recorder.job
            path = paths.control_socket(paths.state_folder(job.options.state_dir, os.environ), job.path)
            elsewhere = "name another folder with --state-dir"
            with file_errors(path.parent, elsewhere, InputError, "cannot be used"):
                files.make_folder(path.parent)
                path.parent.chmod(stat.S_IRWXU)
                with _short(path) as short:
                    listener = await anyio.create_unix_listener(short, mode=0o600)
        except InputError as error:
            self.notify(f"control is not possible in this run: {error}", {})
            return
        try:
            async with listener:
                await listener.serve(self._answer)
        finally:
            with suppress(OSError):  # what cannot be removed must not end the run
                path.unlink(missing_ok=True)
                # A simulated run leaves nothing in the state folder of real runs.
                path.parent.rmdir()
                path.parent.parent.rmdir()

    async def _answer(self, stream: SocketStream) -> None:
        async with stream:
            with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError):
                with anyio.fail_after(TIMEOUT):
                    answer = await self._carry_out_next(stream)
                # A run that drains ends at once if no call is in flight.
                with anyio.move_on_after(ANSWERED_WITHIN, shield=True):
                    await stream.send(json.dumps(answer).encode() + b"\n")

    async def _carry_out_next(self, stream: SocketStream) -> dict[str, str]:
        try:
            given = json.loads(await BufferedByteReceiveStream(stream).receive_until(b"\n", LONGEST))
            value = given.get("value")
            command = parse(given["action"], None if value is None else str(value), given.get("account"))
            return {"done": self.carry_out(command, _user_of(stream))}
        except InputError as error:
            return {"refused": str(error)}
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound):
            return {"refused": "a request is one line"}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {"refused": "the request is not valid"}


def _user_of(stream: SocketStream) -> int:
    """The user who asks. If the system cannot say: the socket's owner, as only root could open it too."""
    if sys.platform != "linux":
        return os.getuid()
    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django's
    _, user, _ = struct.unpack(
        "3i", raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return int(user)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A path of the socket that the system accepts; one that is too long leads through its open folder."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not Path("/proc/self/fd").is_dir():
            raise OSError(errno.ENAMETOOLONG, "too long for a socket: name a shorter --state-dir")
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def send(ledger: Path, state_dir: Path | None, command: Command) -> str:
    """Send a command to the run that writes `ledger`; returns what it did.

    Without `state_dir` the run's state folder is the one that the ledger names, or the default.
    """
    recorded = reader.last_header(ledger).settings.get("state_dir")
    state = paths.state_folder(state_dir or (Path(recorded) if recorded else None), os.environ)
    request = json.dumps(command._asdict()).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX) as run, _short(paths.control_socket(state, ledger)) as short:
            run.settimeout(TIMEOUT)
            run.connect(short)
            run.sendall(request)
            with run.makefile("rb") as file:
                answer = json.loads(file.readline(LONGEST))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        why = (
            f"the run that writes it takes no commands in {state}: it has not begun to call or is ending, it "
            "is on another machine, or its state folder is another one (name that with --state-dir)"
        )
        if not locks.is_held(paths.ledger_lock(ledger)):
            why = "no run is writing it, so there is nothing to control; run or retry it first"
        raise InputError(f"{ledger}: {why}") from None
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or "the run ended, or does not answer"
        see = f"to see its state: batch-snapshot status {shell_argument(ledger)}"
        raise InputError(f"{ledger}: {why}; {see}") from None
    if "done" not in answer:
        raise InputError(f"{ledger}: {answer.get('refused')}")
    return str(answer["done"])
