"""The section `discover`: pairs that a run takes from the service's own lists when it starts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from batch_snapshot.manifest import filters, values
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.header import kind_of
from batch_snapshot.manifest.pairs import unknown_account
from batch_snapshot.manifest.problems import meant, shown
from batch_snapshot.manifest.service_model import DEFAULT_RESOURCE_TYPE, DEFAULT_TEMPLATE
from batch_snapshot.manifest.yaml_events import Broken, Fields, Items, Scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from batch_snapshot.manifest.header import Defaults
    from batch_snapshot.manifest.problems import Complain
    from batch_snapshot.manifest.yaml_events import Node
    from batch_snapshot.models import Account

SECTION = "discover"

#: The keys whose values are lists, and what each of them may hold.
_LISTS = ("sources", "engagements", "created_by", "context_types", "stages")
KEYS = frozenset({*values.CONTEXT, *_LISTS, "changed_since"})

_ACCOUNT_NUMBER = r"[0-9]{12}|\w{1,12}"
_CONTEXT_TYPE = r"[A-Za-z]{1,64}"


def _one_of(what: str, known: Collection[str]) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        return None if text in known else f"{what} {shown(text)} is not known: {meant(text, known)}"

    return check


def _like(what: str, pattern: str, example: str) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        if re.fullmatch(pattern, text, re.ASCII):
            return None
        return f"{what} {shown(text)} does not match {pattern} (e.g. {example})"

    return check


CHECKS: Mapping[str, Callable[[str], str | None]] = {
    "sources": _one_of("source", filters.SOURCES),
    "engagements": values.check_engagement,
    "created_by": _like("created_by", _ACCOUNT_NUMBER, "123456789012"),
    "context_types": _like("context type", _CONTEXT_TYPE, "CustomerProject"),
    "stages": _one_of("stage", filters.STAGES),
}


def check_since(text: str) -> str | None:
    """What is wrong with a time, or a span before now."""
    try:
        filters.since(text, datetime(2026, 1, 1, tzinfo=UTC))
    except ValueError as error:
        return f"changed_since: {error}"
    return None


def read_discover(
    node: Node, defaults: Defaults, accounts: Mapping[str, Account], complain: Complain
) -> tuple[Filters, ...]:
    """What is to be looked for; what is wrong is complained about."""
    if isinstance(node, Broken) or (isinstance(node, Scalar) and node.absent):
        return ()
    found = [_filters(one, defaults, accounts, complain) for one in _entries(node)]
    return tuple(one for one in found if one)


def _entries(node: Node) -> list[Node]:
    return node.nodes if isinstance(node, Items) else [node]


def _filters(
    node: Node, defaults: Defaults, accounts: Mapping[str, Account], complain: Complain
) -> Filters | None:
    if not isinstance(node, Fields):
        if not isinstance(node, Broken):
            complain(
                node.line,
                f"discover must be filters, e.g. discover: {{stages: [Qualified]}}, not {kind_of(node)}",
            )
        return None
    values.check_keys(node, KEYS, SECTION, complain)
    own = {
        key: values.take_checked(node, key, check, complain) or "" for key, check in values.CONTEXT.items()
    }
    sole = next(iter(accounts)) if len(accounts) == 1 else None
    account, catalog = own["account"] or defaults.account or sole, own["catalog"] or defaults.catalog
    if own["account"] and (wrong := unknown_account(own["account"], accounts)):
        complain(node.nodes["account"].line, wrong)
    for name, value in (("account", account), ("catalog", catalog)):
        if not value and name not in node.nodes and name not in defaults.broken:
            complain(node.line, f"discover without {name}: write {name}: here, or under defaults")
    lists = {key: _texts(node, key, complain) for key in _LISTS}
    return Filters(
        account=account or "",
        catalog=catalog or "",
        resource_type=own["resource_type"] or defaults.resource_type or DEFAULT_RESOURCE_TYPE,
        template=own["template"] or defaults.template or DEFAULT_TEMPLATE,
        **{**lists, "sources": lists["sources"] or filters.SOURCES},
        changed_since=values.take_checked(node, "changed_since", check_since, complain),
    )


def _texts(section: Fields, key: str, complain: Complain) -> tuple[str, ...]:
    """The checked texts of a list; one text alone stands for a list of one."""
    node = section.nodes.get(key)
    if node is None or isinstance(node, Broken) or (isinstance(node, Scalar) and node.absent):
        return ()
    if isinstance(node, Fields):
        complain(node.line, f"{key} must be a list of texts, not a mapping")
        return ()
    texts = []
    for one in _entries(node):
        text = values.as_text(one, key, complain)
        wrong = CHECKS[key](text.text) if text else None
        if text and wrong:
            complain(text.line, wrong)
        elif text:
            texts.append(text.text)
    return tuple(dict.fromkeys(texts))
