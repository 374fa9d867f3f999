"""The sections `version`, `name`, `defaults`, `accounts` and `discover`, and how every section is read.

The table of keys says which keys a section may have and what their values may be.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch_snapshot.manifest import checks, keys
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.keys import ManifestKey, ValueType
from batch_snapshot.manifest.problems import Report, quoted, suggestion
from batch_snapshot.manifest.yaml_events import Fields, Items, Node, Reported, Scalar, is_unwritten
from batch_snapshot.models import REGION, Account, Quota
from batch_snapshot.text import escaped, truncated

_COUNT = re.compile(r"0|[1-9][0-9]{0,14}")
_RATE = re.compile(r"(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?")

_SECRETS = re.compile(
    "(aws_)?(access_key(_id)?|secret_access_key|session_token)|credentials|password|secret(_key)?|token",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What pairs get by the keys of `keys.CONTEXT`."""

    values: Mapping[str, str]
    #: Keys whose values were reported: rows that need them are not reported again.
    invalid: frozenset[str] = frozenset()

    def over(self, outer: "Defaults") -> "Defaults":
        return Defaults({**outer.values, **self.values}, self.invalid | outer.invalid)


def general_defaults(accounts: Mapping[str, Account]) -> Defaults:
    """What holds where a manifest names nothing: the sole account, and the defaults of the keys."""
    known = {key.name: key.default for key in keys.CONTEXT if key.default}
    return Defaults({**known, **({"account": next(iter(accounts))} if len(accounts) == 1 else {})})


def read_version(node: Node, report: Report) -> None:
    if not isinstance(node, Reported) and not (isinstance(node, Scalar) and node.plain and node.text == "1"):
        found = f", not {quoted(node.text)}" if isinstance(node, Scalar) and node.text else ""
        report(node.line, f"version must be the number 1{found}: write version: 1")


def read_name(node: Node, report: Report) -> str | None:
    text = as_text(node, "name", report, "name is empty: give the manifest a name, e.g. name: nightly")
    if text and (wrong := checks.check_name(text.text)):
        report(text.line, wrong)
    return text.text if text else None


def read_defaults(node: Node, accounts: Mapping[str, Account], report: Report, warn: Report) -> Defaults:
    section = as_mapping(node, "defaults", report)
    if section is None:
        return Defaults({}, keys.names(keys.CONTEXT) if isinstance(node, Reported) else frozenset())
    values = read_keys(section, keys.CONTEXT, "defaults", report)
    if "template" in values and (warning := checks.template_warning(values["template"])):
        warn(section.nodes["template"].line, warning)
    if "account" in values and (wrong := unknown_account(values["account"], accounts)):
        report(section.nodes["account"].line, wrong)
    invalid = {name for name in section.nodes if section.get(name) is not None and name not in values}
    return Defaults(values, frozenset(invalid))


def read_accounts(node: Node, report: Report, warn: Report) -> dict[str, Account]:
    """The accounts by name. An invalid one is kept under its name, so that its rows are not reported."""
    section = as_mapping(node, "accounts", report)
    if section is None:
        return {}
    for name in section.nodes:
        if wrong := checks.check_name(name, "account"):
            report(section.line_of(name), wrong)
    return {name: _account(name, one, report, warn) for name, one in section.nodes.items()}


def _account(name: str, node: Node, report: Report, warn: Report) -> Account:
    where = f"account {escaped(truncated(name, 64))}"
    settings = as_mapping(node, where, report)
    if settings is None:
        return Account(name)
    values = read_keys(settings, keys.ACCOUNT, where, report)
    for key in keys.ACCOUNT:
        if key.needs and key.name in values and settings.get(key.needs) is None:
            report(
                settings.nodes[key.name].line,
                f"{key.name} is used only with a {key.needs}: add one or remove {key.name}",
            )
    region = values.get("region", REGION)
    if region != REGION:
        warn(settings.nodes["region"].line, f"region {region}: only {REGION} serves this API today")
    section = as_mapping(values["quota"], "quota", report) if "quota" in values else None
    return Account(name, **{**values, "quota": _quota(section, where, report) if section else Quota()})


def _quota(section: Fields, where: str, report: Report) -> Quota:
    numbers = read_keys(section, keys.QUOTA, f"the quota of {where}", report)
    windows = [number for key, number in numbers.items() if key not in {"reserve", "per_second"}]
    reserve, smallest = numbers.get("reserve", 0), min(windows, default=None)
    if smallest is not None and reserve >= smallest:
        report(
            section.nodes["reserve"].line,
            f"reserve {reserve} leaves nothing of {smallest} calls: make it smaller than the smallest window",
        )
    return Quota(**numbers)


def unknown_account(account: str, accounts: Mapping[str, Account]) -> str | None:
    """What is wrong with the account of a row; nothing is where the accounts could not be read."""
    if account in accounts or not accounts:
        return None
    if list(accounts) == [keys.AMBIENT]:
        return (
            f"account {quoted(account)} is unknown: this manifest declares no accounts; add it under accounts"
        )
    return f"account {quoted(account)} is not under accounts: {suggestion(account, accounts)}"


def read_discover(
    node: Node, defaults: Defaults, accounts: Mapping[str, Account], report: Report
) -> tuple[Filters, ...]:
    if is_unwritten(node):
        return ()
    entries = node.nodes if isinstance(node, Items) else [node]
    found = [_filters(one, defaults, accounts, report) for one in entries]
    return tuple(one for one in found if one)


