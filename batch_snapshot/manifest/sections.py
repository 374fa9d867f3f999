"""The sections besides `pairs`, and how every section is read.

The table of keys says which keys a section may have and what their values may be.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any, TypeAlias

from batch_snapshot.files import nearest, open_regular, special_kind
from batch_snapshot.manifest import keys
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.keys import ManifestKey, ValueType
from batch_snapshot.manifest.problems import Report, quoted, quoted_ascii, suggestion
from batch_snapshot.manifest.yaml_events import NOTHING, Fields, Items, Node, Reported, Scalar, is_unwritten
from batch_snapshot.models import REGION, Account, Quota
from batch_snapshot.text import escaped, plural, truncated

_COUNT = re.compile(r"0|[1-9][0-9]{0,14}")
_RATE = re.compile(r"(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?")

_SECRETS = re.compile(
    "(aws_)?(access_key(_id)?|secret_access_key|session_token)|credentials|password|secret(_key)?|token",
    re.IGNORECASE,
)

#: The defaults of pairs by the keys of `keys.CONTEXT`. An empty value was reported already, so rows that
#: need it are not reported again.
Defaults: TypeAlias = dict[str, str]

#: Key of a pair → the name of its column; None: the file does not hold the key, whatever its columns.
Names: TypeAlias = Mapping[str, str | None]

#: JSON is YAML.
YAML_ENDINGS = frozenset({".yaml", ".yml", ".json"})


def completed(own: Defaults, outer: Defaults) -> Defaults:
    return {**outer, **{key: value or outer.get(key, "") for key, value in own.items()}}


def general_defaults(accounts: Mapping[str, Account]) -> Defaults:
    """What holds where a manifest names nothing: the sole account, and the defaults of the keys."""
    known = {key.name: key.default for key in keys.CONTEXT if key.default}
    return known | ({"account": next(iter(accounts))} if len(accounts) == 1 else {})


def read_version(node: Node, report: Report) -> None:
    if not isinstance(node, Reported) and not (isinstance(node, Scalar) and node.plain and node.text == "1"):
        found = f", not {quoted(node.text)}" if isinstance(node, Scalar) and node.text else ""
        report(node.line, f"version must be the number 1{found}: write version: 1")


def read_name(node: Node, report: Report) -> str:
    text = as_text(node, "name", report, "name is empty: give the manifest a name, e.g. name: nightly")
    checked(text, keys.check_name, report)
    return text.text if text else ""


def read_defaults(node: Node, accounts: Mapping[str, Account], report: Report) -> Defaults:
    section = as_mapping(node, "defaults", report)
    if section is None:
        return dict.fromkeys(keys.names(keys.CONTEXT), "") if isinstance(node, Reported) else {}
    values = read_keys(section, keys.CONTEXT, "defaults", report)
    if "template" in values and (warning := keys.template_warning(values["template"])):
        report.warn(section.nodes["template"].line, warning)
    check_account(section, values, accounts, report)
    return {key.name: values.get(key.name, "") for key in keys.CONTEXT if section.get(key.name) is not None}


def read_accounts(node: Node, report: Report) -> dict[str, Account]:
    """The accounts by name. An invalid one is kept under its name, so that its rows are not reported."""
    section = as_mapping(node, "accounts", report)
    if section is None:
        return {}
    for name in section.nodes:
        if wrong := keys.check_name(name, "account"):
            report(section.line_of(name), wrong)
    return {name: _account(name, one, report) for name, one in section.nodes.items()}


def _account(name: str, node: Node, report: Report) -> Account:
    where = f"account {escaped(truncated(name, 64))}"
    settings = as_mapping(node, where, report)
    if settings is None:
        return Account(name)
    values = read_keys(settings, keys.ACCOUNT, where, report)
    for key, needed in ((key.name, key.needs) for key in keys.ACCOUNT if key.needs):
        if key in values and settings.get(needed) is None:
            wrong = f"{key} is used only with a {needed}: add one or remove {key}"
            report(settings.nodes[key].line, wrong)
    region = values.get("region", REGION)
    if region != REGION:
        report.warn(settings.nodes["region"].line, f"region {region}: only {REGION} serves this API today")
    section = as_mapping(values.get("quota", NOTHING), "quota", report)
    return Account(name, **{**values, "quota": _quota(section, where, report) if section else Quota()})


def _quota(section: Fields, where: str, report: Report) -> Quota:
    numbers = read_keys(section, keys.QUOTA, f"the quota of {where}", report)
    windows = [number for key, number in numbers.items() if key not in {"reserve", "per_second"}]
    reserve, smallest = numbers.get("reserve", 0), min(windows, default=None)
    if smallest is not None and reserve >= smallest:
        wrong = f"reserve {reserve} leaves nothing of {plural(smallest, 'call')}"
        report(section.nodes["reserve"].line, f"{wrong}: make it smaller than the smallest window")
    return Quota(**numbers)


def check_account(
    section: Fields, values: Mapping[str, str], accounts: Mapping[str, Account], report: Report
) -> None:
    """Report an account that is not declared, unless the accounts could not be read."""
    account = values.get("account")
    if not account or account in accounts or not accounts:
        return
    wrong = f"is not under accounts: {suggestion(account, accounts)}"
    if list(accounts) == [keys.AMBIENT]:
        wrong = "is unknown: this manifest declares no accounts; add it under accounts"
    report(section.nodes["account"].line, f"account {quoted(account)} {wrong}")


def read_discover(
    node: Node, defaults: Defaults, accounts: Mapping[str, Account], report: Report
) -> tuple[Filters, ...]:
    entries = node.nodes if isinstance(node, Items) else [] if is_unwritten(node) else [node]
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
    check_account(node, values, accounts, report)
    for name in ("account", "catalog"):
        if name not in defaults and name not in node.nodes:
            report(node.line, f"discover without {name}: write {name}: here, or under defaults")
    named = {name: value for name, value in values.items() if value}
    return Filters(**{**dict.fromkeys(keys.names(keys.CONTEXT), ""), **defaults, **named})


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
    if text is None or key.type is ValueType.TEXT:
        return checked(text, key.problem, report)
    return _number(text, key, report)


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
        wanted = f"{key.name} must be a list of texts, not {kind_of(node)}"
        report(node.line, f"{wanted}: write {key.name}: [{[*key.item_examples, '…'][0]}]")
        return None
    what = key.name if alone else f"{key.name}: an entry"
    empty = "" if lenient else f"{what} is empty: name it or remove it"
    texts = [checked(as_text(one, what, report, empty), key.problem, report) for one in items]
    return tuple(dict.fromkeys(filter(None, texts)))


def check_keys(fields: Fields, known: Collection[str], where: str, report: Report) -> None:
    for key in fields.nodes:
        if key not in known:
            unknown_key(key, fields.line_of(key), known, where, report)


def unknown_key(key: str, line: int, known: Collection[str], where: str, report: Report) -> None:
    if _SECRETS.fullmatch(key):
        way_out = "name a profile or a role_arn in accounts"
        report(line, f"credentials don't belong in a manifest ({key}): {way_out}")
    else:
        way_out = suggestion(key, known)
        if where == "a manifest" and key in keys.names(keys.CONTEXT):
            way_out = "write it under defaults"
        elif where == "a manifest" and key in keys.names(keys.PAIR):
            way_out = "write it under pairs; a file of one pair a line needs a name that ends with .ndjson"
        report(line, f"unknown key {quoted(key)} in {where}: {way_out}")


def as_text(node: Node, what: str, report: Report, if_absent: str = "") -> Scalar | None:
    """`node` if it is a text; None if it was reported, or is absent, which `if_absent` would report."""
    if isinstance(node, Scalar):
        if node.text and not node.absent:
            return node
        if wrong := if_absent if node.plain else f"{what} is empty: give it a value or remove it":
            report(node.line, wrong)
    elif not isinstance(node, Reported):
        report(node.line, f"{what} must be a single text, not {kind_of(node)}")
    return None


def checked(text: Scalar | None, problem: keys.Problem, report: Report) -> str | None:
    if text and (wrong := problem(text.text)):
        report(text.line, wrong)
        return None
    return text.text if text else None


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


def include_problem(text: str, folder: Path, endings: Collection[str], taken: Collection[str]) -> str | None:
    """What is wrong with an included file; `taken` are the files before it, all symbolic links followed."""
    target = os.path.realpath(folder / text) if text.isprintable() else ""
    wrong = None
    if not text.isprintable():
        wrong = "holds characters that no file name should"
    elif Path(text).is_absolute():
        wrong = "is absolute: name it relative to the manifest"
    elif not Path(target).is_relative_to(os.path.realpath(folder)):
        wrong = "leaves the manifest's folder: move the file beside the manifest"
    elif Path(text).suffix.lower() not in endings:
        wrong = f"has an unknown ending: use one of {', '.join(sorted(endings))}"
    elif target in taken:
        wrong = "was read before: name each file once"
    name = f"include {quoted(text)}"
    return f"{name} {wrong}" if wrong else read_problem(Path(target), name)


def read_include(node: Node, report: Report) -> tuple[Scalar | None, Names | None]:
    """The file's name (None: a problem was reported), and the names of its columns if they are given."""
    if not isinstance(node, Fields):
        return as_text(node, "include", report, "include is empty: name a file or remove it"), None
    check_keys(node, keys.names(keys.INCLUDE), "an include", report)
    # Where it is missing, it is as if it were empty.
    file, names = node.nodes.get("file", NOTHING._replace(line=node.line)), node.nodes.get("columns")
    text = as_text(file, "file", report, "file is missing in an include: name one, e.g. {file: pairs.csv}")
    if text is None or is_unwritten(names):
        return text, None
    if Path(text.text).suffix.lower() != ".csv":
        wrong = "only CSV has columns; YAML and NDJSON name the keys of a pair"
        report(node.line_of("columns"), f"columns of {quoted(text.text)}: {wrong}")
        return None, None
    return text, _read_columns(names, report)


