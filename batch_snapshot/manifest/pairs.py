"""Entries → rows: one entry of `pairs`, of a CSV or of an NDJSON file is one row, or several."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from batch_snapshot.manifest import checks, keys
from batch_snapshot.manifest.header import (
    Defaults,
    as_text,
    check_keys,
    general_defaults,
    kind_of,
    unknown_account,
)
from batch_snapshot.manifest.problems import ProblemCount, Report
from batch_snapshot.manifest.service_model import row_input
from batch_snapshot.manifest.yaml_events import NOTHING, Fields, Items, Node, Reported, Scalar
from batch_snapshot.models import Account, Row

_KEYS = keys.names(keys.PAIR)
_CONTEXT = [key.name for key in keys.CONTEXT]
_CHECKS = keys.text_checks(keys.PAIR)
#: Unknown templates that are warned about in one file.
_MOST_TEMPLATES = 1000

#: What gives rows a catalog that have none.
CATALOG_HINT = "write catalog: Sandbox (or AWS) under defaults"

#: What the rows of an entry have in common besides the engagement: the values of `keys.CONTEXT`.
Context: TypeAlias = tuple[str, ...]


class Expander:
    def __init__(
        self,
        defaults: Defaults,
        accounts: Mapping[str, Account],
        report: Callable[[int, str | ProblemCount], None],
        warn: Report,
        catalog_hint: str = CATALOG_HINT,
    ) -> None:
        self._defaults = defaults.over(general_defaults(accounts))
        self._accounts = accounts
        self._report = report
        self._warn = warn
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
        missing = "engagement is missing: name one, e.g. engagement: eng-0123456789abcd"
        node = entry.nodes.get("engagement") or NOTHING._replace(line=entry.line)
        engagement = self._checked(node, "engagement", self._unless_misspelt(entry, missing))
        resources = self._resources(entry)
        context = self._context(entry, len(resources))
        if not context or not engagement:
            return []
        account, catalog, resource_type, template = context
        return [
            (Row(account, catalog, engagement, resource_type, text, template), line)
            for text, line in resources
        ]

    def _resources(self, entry: Fields) -> list[tuple[str, int]]:
        """The resources, each with its line."""
        one, many = entry.get("resource"), entry.get("resources")
        nodes = many.nodes if isinstance(many, Items) else []
        missing = "resource is empty: name one, e.g. O1234567"
        if one is not None and many is not None:
            self._report(entry.line_of("resources"), "resource and resources exclude each other: keep one")
            return []
        if many is None:
            nodes = [one or NOTHING._replace(line=entry.line)]
            missing = self._unless_misspelt(entry, "resource is missing: name one, e.g. resource: O1234567")
        elif not nodes and not isinstance(many, Reported):
            found = "an empty list" if isinstance(many, Items) else kind_of(many)
            self._report(
                many.line, f"resources must be a list of ids, e.g. [O1234567, O1234568], not {found}"
            )
        return [(text, node.line) for node in nodes if (text := self._checked(node, "resource", missing))]

    def _unless_misspelt(self, entry: Fields, missing: str) -> str:
        """What to report about a missing key; nothing if another is unknown, which was reported."""
        return missing if entry.nodes.keys() <= _KEYS else ""

    def _checked(self, node: Node, key: str, if_absent: str = "") -> str:
        """The valid text; an empty one: there is none, or it was reported."""
        if type(node) is Scalar and key in self._ids and self._ids[key](node.text):
            return node.text
        text = as_text(node, key, self._report, if_absent)
        if text and (wrong := _CHECKS[key].problem(text.text)):
            self._report(text.line, wrong)
            return ""
        return text.text if text else ""

    def _context(self, entry: Fields, rows: int) -> Context | None:
        own: dict[str, str] = {}
        for key in filter(_CONTEXT.__contains__, entry.nodes):
            node = entry.get(key)
            if node is None:
                continue
            # An invalid one is not missing
            own[key] = value = self._checked(node, key)
            if value and key == "account":
                if wrong := unknown_account(value, self._accounts):
                    self._report(node.line, wrong)
            elif value and key == "template":
                self._warn_unknown_template(value, node.line)
        context = self._complete(own) if own else self._common
        if context is None:
            self._report_missing(own, entry.line, rows)
        return context

    def _complete(self, own: Mapping[str, str]) -> Context | None:
        """What an entry names, completed with the defaults; None: account or catalog are named nowhere."""
        values = [own.get(key) or self._defaults.values.get(key, "") for key in _CONTEXT]
        return tuple(values) if all(values) else None

    def _report_missing(self, own: Mapping[str, str], line: int, rows: int) -> None:
        lacks = {"account", "catalog"} - own.keys() - self._defaults.invalid
        lacks -= self._defaults.values.keys()
        if "catalog" in lacks:
            self._count("catalog", line, rows, f"without a catalog: {self._catalog_hint}")
        if "account" in lacks and self._accounts:
            known = ", ".join(list(self._accounts)[:10])
            text = f"without an account: write account: under defaults, one of {known}"
            self._count("account", line, rows, text)

    def _warn_unknown_template(self, template: str, line: int) -> None:
        if template not in self._warned_templates and len(self._warned_templates) < _MOST_TEMPLATES:
            self._warned_templates.add(template)
            if warning := checks.template_warning(template):
                self._warn(line, warning)

    def _count(self, key: str, line: int, rows: int, text: str) -> None:
        if key not in self._counts:
            self._counts[key] = ProblemCount(text)
            self._report(line, self._counts[key])
        self._counts[key].rows += max(rows, 1)
