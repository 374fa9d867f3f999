"""What stands beside the pairs: accounts with their quotas, and the defaults of the rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from batch_snapshot.manifest import values
from batch_snapshot.manifest.problems import printable, shown
from batch_snapshot.manifest.service_model import DEFAULT_REGION
from batch_snapshot.manifest.yaml_events import Broken, Fields, Items, Scalar
from batch_snapshot.models import Account, Quota

if TYPE_CHECKING:
    from batch_snapshot.manifest.problems import Complain
    from batch_snapshot.manifest.yaml_events import Node

#: The account of a manifest that names none: the ambient AWS credentials.
AMBIENT = "default"

_WINDOWS = ("per_minute", "per_hour", "per_day")
_CALLS = re.compile(r"0|[1-9][0-9]{0,14}")
_RATE = re.compile(r"(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a row that says nothing else gets."""

    account: str | None = None
    catalog: str | None = None
    resource_type: str | None = None
    template: str | None = None
    #: Named, but complained about: rows that need them are not complained about again.
    broken: frozenset[str] = frozenset()
    #: Where `account` stands.
    account_line: int = 0

    def over(self, outer: Defaults) -> Defaults:
        """These, completed with those of the file that includes this one."""
        return Defaults(
            account=self.account or outer.account,
            catalog=self.catalog or outer.catalog,
            resource_type=self.resource_type or outer.resource_type,
            template=self.template or outer.template,
            broken=self.broken | outer.broken,
            account_line=self.account_line,
        )


ACCOUNT_KEYS = frozenset(field.name for field in fields(Account)) - {"name"}
QUOTA_KEYS = frozenset(field.name for field in fields(Quota))

_TEXTS: dict[str, values.Check] = {
    "profile": values.check_profile,
    "region": values.check_region,
    "role_arn": values.check_role_arn,
    "external_id": values.check_external_id,
    "session_name": values.check_session_name,
    "endpoint_url": values.check_endpoint_url,
}


def read_version(node: Node, complain: Complain) -> None:
    """Only version 1 exists."""
    if not isinstance(node, Broken) and not (isinstance(node, Scalar) and node.plain and node.text == "1"):
        found = f", not {shown(node.text)}" if isinstance(node, Scalar) and node.text else ""
        complain(node.line, f"version must be the number 1{found}: write version: 1")


def read_name(node: Node, complain: Complain) -> str | None:
    """The manifest's name, or None where it was complained about."""
    text = values.as_text(node, "name", complain)
    if text is None:
        if isinstance(node, Scalar) and node.absent:
            complain(node.line, "name is empty: give the manifest a name, e.g. name: nightly")
        return None
    wrong = values.check_name(text.text)
    if wrong:
        complain(text.line, wrong)
    return None if wrong else text.text


def read_defaults(node: Node, complain: Complain, warn: Complain) -> Defaults:
    """The defaults that hold; what is wrong is complained about."""
    section = _mapping(node, "defaults", complain)
    if section is None:
        return Defaults()
    values.check_keys(section, values.CONTEXT, "defaults", complain)
    found: dict[str, str] = {}
    broken = set()
    for key, check in values.CONTEXT.items():
        value = values.take_checked(section, key, check, complain)
        if value is not None:
            found[key] = value
        elif not _absent(section.nodes.get(key)):
            broken.add(key)
    doubt = values.doubt_template(found["template"]) if "template" in found else None
    if doubt:
        warn(section.nodes["template"].line, doubt)
    line = section.nodes["account"].line if "account" in found else 0
    return Defaults(**found, broken=frozenset(broken), account_line=line)


def read_accounts(node: Node, complain: Complain, warn: Complain) -> dict[str, Account]:
    """The accounts by name. A faulty one is kept under its name, so that its rows find it."""
    section = _mapping(node, "accounts", complain)
    if section is None:
        return {}
    for name in section.nodes:
        wrong = values.check_account(name)
        if wrong:
            complain(section.line_of(name), wrong)
    return {name: _account(name, one, complain, warn) for name, one in section.nodes.items()}


