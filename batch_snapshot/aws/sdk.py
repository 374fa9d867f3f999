"""What this package needs of the AWS libraries beyond their public interfaces.

A later version may rename a private name. Then the library's own way is used, and a warning says what that
changes. If certificates could no longer be verified, nothing is sent.
"""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from importlib.metadata import version
from typing import Any

#: Takes warnings; the command line replaces it.
warn: ContextVar[Callable[[str], None]] = ContextVar("warn", default=logging.getLogger(__name__).warning)


class UnverifiedError(Exception):
    """The installed AWS libraries may not verify certificates; nothing was sent."""

    def __init__(self, lacks: str) -> None:
        super().__init__(f"{_installed()}: certificates may not be verified, because {lacks}")


@cache
def degraded(lacks: str, effect: str) -> None:
    """Warn, once, that something is missing, and what that changes."""
    tip = "the versions in requirements.lock have it"
    warn.get()(f"{_installed()}: there is no {lacks}, so {effect}; {tip}")


def replace(owner: Any, name: str, value: Any, effect: str) -> None:
    """Replace a private attribute; if there is none of this name, warn of the effect."""
    if hasattr(owner, name):
        setattr(owner, name, value)
    else:
        degraded(f"{type(owner).__name__}.{name}", effect)


def _installed() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("aiobotocore", "botocore", "aiohttp"))
