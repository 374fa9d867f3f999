"""Pages as one HTML file each that needs nothing else: no network, no other file.

Every value is escaped: by the template engine in the page, in base64 in its data, as text by its script.
The page's Content-Security-Policy lets it load nothing and run no script but its own.

Each different text of the table in it is kept once, in its natural order, and a row has the number of its
text: sorting by a column sorts numbers, and a search looks at every different text once.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from batch_snapshot import __version__
from batch_snapshot.clock import utc_now
from batch_snapshot.reporting import charts
from batch_snapshot.text import duration, plural

#: Rows of a page's table at most.
MOST_ROWS = 100_000
PLAIN_ROWS = 1_000
#: Characters of a message in the table.
LONGEST_MESSAGE = 400


def render_table(
    name: str, made_at: datetime, data: Mapping[str, Any], *, script: str, **content: Any
) -> str:
    """Render a page with a table of `data`, which its `script` knows; it loads nothing."""
    content |= {"rows": data["rows"], "data": packed(data), "events": ""}
    return _render(name, ["table.js", script], made_at, **content)[0]


def render_live(page: str, parts: Mapping[str, str], **live: Any) -> tuple[str, str]:
    """Render a page whose parts follow the `events` of that address; returns its security policy too.

    It is of a `ledger`, or loads itself again once the events are of one. Its `links` have titles. `control`
    is the address that takes commands to the run (empty: none), and the run's `accounts` can be chosen there.
    """
    sections = {name: Markup(part) for name, part in parts.items()}  # noqa: S704 - made by a template
    content = {"page": page, "sections": sections, "table": None, **live}
    text, policy = _render("page.html", ["live.js"], utc_now(), **content)
    return text, policy + "; connect-src 'self'; frame-ancestors 'none'"


def _render(name: str, scripts: Sequence[str], made_at: datetime, **content: Any) -> tuple[str, str]:
    style, script = (Markup("\n".join(map(_file, names))) for names in (["page.css"], ["page.js", *scripts]))  # noqa: S704 - our own files
    # Nothing is loaded, and only our own style and script are used.
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    own = {"style": style, "script": script, "policy": policy, "version": __version__}
    return template(name).render(content, made_at=made_at, **own), policy


def template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = (charts.amount, charts.short_time, percent, moment, minute, words, plural)
    environment.filters |= {"number": "{:,}".format, "span": duration} | {one.__name__: one for one in named}
    return environment


def _file(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def percent(share: float) -> str:
    """Neither 0 % for some nor 100 % for less than all."""
    return f"{min(max(share, 0.1), 99.9):.1f}\u00a0%" if 0 < share < 100 else f"{share:.0f}\u00a0%"


def words(name: str) -> str:
    return name.replace("_", " ")


def moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


# -- the table -----------------------------------------------------------------------------------------


def natural_order(text: str) -> tuple[str, str]:
    """A sort key by which O9 comes before O10."""
    return re.sub(r"[0-9]+", lambda digits: digits[0].zfill(20), text), text


def packed(columns: Mapping[str, Any]) -> str:
    """The columns as the page holds them: JSON, deflated, in base64, which is safe in a script element."""
    return base64.b64encode(zlib.compress(orjson.dumps(columns), 6)).decode()


def numbered(column: Sequence[str]) -> dict[str, Any]:
    texts = sorted(set(column), key=natural_order)
    number = {text: at for at, text in enumerate(texts)}
    return {"of": texts, "at": [number[text] for text in column]}
