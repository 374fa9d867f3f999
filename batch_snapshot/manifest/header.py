"""The sections `version`, `name`, `defaults`, `accounts` and `discover`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from batch_snapshot.manifest import checks, keys
from batch_snapshot.manifest.checks import Check
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.keys import ManifestKey, ValueType
from batch_snapshot.manifest.problems import Report, quoted, suggestion
from batch_snapshot.manifest.service_model import DEFAULT_REGION, DEFAULT_RESOURCE_TYPE, DEFAULT_TEMPLATE
from batch_snapshot.manifest.yaml_events import Fields, Items, Node, Reported, Scalar, is_unwritten
from batch_snapshot.models import Account, Quota
from batch_snapshot.operations import SOURCES
from batch_snapshot.text import escaped, truncated

#: The account of a manifest that names none: the ambient AWS credentials.
AMBIENT = "default"

_COUNT = re.compile(r"0|[1-9][0-9]{0,14}")
_RATE = re.compile(r"(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Defaults:
    account: str | None = None
    catalog: str | None = None
    resource_type: str | None = None
    template: str | None = None
    #: Keys whose values were reported: rows that need them are not reported again.
    invalid: frozenset[str] = frozenset()
    account_line: int = 0

    def over(self, outer: "Defaults") -> "Defaults":
        values = {key: getattr(self, key) or getattr(outer, key) for key in keys.names(keys.CONTEXT)}
        return replace(self, **values, invalid=self.invalid | outer.invalid)

    def final(self, accounts: Mapping[str, Account]) -> "Defaults":
        """These, completed with the sole account and with what holds where nothing is named."""
        sole = next(iter(accounts)) if len(accounts) == 1 else None
        return self.over(Defaults(sole, None, DEFAULT_RESOURCE_TYPE, DEFAULT_TEMPLATE))


def read_version(node: Node, report: Report) -> None:
    if not isinstance(node, Reported) and not (isinstance(node, Scalar) and node.plain and node.text == "1"):
        found = f", not {quoted(node.text)}" if isinstance(node, Scalar) and node.text else ""
        report(node.line, f"version must be the number 1{found}: write version: 1")


def read_name(node: Node, report: Report) -> str | None:
    text = checks.as_text(node, "name", report)
    if text is None:
        if isinstance(node, Scalar) and node.absent:
            report(node.line, "name is empty: give the manifest a name, e.g. name: nightly")
        return None
    wrong = checks.check_name(text.text)
    if wrong:
        report(text.line, wrong)
    return None if wrong else text.text


def read_defaults(node: Node, report: Report, warn: Report) -> Defaults:
    section = checks.as_mapping(node, "defaults", report)
    if section is None:
        return Defaults()
    checks.check_keys(section, keys.names(keys.CONTEXT), "defaults", report)
    found: dict[str, str] = {}
    invalid = set()
    for key, check in keys.text_checks(keys.CONTEXT).items():
        value = checks.take_checked(section, key, check, report)
        if value is not None:
            found[key] = value
        elif not _absent(section.nodes.get(key)):
            invalid.add(key)
    warning = checks.template_warning(found["template"]) if "template" in found else None
    if warning:
        warn(section.nodes["template"].line, warning)
    line = section.nodes["account"].line if "account" in found else 0
    return Defaults(**found, invalid=frozenset(invalid), account_line=line)


def read_accounts(node: Node, report: Report, warn: Report) -> dict[str, Account]:
    """The accounts by name. An invalid one is kept under its name, so that its rows are not reported."""
    section = checks.as_mapping(node, "accounts", report)
    if section is None:
        return {}
    for name in section.nodes:
        wrong = checks.check_name(name, "account")
        if wrong:
            report(section.line_of(name), wrong)
    return {name: _account(name, one, report, warn) for name, one in section.nodes.items()}


def _account(name: str, node: Node, report: Report, warn: Report) -> Account:
    where = f"account {escaped(truncated(name, 64))}"
    settings = checks.as_mapping(node, where, report)
    if settings is None:
        return Account(name)
    checks.check_keys(settings, keys.names(keys.ACCOUNT), where, report)
    texts: dict[str, str | None] = {}
    for key in keys.ACCOUNT:
        if key.type is ValueType.TEXT and key.check:
            texts[key.name] = checks.take_checked(settings, key.name, key.check, report)
            if texts[key.name] and key.needs and _absent(settings.nodes.get(key.needs)):
                report(
                    settings.nodes[key.name].line,
                    f"{key.name} is used only with a {key.needs}: add one or remove {key.name}",
                )
    region = texts["region"]
    if region and region != DEFAULT_REGION:
        warn(settings.nodes["region"].line, f"region {region}: only {DEFAULT_REGION} serves this API today")
    quota = _quota(settings.nodes.get("quota"), where, report)
    return Account(name, **texts, quota=quota, tags=_tags(settings.nodes.get("tags"), report))


def _quota(node: Node | None, where: str, report: Report) -> Quota:
    section = None if node is None else checks.as_mapping(node, "quota", report)
    if section is None:
        return Quota()
    checks.check_keys(section, keys.names(keys.QUOTA), f"the quota of {where}", report)
    numbers = {key.name: _number(section, key, report) for key in keys.QUOTA}
    reserve, rate = numbers.pop("reserve") or 0, numbers.pop("per_second")
    smallest = min((number for number in numbers.values() if number), default=None)
    if smallest is not None and reserve >= smallest:
        report(
            section.nodes["reserve"].line,
            f"reserve {reserve} leaves nothing of {smallest} calls: make it smaller than the smallest window",
        )
    return Quota(per_second=rate, **numbers, reserve=reserve)


def _number(section: Fields, key: ManifestKey, report: Report) -> Any:
    """A count (int) or a rate (float); None: it is absent, or was reported."""
    value = checks.take(section, key.name, report)
    if value is None:
        return None
    if key.type is ValueType.RATE:
        if value.plain and _RATE.fullmatch(value.text) and float(value.text) > 0:
            return float(value.text)
        wanted = "a positive number in plain digits, up to 999999 with six decimals, e.g. per_second: 0.5"
    else:
        if value.plain and _COUNT.fullmatch(value.text) and int(value.text) >= key.least:
            return int(value.text)
        kind = "a positive whole number" if key.least else "a whole number, 0 or more,"
        wanted = f"{kind} in plain digits, e.g. {key.name}: 100"
    report(value.line, f"{key.name} {quoted(value.text)} must be {wanted}")
    return None


def _tags(node: Node | None, report: Report) -> tuple[str, ...]:
    if node is None or is_unwritten(node):
        return ()
    if not isinstance(node, Items):
        report(node.line, "tags must be a list of names, e.g. tags: [production]")
        return ()
    tags: list[str] = []
    for one in node.nodes:
        tag = checks.as_text(one, "a tag", report)
        if tag is None:
            if _absent(one):
                report(one.line, "a tag is empty: name it or remove it")
            continue
        wrong = checks.check_name(tag.text, "tag")
        if wrong:
            report(tag.line, wrong)
        tags.append(tag.text)
    return tuple(tags)


def _absent(node: Node | None) -> bool:
    return node is None or (isinstance(node, Scalar) and node.absent)


def unknown_account(account: str, accounts: Mapping[str, Account]) -> str | None:
    if account in accounts:
        return None
    if list(accounts) == [AMBIENT]:
        return (
            f"account {quoted(account)} is unknown: this manifest declares no accounts; add it under accounts"
        )
    return f"account {quoted(account)} is not under accounts: {suggestion(account, accounts)}"


def read_discover(
    node: Node, defaults: Defaults, accounts: Mapping[str, Account], report: Report
) -> tuple[Filters, ...]:
    if is_unwritten(node):
        return ()
    defaults = defaults.final(accounts)
    entries = node.nodes if isinstance(node, Items) else [node]
    found = [_filters(one, defaults, accounts, report) for one in entries]
    return tuple(one for one in found if one)


def _filters(
    node: Node, defaults: Defaults, accounts: Mapping[str, Account], report: Report
) -> Filters | None:
    if not isinstance(node, Fields):
        if not isinstance(node, Reported):
            wanted = "discover must be filters, e.g. discover: {stages: [Qualified]}"
            report(node.line, f"{wanted}, not {checks.kind_of(node)}")
        return None
    checks.check_keys(node, keys.names(keys.DISCOVER), "discover", report)
    texts = {
        key.name: checks.take_checked(node, key.name, key.check, report)
        for key in keys.DISCOVER
        if key.type is ValueType.TEXT and key.check
    }
    account = texts["account"]
    if account and (wrong := unknown_account(account, accounts)):
        report(node.nodes["account"].line, wrong)
    context: dict[str, Any] = {
        key.name: texts[key.name] or getattr(defaults, key.name) or "" for key in keys.CONTEXT
    }
    for name in ("account", "catalog"):
        if not context[name] and name not in node.nodes and name not in defaults.invalid:
            report(node.line, f"discover without {name}: write {name}: here, or under defaults")
    lists: dict[str, Any] = {
        key.name: _texts(node, key.name, key.check, report)
        for key in keys.DISCOVER
        if key.type is ValueType.TEXT_OR_TEXTS and key.check
    }
    lists["sources"] = lists["sources"] or SOURCES
    return Filters(**context, **lists, changed_since=texts["changed_since"])


def _texts(section: Fields, key: str, check: Check, report: Report) -> tuple[str, ...]:
    """The valid texts of a list; one text alone is a list of one."""
    node = section.nodes.get(key)
    if node is None or is_unwritten(node):
        return ()
    if isinstance(node, Fields):
        report(node.line, f"{key} must be a list of texts, not a mapping")
        return ()
    texts = []
    for one in node.nodes if isinstance(node, Items) else [node]:
        text = checks.as_text(one, key, report)
        wrong = check.problem(text.text) if text else None
        if text and wrong:
            report(text.line, wrong)
        elif text:
            texts.append(text.text)
    return tuple(dict.fromkeys(texts))
