"""The machine's clocks."""

import time
from datetime import UTC, datetime
from pathlib import Path


def utc_now() -> datetime:
    """The wall clock: an aware datetime in UTC."""
    return datetime.now(UTC)


def unix_time() -> float:
    """The wall clock: seconds since 1970."""
    return time.time()


def seconds_since_boot() -> float:
    """Seconds that never run backwards in one boot, the same for all its processes.

    They count the time that the machine sleeps, where its kernel offers such a clock.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def boot_id() -> str | None:
    """A name that lasts until the next boot; None: this machine has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None
