"""Asks for MFA codes at the terminal without blocking the event loop.

botocore asks for a code in the middle of getting credentials, by a blocking function. Here that function
raises `CodeNeededError`; then a person is asked, and the credentials are fetched again with the code.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio

from batch_snapshot.aws import sdk

Ask = Callable[[str], Awaitable[str]]

T = TypeVar("T")

#: Seconds for a person to type a code; no call's time-out includes them.
PATIENCE = 300.0

#: Longest answer that is read, in bytes; a code has six digits.
LONGEST = 256


@dataclass(eq=False)
class CodeNeededError(Exception):
    """Credentials need a code that was not asked for yet."""

    prompt: str


class MfaCodeError(Exception):
    """There is no code; the message says why, and holds no secret."""


class Codes(dict[str, str]):
    """Codes by prompt; botocore calls it in place of `getpass`."""

    def __call__(self, prompt: str) -> str:
        if prompt not in self:
            raise CodeNeededError(prompt)
        return self[prompt]

    def serve(self, chain: Any) -> None:
        """Give the codes to a credential chain of botocore's."""
        sdk.replace(
            chain.get_provider("assume-role"), "_prompter", self, "all calls wait while an MFA code is typed"
        )


async def with_codes(
    get: Callable[[Codes], Awaitable[T]], prompt_lock: anyio.Lock, refused: dict[str, MfaCodeError]
) -> T:
    """Get something that may need codes, each of which is asked for once.

    There is one prompt at a time: `prompt_lock` is held while a person is asked. Prompts without an answer
    are added to `refused`, and are not repeated for other accounts: they raise `MfaCodeError`.
    """
    codes = Codes()
    while True:
        try:
            return await get(codes)
        except CodeNeededError as needed:
            prompt = needed.prompt
        async with prompt_lock:
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
    """Ask at the terminal without an echo, and without blocking the event loop."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        raise MfaCodeError(
            "the profile needs an MFA code, and there is no terminal to ask for it: start the command in "
            "a terminal, or use temporary credentials or a profile without mfa_serial"
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
    import termios  # POSIX alone has it

    try:
        before = termios.tcgetattr(terminal)
    except termios.error as error:
        raise OSError(*error.args) from None
    silent = [*before]
    silent[3] = before[3] & ~termios.ECHO
    try:
        # What was typed before the prompt is discarded.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        yield
    finally:
        # The end of the line was not echoed.
        with suppress(OSError, termios.error):
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
            os.write(terminal, b"\n")


#: Asks a person; the command line replaces it to clear its display first.
asking: ContextVar[Ask] = ContextVar("asking", default=ask)
