"""The section `discover`: pairs that a run takes from the service's own lists when it starts."""

from collections.abc import Mapping

from batch_snapshot.manifest import checks, filters, keys
from batch_snapshot.manifest.checks import Check
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.header import Defaults
from batch_snapshot.manifest.keys import ValueType
from batch_snapshot.manifest.pairs import unknown_account
from batch_snapshot.manifest.problems import Report
from batch_snapshot.manifest.service_model import DEFAULT_RESOURCE_TYPE, DEFAULT_TEMPLATE
from batch_snapshot.manifest.yaml_events import Fields, Items, Node, Reported, is_unwritten
from batch_snapshot.models import Account

SECTION = "discover"

_CHECKS = keys.text_checks(keys.DISCOVER)


def read_discover(
    node: Node, defaults: Defaults, accounts: Mapping[str, Account], report: Report
) -> tuple[Filters, ...]:
    if is_unwritten(node):
        return ()
    found = [_filters(one, defaults, accounts, report) for one in _entries(node)]
    return tuple(one for one in found if one)


def _entries(node: Node) -> list[Node]:
    return node.nodes if isinstance(node, Items) else [node]


def _filters(
    node: Node, defaults: Defaults, accounts: Mapping[str, Account], report: Report
) -> Filters | None:
    if not isinstance(node, Fields):
        if not isinstance(node, Reported):
            wanted = "discover must be filters, e.g. discover: {stages: [Qualified]}"
            report(node.line, f"{wanted}, not {checks.kind_of(node)}")
        return None
    checks.check_keys(node, keys.names(keys.DISCOVER), SECTION, report)
    own = {
        key: checks.take_checked(node, key, check, report) or ""
        for key, check in keys.text_checks(keys.CONTEXT).items()
    }
    sole = next(iter(accounts)) if len(accounts) == 1 else None
    account, catalog = own["account"] or defaults.account or sole, own["catalog"] or defaults.catalog
    if own["account"] and (wrong := unknown_account(own["account"], accounts)):
        report(node.nodes["account"].line, wrong)
    for name, value in (("account", account), ("catalog", catalog)):
        if not value and name not in node.nodes and name not in defaults.invalid:
            report(node.line, f"discover without {name}: write {name}: here, or under defaults")
    lists = {
        key.name: _texts(node, key.name, key.check, report)
        for key in keys.DISCOVER
        if key.type is ValueType.TEXT_OR_TEXTS and key.check
    }
    return Filters(
        account=account or "",
        catalog=catalog or "",
        resource_type=own["resource_type"] or defaults.resource_type or DEFAULT_RESOURCE_TYPE,
        template=own["template"] or defaults.template or DEFAULT_TEMPLATE,
        **{**lists, "sources": lists["sources"] or filters.SOURCES},
        changed_since=checks.take_checked(node, "changed_since", _CHECKS["changed_since"], report),
    )


def _texts(section: Fields, key: str, check: Check, report: Report) -> tuple[str, ...]:
    """The valid texts of a list; one text alone is a list of one."""
    node = section.nodes.get(key)
    if node is None or is_unwritten(node):
        return ()
    if isinstance(node, Fields):
        report(node.line, f"{key} must be a list of texts, not a mapping")
        return ()
    texts = []
    for one in _entries(node):
        text = checks.as_text(one, key, report)
        wrong = check.problem(text.text) if text else None
        if text and wrong:
            report(text.line, wrong)
        elif text:
            texts.append(text.text)
    return tuple(dict.fromkeys(texts))
