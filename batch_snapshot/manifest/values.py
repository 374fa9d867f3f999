"""Takes values out of the nodes of a document, and reports what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_snapshot.manifest.problems import Report, quoted, suggestion
from batch_snapshot.manifest.yaml_events import Fields, Items, Node, Reported, Scalar, is_unwritten

if TYPE_CHECKING:
    from collections.abc import Collection

    from batch_snapshot.manifest.checks import Check

_SECRETS = frozenset(
    {
        "access_key",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "credentials",
        "password",
        "secret",
        "secret_access_key",
        "secret_key",
        "session_token",
        "token",
    }
)


def check_keys(fields: Fields, known: Collection[str], where: str, report: Report) -> None:
    for key in fields.nodes:
        if key not in known:
            unknown_key(key, fields.line_of(key), known, where, report)


def unknown_key(key: str, line: int, known: Collection[str], where: str, report: Report) -> None:
    if key.lower() in _SECRETS:
        report(
            line, f"credentials don't belong in a manifest ({key}): name a profile or a role_arn in accounts"
        )
    else:
        report(line, f"unknown key {quoted(key)} in {where}: {suggestion(key, known)}")


def take(fields: Fields, key: str, report: Report) -> Scalar | None:
    node = fields.nodes.get(key)
    return None if node is None else as_text(node, key, report)


def as_text(node: Node, what: str, report: Report) -> Scalar | None:
    """`node` if it is a text; None if it is absent, or was reported."""
    if isinstance(node, Scalar):
        if node.text and not node.absent:
            return node
        if not node.plain:
            report(node.line, f"{what} is empty: give it a value or remove it")
    elif not isinstance(node, Reported):
        kind = "a list" if isinstance(node, Items) else "a mapping"
        report(node.line, f"{what} must be a single text, not {kind}")
    return None


def take_checked(fields: Fields, key: str, check: Check, report: Report) -> str | None:
    """The text under `key` that passes `check`; None where there is none, or it was reported."""
    scalar = take(fields, key, report)
    if scalar is None:
        return None
    wrong = check.problem(scalar.text)
    if wrong is None:
        return scalar.text
    report(scalar.line, wrong)
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