def _filters(
    node: Node, defaults: Defaults, accounts: Mapping[str, Account], report: Report
) -> Filters | None:
    if not isinstance(node, Fields):
        if not isinstance(node, Reported):
            wanted = "discover must be filters, e.g. discover: {stages: [Qualified]}"
            report(node.line, f"{wanted}, not {kind_of(node)}")
        return None
    values = read_keys(node, keys.DISCOVER, "discover", report)
    if "account" in values and (wrong := unknown_account(values["account"], accounts)):
        report(node.nodes["account"].line, wrong)
    context: dict[str, Any] = {key.name: "" for key in keys.CONTEXT} | dict(defaults.values)
    for name in ("account", "catalog"):
        if not context[name] and name not in node.nodes and name not in defaults.invalid:
            report(node.line, f"discover without {name}: write {name}: here, or under defaults")
    return Filters(**context | {name: value for name, value in values.items() if value})


def read_keys(section: Fields, table: Sequence[ManifestKey], where: str, report: Report) -> dict[str, Any]:
    """The valid values of a section by key; those of other sections are nodes.

    What is absent is left out, and so is what is invalid, which is reported.
    """
    check_keys(section, keys.names(table), where, report)
    values = {key.name: _value(section.nodes.get(key.name), key, report) for key in table}
    return {name: value for name, value in values.items() if value is not None}


def _value(node: Node | None, key: ManifestKey, report: Report) -> Any:
    if node is None or key.type is ValueType.SECTION:
        return node
    if key.type in {ValueType.TEXTS, ValueType.TEXT_OR_TEXTS}:
        return _texts(node, key, report)
    text = as_text(node, key.name, report)
    if text is None:
        return None
    return _checked(text, key, report) if key.type is ValueType.TEXT else _number(text, key, report)


def _number(text: Scalar, key: ManifestKey, report: Report) -> float | int | None:
    if key.type is ValueType.RATE:
        if text.plain and _RATE.fullmatch(text.text) and float(text.text) > 0:
            return float(text.text)
        wanted = "a positive number in plain digits, up to 999999 with six decimals, e.g. per_second: 0.5"
    else:
        if text.plain and _COUNT.fullmatch(text.text) and int(text.text) >= key.least:
            return int(text.text)
        kind = "a positive whole number" if key.least else "a whole number, 0 or more,"
        wanted = f"{kind} in plain digits, e.g. {key.name}: 100"
    report(text.line, f"{key.name} {quoted(text.text)} must be {wanted}")
    return None


def _texts(node: Node, key: ManifestKey, report: Report) -> tuple[str, ...] | None:
    """The valid texts of a list; where the key allows it, one text alone is a list of one."""
    if is_unwritten(node):
        return None
    lenient = key.type is ValueType.TEXT_OR_TEXTS
    alone = [node] if lenient and isinstance(node, Scalar) else None
    items = node.nodes if isinstance(node, Items) else alone
    if items is None:
        example = key.item_examples[0] if key.item_examples else "…"
        wanted = f"{key.name} must be a list of texts, not {kind_of(node)}"
        report(node.line, f"{wanted}: write {key.name}: [{example}]")
        return None
    what = key.name if alone else f"{key.name}: an entry"
    empty = None if lenient else f"{what} is empty: name it or remove it"
    texts = [as_text(one, what, report, empty) for one in items]
    return tuple(dict.fromkeys(good for text in texts if text and (good := _checked(text, key, report))))


def _checked(text: Scalar, key: ManifestKey, report: Report) -> str | None:
    if wrong := key.check.problem(text.text) if key.check else None:
        report(text.line, wrong)
        return None
    return text.text


def check_keys(fields: Fields, known: Collection[str], where: str, report: Report) -> None:
    for key in fields.nodes:
        if key not in known:
            unknown_key(key, fields.line_of(key), known, where, report)


def unknown_key(key: str, line: int, known: Collection[str], where: str, report: Report) -> None:
    if _SECRETS.fullmatch(key):
        report(
            line, f"credentials don't belong in a manifest ({key}): name a profile or a role_arn in accounts"
        )
    else:
        of_rows = where == "a manifest" and key in keys.names(keys.CONTEXT)
        way = "write it under defaults" if of_rows else suggestion(key, known)
        report(line, f"unknown key {quoted(key)} in {where}: {way}")


def as_text(node: Node, what: str, report: Report, if_absent: str | None = None) -> Scalar | None:
    """`node` if it is a text; None if it was reported, or is absent, which `if_absent` would report."""
    if isinstance(node, Scalar):
        if node.text and not node.absent:
            return node
        if not node.plain:
            report(node.line, f"{what} is empty: give it a value or remove it")
        elif if_absent:
            report(node.line, if_absent)
    elif not isinstance(node, Reported):
        report(node.line, f"{what} must be a single text, not {kind_of(node)}")
    return None


def as_mapping(node: Node, what: str, report: Report) -> Fields | None:
    """`node` as a mapping; None where nothing is written, or it was reported."""
    if isinstance(node, Fields):
        return node
    if not is_unwritten(node):
        report(node.line, f"{what} must be a mapping (key: value), not {kind_of(node)}")
    return None


def kind_of(node: Node) -> str:
    if isinstance(node, Scalar):
        return "nothing" if node.absent else f"the text {quoted(node.text)}"
    return "a list" if isinstance(node, Items) else "a mapping"
