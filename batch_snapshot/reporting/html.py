"""The report as one HTML file that needs nothing else: no network, no other file.

Every value is escaped: by the template engine in the page, as JSON in its data, as text by its script.
The page's Content-Security-Policy lets it load nothing and run no script but its own.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from batch_snapshot import __version__
from batch_snapshot.reporting import charts
from batch_snapshot.reporting.html_table import PageRows, columns
from batch_snapshot.reporting.next_steps import remedy
from batch_snapshot.reporting.stats import LedgerStats
from batch_snapshot.reporting.summary import Summary, largest_first
from batch_snapshot.reporting.text import advice
from batch_snapshot.text import duration


def render(
    summary: Summary, stats: LedgerStats, rows: PageRows, *, notes: Sequence[str], made_at: datetime
) -> str:
    """Render the page; `notes` say what is missing, and why."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": "{:,}".format, "span": duration, "moment": _moment}
    style, script = _file("page.css"), _file("page.js")
    drawn = [
        *charts.over_time(stats.invocations),
        charts.latency(stats.latencies),
        charts.attempts(stats.attempts),
    ]
    groups = [
        {
            "group": group,
            "found": rows.groups[group],
            "advice": advice(group),
            "command": remedy(group, summary.ledger, summary.settings),
        }
        for group, _ in largest_first({group: found.rows for group, found in rows.groups.items()})
    ]
    return environment.get_template("page.html").render(
        notes=notes,
        made_at=made_at,
        version=__version__,
        summary=summary,
        counts=summary.counts,
        shares=charts.parts(summary.counts.as_dict()),
        stats=stats,
        header=stats.history.last,
        groups=groups,
        accounts=rows.accounts,
        calls=sum((invocation.calls for invocation in stats.invocations), Counter()),
        throttled=sum((invocation.throttled for invocation in stats.invocations), Counter()),
        charts=[chart for chart in drawn if chart],
        shown=len(rows.kept),
        total=rows.total,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=_policy(style, script),
        data=Markup(as_data(columns(rows.kept))),  # noqa: S704 - escaped there
    )


def _file(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: nothing is loaded, and only our own style and script are used."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


#: Characters that end a script element or a line of a script, and their escapes in JSON.
_UNSAFE = {b"<": b"\\u003c", b">": b"\\u003e", b"&": b"\\u0026"} | {
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}


def as_data(value: Mapping[str, Any]) -> str:
    """JSON that is safe in a script element, whatever its texts contain."""
    encoded = orjson.dumps(value)
    for raw, escaped in _UNSAFE.items():
        encoded = encoded.replace(raw, escaped)
    return encoded.decode()


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
