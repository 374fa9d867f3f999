"""Sections of a manifest → values, by the table of keys: what every section has in common."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from batch_snapshot.manifest import keys
from batch_snapshot.manifest.keys import ManifestKey, ValueType
from batch_snapshot.manifest.problems import Report, quoted, suggestion
from batch_snapshot.manifest.yaml_events import Fields, Items, Node, Reported, Scalar, is_unwritten

_COUNT = re.compile(r"0|[1-9][0-9]{0,14}")
_RATE = re.compile(r"(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?")

_SECRETS = re.compile(
    "(aws_)?(access_key(_id)?|secret_access_key|session_token)|credentials|password|secret(_key)?|token",
    re.IGNORECASE,
)


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
        report(line, f"unknown key {quoted(key)} in {where}: {suggestion(key, known)}")


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


def is_absent(node: Node | None) -> bool:
    """Whether there is no value, so that none is invalid."""
    return node is None or (isinstance(node, Scalar) and node.absent)
