"""SIGINT, SIGTERM and SIGHUP: what they do to the command that is running.

By default a signal raises `Interrupted` in the main thread. Code that must end in its own way, such as an
event loop or a run with calls in flight, registers a listener meanwhile.

Only the command line, and a run with `Hooks(signals=True)`, set signal handlers. SIGINT and SIGHUP stay
ignored where they were ignored before (nohup, background jobs of scripts). An explicit handler also makes
SIGTERM work for PID 1 of a container, to which the kernel delivers no signal without a handler.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

#: Gets a signal's number in the main thread, between any two steps of what runs there; returns whether it
#: handled the signal.
Listener = Callable[[int], bool]

T = TypeVar("T")

#: The signals that end a command.
SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds until a signal is delivered again if it came where Python cannot raise, such as in a finalizer.
AGAIN_AFTER = 0.01

#: The innermost listener is asked first.
_listeners: list[Listener] = []


class Interrupted(KeyboardInterrupt):
    """The signal of this number ended the work."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def equivalent_signal(number: int) -> int:
    """The signal whose exit code is used: a closed terminal (SIGHUP) ends a command as SIGTERM does."""
    return signal.SIGINT if number == signal.SIGINT else signal.SIGTERM


def exit_code(error: BaseException) -> int:
    return 128 + equivalent_signal(getattr(error, "number", signal.SIGINT))


def name(error: BaseException) -> str:
    return signal.Signals(getattr(error, "number", signal.SIGINT)).name


def _handle(number: int, _: object) -> None:
    for listener in reversed(_listeners):
        if listener(number):
            return
    raise Interrupted(number)


@contextmanager
def handle_signals() -> Iterator[None]:
    """Handle the signals inside the block; the earlier handlers are restored after it.

    Outside the main thread nothing is done: Python handles signals in the main thread only.
    """
    before = _install() if threading.current_thread() is threading.main_thread() else {}
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, signal.SIG_DFL if known is None else known)


def _install() -> dict[int, Any]:
    before = {}
    for number in SIGNALS:
        known = signal.getsignal(number)
        ignored = known is signal.SIG_IGN and number != signal.SIGTERM
        if known is not _handle and not ignored:
            before[number] = known
            signal.signal(number, _handle)
    return before


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def run(work: Coroutine[Any, Any, T], **backend_options: Any) -> T:
    """Run `work` in an event loop of its own, and return what it returns.

    A signal cancels `work` where it waits, so that it can clean up. Where it computes instead, such as while
    it reads a manifest of a million rows, the signal is raised there. Either way it ends as `Interrupted`.
    """
    import asyncio  # signals are handled before this is imported

    import anyio

    caught: list[int] = []

    async def carry_out() -> list[T]:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()

        def cancel(number: int) -> bool:
            caught.append(number)
            if asyncio.current_task() is task:
                raise Interrupted(number)
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)
            return True

        try:
            with listen(cancel):
                return [await work]
        except BaseException:
            if caught:
                return []
            raise

    done: list[T] = []
    try:
        done = anyio.run(carry_out, backend_options=backend_options)
    except asyncio.CancelledError:
        if not caught:
            raise
    if not done:
        raise Interrupted(caught[0])
    return done[0]


# -- a process of its own ----------------------------------------------------------------------------


def exit_on_signal(arguments: Sequence[str]) -> Callable[[], None]:
    """Handle the signals from now until the process ends; at first a signal ends it at once.

    Returns a function to call once the code that ends a command gracefully is imported.
    """

    def end(number: int) -> bool:
        text = f"interrupted ({signal.Signals(number).name})"
        with suppress(OSError):
            os.write(2, f"{_as_json(text, number) if _wants_json(arguments) else text}\n".encode())
        os._exit(128 + equivalent_signal(number))

    _install()
    sys.unraisablehook = _deliver_again
    _listeners.append(end)
    return lambda: _listeners.remove(end)


def exit_at_once_with(code: int) -> None:
    """Let a signal end the process at once from now on, with this exit code: its work is done."""
    _listeners.append(lambda _: os._exit(code))


def _deliver_again(caught: "sys.UnraisableHookArgs") -> None:
    if not isinstance(caught.exc_value, Interrupted):
        sys.__unraisablehook__(caught)
        return
    number, main = caught.exc_value.number, threading.main_thread().ident or 0
    timer = threading.Timer(AGAIN_AFTER, signal.pthread_kill, (main, number))
    timer.daemon = True
    timer.start()


def _wants_json(arguments: Sequence[str]) -> bool:
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(pair == ("--log-format", "json") or pair[0] == "--log-format=json" for pair in pairs)


def _as_json(text: str, number: int) -> str:
    import time

    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    code = 128 + equivalent_signal(number)
    return f'{{"at": "{at}", "level": "error", "event": "error", "message": "{text}", "exit_code": {code}}}'
