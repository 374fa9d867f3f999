"""Entries → rows: one entry of `pairs`, of a CSV or of an NDJSON file is one row, or several."""

from collections.abc import Mapping

from batch_snapshot.manifest import keys
from batch_snapshot.manifest.problems import ProblemCount, Report
from batch_snapshot.manifest.sections import (
    Defaults,
    as_text,
    check_account,
    check_keys,
    checked,
    completed,
    general_defaults,
    kind_of,
)
from batch_snapshot.manifest.service_model import row_input
from batch_snapshot.manifest.yaml_events import NOTHING, Fields, Items, Node, Reported, Scalar
from batch_snapshot.models import Account, Row

_KEYS = keys.names(keys.PAIR)
_CONTEXT = [key.name for key in keys.CONTEXT]
_PROBLEMS = {key.name: key.problem for key in keys.PAIR}
#: Unknown templates that are warned about in one file.
_MOST_TEMPLATES = 1000

#: What gives rows a catalog that have none.
CATALOG_HINT = "write catalog: Sandbox (or AWS) under defaults"


class Expander:
    def __init__(
        self,
        defaults: Defaults,
        accounts: Mapping[str, Account],
        report: Report,
        catalog_hint: str = CATALOG_HINT,
    ) -> None:
        self._defaults = completed(defaults, general_defaults(accounts))
        self._accounts = accounts
        self._report = report
        self._catalog_hint = catalog_hint
        self._counts: dict[str, ProblemCount] = {}
        self._warned_templates: set[str] = set()
        self._common = self._complete({})
        #: The checks of nearly all texts, without the message.
        self._ids = {key: row_input()[key].regex.fullmatch for key in ("engagement", "resource")}

    def rows(self, entry: Node) -> list[tuple[Row, int]]:
        """The rows of one entry, each with its line; not to be used if a problem was reported."""
        if type(entry) is not Fields:
            if not isinstance(entry, Reported):
                wanted = "an entry must be a mapping like {engagement: …, resource: …}"
                self._report(entry.line, f"{wanted}, not {kind_of(entry)}")
            return []
        check_keys(entry, _KEYS, "a pair", self._report)
        # Another key is a misspelt one, which was reported.
        complete = entry.nodes.keys() <= _KEYS
        missing = "engagement is missing: name one, e.g. engagement: eng-0123456789abcd" if complete else ""
        node = entry.nodes.get("engagement") or NOTHING._replace(line=entry.line)
        engagement = self._checked(node, "engagement", missing)
        resources = self._resources(entry, complete=complete)
        context = self._context(entry, len(resources))
        if not context or not engagement:
            return []
        account, catalog, resource_type, template = context
        return [
            (Row(account, catalog, engagement, resource_type, text, template), line)
            for text, line in resources
        ]

    def _resources(self, entry: Fields, *, complete: bool) -> list[tuple[str, int]]:
        """The resources, each with its line."""
        one, many = entry.get("resource"), entry.get("resources")
        nodes = many.nodes if isinstance(many, Items) else []
        missing = "resource is empty: name one, e.g. O1234567"
        if one is not None and many is not None:
            self._report(
                entry.line_of("resources"), "resource and resources cannot be used together: keep one"
            )
            return []
        if many is None:
            nodes = [one or NOTHING._replace(line=entry.line)]
            missing = "resource is missing: name one, e.g. resource: O1234567" if complete else ""
        elif not nodes and not isinstance(many, Reported):
            found = "an empty list" if isinstance(many, Items) else kind_of(many)
            wanted = "resources must be a list of ids, e.g. [O1234567, O1234568]"
            self._report(many.line, f"{wanted}, not {found}")
        return [(text, node.line) for node in nodes if (text := self._checked(node, "resource", missing))]

    def _checked(self, node: Node, key: str, if_absent: str = "") -> str:
        """The valid text; an empty one: there is none, or it was reported."""
        if type(node) is Scalar and key in self._ids and self._ids[key](node.text):
            return node.text
        text = as_text(node, key, self._report, if_absent)
        return checked(text, _PROBLEMS[key], self._report) or ""

    def _context(self, entry: Fields, rows: int) -> tuple[str, ...] | None:
        """The values of `keys.CONTEXT`; None: one is named nowhere, or it was reported."""
        own: dict[str, str] = {}
        for key in filter(_CONTEXT.__contains__, entry.nodes):
            if (node := entry.get(key)) is None:
                continue
            # An invalid one is not missing
            own[key] = self._checked(node, key)
            if key == "account":
                check_account(entry, own, self._accounts, self._report)
            elif key == "template":
                self._warn_unknown_template(own[key], node.line)
        if not own and self._common:
            return self._common
        context = self._complete(own)
        if context is None:
            self._report_missing(own, entry.line, rows)
        return context

    def _complete(self, own: Mapping[str, str]) -> tuple[str, ...] | None:
        values = [own.get(key) or self._defaults.get(key, "") for key in _CONTEXT]
        return tuple(values) if all(values) else None

    def _report_missing(self, own: Mapping[str, str], line: int, rows: int) -> None:
        """Rows without a catalog or an account are one problem a file."""
        known = ", ".join(list(self._accounts)[:10])
        wrong = {"catalog": f"without a catalog: {self._catalog_hint}"}
        if known:
            wrong["account"] = f"without an account: write account: under defaults, one of {known}"
        for key, text in wrong.items():
            if key in own or key in self._defaults:
                continue
            if key not in self._counts:
                self._counts[key] = ProblemCount(text)
                self._report(line, self._counts[key])
            self._counts[key].rows += max(rows, 1)

    def _warn_unknown_template(self, template: str, line: int) -> None:
        warned = self._warned_templates
        if template and template not in warned and len(warned) < _MOST_TEMPLATES:
            warned.add(template)
            if warning := keys.template_warning(template):
                self._report.warn(line, warning)