def _account(name: str, node: Node, complain: Complain, warn: Complain) -> Account:
    where = f"account {printable(name, 64)}"
    settings = _mapping(node, where, complain)
    if settings is None:
        return Account(name)
    values.check_keys(settings, ACCOUNT_KEYS, where, complain)
    texts = {key: values.take_checked(settings, key, check, complain) for key, check in _TEXTS.items()}
    for key in ("external_id", "session_name"):
        if texts[key] and _absent(settings.nodes.get("role_arn")):
            complain(settings.nodes[key].line, f"{key} is used only with a role_arn: add one or remove {key}")
    region = texts["region"]
    if region and region != DEFAULT_REGION:
        warn(settings.nodes["region"].line, f"region {region}: only {DEFAULT_REGION} serves this API today")
    quota = _quota(settings.nodes.get("quota"), where, complain)
    return Account(name, **texts, quota=quota, tags=_tags(settings.nodes.get("tags"), complain))


def _quota(node: Node | None, where: str, complain: Complain) -> Quota:
    section = None if node is None else _mapping(node, "quota", complain)
    if section is None:
        return Quota()
    values.check_keys(section, QUOTA_KEYS, f"the quota of {where}", complain)
    calls = {key: _calls(section, key, 1, complain) for key in _WINDOWS}
    reserve = _calls(section, "reserve", 0, complain) or 0
    smallest = min((number for number in calls.values() if number), default=None)
    if smallest is not None and reserve >= smallest:
        complain(
            section.nodes["reserve"].line,
            f"reserve {reserve} leaves nothing of {smallest} calls: make it smaller than the smallest window",
        )
    return Quota(per_second=_rate(section, complain), **calls, reserve=reserve)


def _calls(section: Fields, key: str, least: int, complain: Complain) -> int | None:
    value = values.take(section, key, complain)
    if value is None:
        return None
    if value.plain and _CALLS.fullmatch(value.text) and int(value.text) >= least:
        return int(value.text)
    kind = "a positive whole number" if least else "a whole number, 0 or more,"
    complain(value.line, f"{key} {shown(value.text)} must be {kind} in plain digits, e.g. {key}: 100")
    return None


def _rate(section: Fields, complain: Complain) -> float | None:
    value = values.take(section, "per_second", complain)
    if value is None:
        return None
    if value.plain and _RATE.fullmatch(value.text) and float(value.text) > 0:
        return float(value.text)
    complain(
        value.line,
        f"per_second {shown(value.text)} must be a positive number in plain digits, up to 999999 with six "
        "decimals, e.g. per_second: 0.5",
    )
    return None


def _tags(node: Node | None, complain: Complain) -> tuple[str, ...]:
    if node is None or isinstance(node, Broken) or _absent(node):
        return ()
    if not isinstance(node, Items):
        complain(node.line, "tags must be a list of names, e.g. tags: [production]")
        return ()
    tags: list[str] = []
    for one in node.nodes:
        tag = values.as_text(one, "a tag", complain)
        if tag is None:
            if _absent(one):
                complain(one.line, "a tag is empty: name it or remove it")
            continue
        wrong = values.check_name(tag.text, "tag")
        if wrong:
            complain(tag.line, wrong)
        tags.append(tag.text)
    return tuple(tags)


def _mapping(node: Node, what: str, complain: Complain) -> Fields | None:
    """`node` as a mapping; None where nothing is written, or it was complained about."""
    if isinstance(node, Fields):
        return node
    if not isinstance(node, Broken) and not _absent(node):
        complain(node.line, f"{what} must be a mapping (key: value), not {kind_of(node)}")
    return None


def kind_of(node: Node) -> str:
    """What `node` is, in a message."""
    if isinstance(node, Scalar):
        return "nothing" if node.absent else f"the text {shown(node.text)}"
    return "a list" if isinstance(node, Items) else "a mapping"


def _absent(node: Node | None) -> bool:
    return node is None or (isinstance(node, Scalar) and node.absent)
