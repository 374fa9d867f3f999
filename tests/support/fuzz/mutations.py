"""Changes that keep JSON lines well-formed: bytes that are changed at random hardly ever are."""

import json
from random import Random
from typing import Any

#: What may stand where something else was meant to.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**63, 2**64, 0.5, 1e308, "", "x", "\0", "a\nb", "../x", "\u2028",
    "succeeded", "failed", "in_doubt", "transient", "run", "intent", "result", "end", "completed",
    "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "2026-03-01T12:00:00", "0000-00-00",
    "\x1b[31m", "\u202e", "x" * 300, [], {}, [[]], {"": {}}, "@@",
)  # fmt: skip

#: No encoder writes these: they stand in the place of "@@".
RAW = [b"1e999", b"NaN", b"-Infinity", b'"\\ud800"', b"9" * 5000, b"[" * 100_000, b"[" * 300 + b"]" * 300]


def change_lines(data: bytes, rng: Random) -> bytes:
    """The lines with one of them removed, doubled, moved, or with a value in it that is another."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    way = rng.randrange(6)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    elif way == 2:
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    else:
        lines[at] = _respelt(lines[at], rng)
    return b"\n".join(lines)


def _respelt(line: bytes, rng: Random) -> bytes:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return line
    place = record
    while isinstance(place, dict | list) and place:
        key: Any = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
            place = place[key]
            continue
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(VALUES)
        break
    changed = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return changed.replace(b'"@@"', rng.choice(RAW))