def _read_columns(node: Node | None, report: Report) -> Names:
    from batch_snapshot.manifest.csv_columns import comparable  # most manifests have none

    example = 'e.g. columns: {engagement: "Engagement Id", resource: "Opportunity Id"}'
    known = keys.names(keys.PAIR)
    if not isinstance(node, Fields):
        report(node.line if node else 0, f"columns must be a mapping of keys to columns, {example}")
        return {}
    check_keys(node, known, "columns", report)
    names: dict[str, str | None] = {}
    taken: dict[str, str] = {}
    for key in filter(known.__contains__, node.nodes):
        empty = f"the column of engagement is empty: name it, {example}" if key == "engagement" else ""
        text = as_text(node.nodes[key], f"the column of {key}", report, empty)
        names[key] = text.text if text else None
        if text and (other := taken.setdefault(comparable(text.text), key)) != key:
            wrong = f"column {quoted_ascii(text.text)} is named for {other} and for {key}: name two columns"
            report(text.line, wrong)
    return names


def read_problem(path: Path, what: str) -> str | None:
    """Why `path` cannot be read more than once; None: it can."""
    if kind := special_kind(path):
        return f"{what} is {kind}: it must be a regular file, because it is read more than once"
    try:
        open_regular(path).close()
    except FileNotFoundError:
        near = nearest(path, "*.y*ml" if path.suffix in {".yaml", ".yml"} else f"*{escape(path.suffix)}")
        return f"{what} does not exist: {f'did you mean {escaped(str(near))}?' if near else 'check the path'}"
    except PermissionError as error:
        return f"{what} cannot be read ({error.strerror}): fix its permissions"
    except OSError as error:
        return f"{what} cannot be read: {error.strerror or error}"
    return None
