"""The sections `version`, `name`, `defaults` and `accounts`."""

import re
from dataclasses import dataclass

from batch_snapshot.manifest import checks, keys
from batch_snapshot.manifest.keys import ManifestKey, ValueType
from batch_snapshot.manifest.problems import Report, quoted
from batch_snapshot.manifest.service_model import DEFAULT_REGION
from batch_snapshot.manifest.yaml_events import Fields, Items, Node, Reported, Scalar, is_unwritten
from batch_snapshot.models import Account, Quota
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
    #: The line of `account`.
    account_line: int = 0

    def over(self, outer: "Defaults") -> "Defaults":
        return Defaults(
            account=self.account or outer.account,
            catalog=self.catalog or outer.catalog,
            resource_type=self.resource_type or outer.resource_type,
            template=self.template or outer.template,
            invalid=self.invalid | outer.invalid,
            account_line=self.account_line,
        )


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
    counts = {key.name: _count(section, key, report) for key in keys.QUOTA if key.type is ValueType.COUNT}
    reserve = counts.pop("reserve") or 0
    smallest = min((number for number in counts.values() if number), default=None)
    if smallest is not None and reserve >= smallest:
        report(
            section.nodes["reserve"].line,
            f"reserve {reserve} leaves nothing of {smallest} calls: make it smaller than the smallest window",
        )
    return Quota(per_second=_rate(section, report), **counts, reserve=reserve)


def _count(section: Fields, key: ManifestKey, report: Report) -> int | None:
    value = checks.take(section, key.name, report)
    if value is None:
        return None
    if value.plain and _COUNT.fullmatch(value.text) and int(value.text) >= key.least:
        return int(value.text)
    kind = "a positive whole number" if key.least else "a whole number, 0 or more,"
    report(
        value.line, f"{key.name} {quoted(value.text)} must be {kind} in plain digits, e.g. {key.name}: 100"
    )
    return None


def _rate(section: Fields, report: Report) -> float | None:
    value = checks.take(section, "per_second", report)
    if value is None:
        return None
    if value.plain and _RATE.fullmatch(value.text) and float(value.text) > 0:
        return float(value.text)
    report(
        value.line,
        f"per_second {quoted(value.text)} must be a positive number in plain digits, up to 999999 with six "
        "decimals, e.g. per_second: 0.5",
    )
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
