"""Results go to stdout, everything else to stderr; neither ever ends a run.

The only place that prints.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

PROG = "batch-snapshot"


def unprinted(error: OSError, code: int) -> int:
    """Standard output takes no more: say so if anybody reads, and keep the exit code of the work."""
    if not isinstance(error, BrokenPipeError):
        say(f"standard output cannot be written ({error.strerror or error})")
    silence(1)
    return code


def say(text: str) -> None:
    """Write a line to standard error."""
    write(shown(text) + "\n")


def write(text: str) -> None:
    """Write to standard error; where nobody can read it, the work goes on all the same."""
    if sys.stderr is None:
        return
    try:
        click.echo(text, err=True, nl=False)
    except OSError:
        silence(2)


def silence(stream: int) -> None:
    """Let a stream that takes no more take all: Python writes what is left of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def shown(text: str) -> str:
    """The text with nothing in it that drives a terminal: ledgers and answers can hold anything."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def warn(warnings: Sequence[str], total: int) -> None:
    """Write the warnings that are at hand, and how many more there are."""
    for warning in warnings:
        say(f"warning: {warning}")
    if total > len(warnings):
        say(f"warning: … and {total - len(warnings):,} more")


def print_json(value: dict[str, Any]) -> None:
    """Write one object to standard output."""
    click.echo(json.dumps(value, indent=2))
