"""MFA codes: asked for at the terminal, while everything else goes on.

botocore asks for a code in the middle of getting credentials, by a plain function that would block the
event loop. Here that function raises `CodeNeededError` instead; then a person is asked, and the
credentials are fetched anew with the code.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Ask = Callable[[str], Awaitable[str]]

T = TypeVar("T")

#: Seconds for a person to type a code; they are no part of any call's time-out.
PATIENCE = 300.0

#: Longest answer that is read, in bytes; a code has six digits.
LONGEST = 256


class CodeNeededError(Exception):
    """Credentials need a code that is not at hand yet."""

    def __init__(self, prompt: str) -> None:
        """Take what botocore would have asked."""
        super().__init__(prompt)
        self.prompt = prompt


class MfaCodeError(Exception):
    """No code can be had; the message says why, and quotes no secret."""


class Codes(dict[str, str]):
    """Codes by prompt; in the place of `getpass` where botocore asks for one."""

    def __call__(self, prompt: str) -> str:
        """The code.

        Raises:
            CodeNeededError: it has to be asked for first.
        """
        if prompt not in self:
            raise CodeNeededError(prompt)
        return self[prompt]

    def serve(self, chain: Any) -> None:
        """Let a credential chain of botocore's ask here."""
        chain.get_provider("assume-role")._prompter = self  # noqa: SLF001 - botocore offers no other way


async def with_codes(
    get: Callable[[Codes], Awaitable[T]], turn: anyio.Lock, refused: dict[str, MfaCodeError]
) -> T:
    """Get something that may need codes, each of which is asked for once.

    Args:
        get: gets it, or raises `CodeNeededError`.
        turn: held while a person is asked: one prompt at a time.
        refused: prompts that nobody answered: they are not repeated for other accounts.

    Raises:
        MfaCodeError: nobody can be asked, or nobody answered.
    """
    codes = Codes()
    while True:
        try:
            return await get(codes)
        except CodeNeededError as needed:
            prompt = needed.prompt
        async with turn:
            if prompt in refused:
                raise refused[prompt]
            try:
                with anyio.fail_after(PATIENCE):
                    codes[prompt] = await asking.get()(f"{prompt.rstrip(': ')} ({PATIENCE / 60:g} min): ")
            except TimeoutError:
                refused[prompt] = MfaCodeError(f"no MFA code was typed within {PATIENCE / 60:g} min")
            except MfaCodeError as error:
                refused[prompt] = error
            if prompt in refused:
                raise refused[prompt]


async def ask(prompt: str) -> str:
    """Ask at the terminal without an echo; the event loop goes on meanwhile.

    Raises:
        MfaCodeError: there is no terminal, or it was closed.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        raise MfaCodeError(
            "the profile needs an MFA code, and there is no terminal to ask for it: start the command in "
            "one, or let a profile without mfa_serial, or temporary credentials, sign"
        ) from None
    try:
        with _without_echo(terminal):
            os.write(terminal, prompt.encode("utf-8", "replace"))
            await anyio.wait_readable(terminal)
            code = os.read(terminal, LONGEST).decode("utf-8", "replace").strip()
            if code:
                return code
    except OSError as error:
        raise MfaCodeError(f"the terminal could not be read ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            os.close(terminal)
    raise MfaCodeError("no MFA code was typed")


@contextmanager
def _without_echo(terminal: int) -> Iterator[None]:
    import termios  # noqa: PLC0415 - POSIX alone has it

    try:
        before = termios.tcgetattr(terminal)
    except termios.error as error:
        raise OSError(*error.args) from None
    silent = [*before]
    silent[3] = before[3] & ~termios.ECHO
    try:
        # What was typed before the prompt is no code.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        yield
    finally:
        # The line's end was not echoed either.
        with suppress(OSError, termios.error):
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
            os.write(terminal, b"\n")


#: Who asks a person; the command line clears its display for it.
asking: ContextVar[Ask] = ContextVar("asking", default=ask)
