"""The one table of manifest keys: where each is allowed, its type, its check, its help; and valid texts.

Validation, the JSON Schema (`schema`), the manifest that `init` writes, the columns of CSV files and the
section `discover` derive from it. A new key is an entry here; an account's is a field of `models.Account`
too, from which the ledger's records take the texts that they keep.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

import yaml

from batch_snapshot.clock import utc_now
from batch_snapshot.endpoints import has_credentials, is_url
from batch_snapshot.manifest import filters
from batch_snapshot.manifest.problems import quoted, quoted_ascii, suggestion
from batch_snapshot.manifest.service_model import (
    CATALOGS,
    DEFAULT_RESOURCE_TYPE,
    DEFAULT_TEMPLATE,
    TEMPLATES,
    Shape,
    role_input,
    row_input,
)
from batch_snapshot.operations import SOURCES

#: The account of a manifest that names none: the ambient AWS credentials.
AMBIENT = "default"


#: Takes a text; returns what is wrong with it and the fix, or None.
Problem: TypeAlias = Callable[[str], str | None]


class Check(NamedTuple):
    problem: Problem
    #: The same check as JSON Schema, as far as that is possible.
    schema: Callable[[], dict[str, Any]]


#: What a manifest, an account or a tag can be called: safe in a file's name.
NAME = r"[A-Za-z0-9._-]{1,64}"
#: Goes before `NAME` and refuses `.` and `..`, which mean folders.
NOT_DOTS = r"(?!\.{1,2}$)"


def check_name(text: str, what: str = "name") -> str | None:
    """Why a text is no name; `.` and `..` are refused because names become parts of paths."""
    if re.fullmatch(NAME, text) and text not in {".", ".."}:
        return None
    hint = "letters, digits, dots and dashes, e.g. nightly-1"
    return f"{what} {quoted_ascii(text)} does not match {NAME} ({hint})"


def _name(what: str) -> Check:
    return Check(lambda text: check_name(text, what), lambda: pattern_schema(NOT_DOTS + NAME))


def _shape(what: str, shapes: Callable[[], Mapping[str, Shape]], parameter: str, hint: str) -> Check:
    def problem(text: str) -> str | None:
        form = shapes()[parameter]
        if form.regex.fullmatch(text):
            return None
        return f"{what} {quoted_ascii(text)} does not match {form.form} ({hint})"

    def schema() -> dict[str, Any]:
        form = shapes()[parameter]
        bounds = {"minLength": form.shortest, "maxLength": form.longest}
        given = {key: bound for key, bound in bounds.items() if bound is not None}
        return pattern_schema(form.pattern) | given

    return Check(problem, schema)


def _choice(what: str, choices: Callable[[], Sequence[str]]) -> Check:
    def problem(text: str) -> str | None:
        if text in choices():
            return None
        return f"{what} {quoted_ascii(text)} is not known: {suggestion(text, choices())}"

    return Check(problem, lambda: {"enum": list(choices())})


def _like(what: str, pattern: str, fault: str) -> Check:
    """A text of a pattern; `fault`, which may show the `{pattern}`, follows it in the message."""
    regex, fault = re.compile(pattern, re.ASCII), fault.replace("{pattern}", pattern)
    return Check(
        lambda text: None if regex.fullmatch(text) else f"{what} {quoted(text)} {fault}",
        lambda: pattern_schema(pattern),
    )


def pattern_schema(pattern: str) -> dict[str, Any]:
    """JSON Schema of a text that matches as a whole; a schema's pattern may match anywhere in it."""
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def check_endpoint_url(text: str) -> str | None:
    """An endpoint that holds a password is refused without showing it."""
    if has_credentials(text):
        return "credentials don't belong in a manifest: remove the part before @ in endpoint_url"
    if not is_url(text):
        return f"endpoint_url {quoted(text)} is not an http or https URL: write e.g. http://127.0.0.1:8000"
    return None


def _check_changed_since(text: str) -> str | None:
    try:
        filters.since(text, utc_now())
    except ValueError as error:
        return f"changed_since: {error}"
    return None


def template_warning(text: str) -> str | None:
    if text in TEMPLATES:
        return None
    hint = "; OpportunitySummary is a payload's key, not a template" if text == "OpportunitySummary" else ""
    return f"template {quoted(text)} is not one known today ({', '.join(TEMPLATES)}){hint}"


class ValueType(Enum):
    TEXT = "text"
    TEXTS = "texts"
    #: A list of texts, or one of them alone.
    TEXT_OR_TEXTS = "text or texts"
    #: A whole number, from `least` on.
    COUNT = "count"
    RATE = "rate"
    #: Other keys, or a list of such mappings.
    SECTION = "section"


@dataclass(frozen=True, slots=True)
class ManifestKey:
    name: str
    help: str = ""
    type: ValueType = ValueType.TEXT
    #: Of a text, or of each text of a list.
    check: Check | None = None
    default: str | None = None
    examples: tuple[Any, ...] = ()
    #: Of each text of a list, in the schema.
    item_help: str = ""
    item_examples: tuple[str, ...] = ()
    #: The smallest count, or the shortest list.
    least: int = 0
    #: Another key of the section without which this one means nothing.
    needs: str | None = None
    #: Value and comment in the manifest that `init` writes; None: it does not show the key there.
    sample: tuple[str, str] | None = None

    def problem(self, text: str) -> str | None:
        return self.check.problem(text) if self.check else None


def names(section: Sequence[ManifestKey]) -> frozenset[str]:
    return frozenset(key.name for key in section)


_ENGAGEMENT = _shape("engagement", row_input, "engagement", "an engagement id, e.g. eng-0123456789abcd")
_RESOURCE = _shape("resource", row_input, "resource", "an opportunity id, e.g. O1234567")

#: By the name of a key, the same in every section; checks that are a pattern are in the table as `like`.
_CHECKS = {
    "name": _name("name"),
    "account": _name("account"),
    "catalog": _choice("catalog", lambda: CATALOGS),
    "resource_type": _choice("resource_type", lambda: row_input()["resource_type"].choices),
    "template": _shape("template", row_input, "template", f"e.g. {DEFAULT_TEMPLATE}"),
    **dict.fromkeys(("engagement", "engagements"), _ENGAGEMENT),
    **dict.fromkeys(("resource", "resources"), _RESOURCE),
    "external_id": _shape("external_id", role_input, "ExternalId", "as the role's trust policy names it"),
    "session_name": _shape("session_name", role_input, "RoleSessionName", "e.g. nightly-snapshots"),
    "endpoint_url": Check(check_endpoint_url, lambda: pattern_schema(r"https?://[^/@\s]+(?:/\S*)?")),
    "tags": _name("tag"),
    "sources": _choice("source", lambda: SOURCES),
    "stages": _choice("stage", lambda: filters.STAGES),
    "changed_since": Check(_check_changed_since, lambda: {"type": "string"}),
}

#: What the service's model says of some keys.
_FROM_MODEL: dict[str, dict[str, Any]] = {
    "resource_type": {"default": DEFAULT_RESOURCE_TYPE, "sample": (DEFAULT_RESOURCE_TYPE, "the default")},
    "template": {
        "default": DEFAULT_TEMPLATE,
        "examples": TEMPLATES,
        "sample": (DEFAULT_TEMPLATE, "the default"),
    },
    "context_types": {"item_examples": filters.CONTEXT_TYPES},
}

#: The fields of `ManifestKey` by section and name.
_TABLE = r"""
top:
  version: {help: The version of this format.}
  name: {help: "What the manifest is called: ledger and locks have this name.",
    examples: [nightly-opportunities]}
  defaults: {help: What a pair that says nothing else gets., type: section}
  accounts: {help: "The accounts to call in. None: `default`, the ambient AWS credentials.", type: section,
    examples: [{main: {profile: partner, quota: {per_second: 1, per_day: 10000}}}]}
  pairs: {help: The snapshots to make., type: section,
    examples: [[{engagement: eng-0123456789abcd, resource: O1234567}]]}
  discover: {help: Pairs that a run takes from the service's own lists when it starts., type: section,
    examples: [{stages: [Committed, Launched]}]}
  include: {help: "Further files with pairs (YAML, CSV, NDJSON), inside this file's folder.", type: section,
    examples: [[pairs.csv]]}

context:
  account: {help: Which of the accounts makes the call., examples: [main],
    sample: [main, needed where there are several accounts]}
  catalog: {help: "AWS is production, Sandbox is for tests. There is no default.",
    sample: [Sandbox, "Sandbox, or AWS for production"]}
  resource_type: {help: What kind of resource is snapshotted.}
  template: {help: Which of the resource's data the snapshot holds.}

pair:
  engagement: {help: The engagement's id., examples: [eng-0123456789abcd]}
  resource: {help: The opportunity's id., examples: [O1234567]}
  resources: {help: Several opportunities of the engagement., type: texts, least: 1,
    examples: [[O1234567, O1234568]], item_help: The opportunity's id., item_examples: [O1234567]}

include:
  file: {}
  columns: {type: section, examples: [{engagement: Engagement Id, resource: Opportunity Id}],
    help: "Columns with other names than the keys of a pair, by key; null: the file does not hold this key."}

quota:
  per_second: {help: Calls a second; may be a fraction., type: rate, examples: [1], sample: ["1", ""]}
  per_minute: {help: Calls in any 60 seconds., type: count, least: 1, examples: [60]}
  per_hour: {help: Calls in any 60 minutes., type: count, least: 1, examples: [1000]}
  per_day: {help: Calls in any 24 hours., type: count, least: 1, examples: [10000],
    sample: ["10000", per_minute and per_hour work the same way]}
  reserve: {help: Calls of each window that are left to other programs., type: count, examples: [500],
    sample: ["500", calls of each window that are left to other programs]}

account:
  profile: {help: A profile of the AWS configuration., examples: [partner],
    like: [profile, '[^\x00-\x1f\x7f]{1,256}',
      "is not a profile name: one line of up to 256 printable characters"],
    sample: [partner, the credentials that assume the role]}
  region: {help: Only us-east-1 serves the API., examples: [us-east-1],
    like: [region, '[a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2}', is not a region name (e.g. us-east-1)]}
  role_arn: {help: "A role to assume, with the profile's credentials if any.",
    examples: [&role "arn:aws:iam::123456789012:role/Snapshot"], sample: [*role , ""],
    like: [role_arn, 'arn:aws[a-z-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,512}',
      "is not the ARN of a role (e.g. arn:aws:iam::123456789012:role/Snapshot)"]}
  external_id: {help: What the role's trust policy asks for., needs: role_arn, sample: [abc-123, ""]}
  session_name: {help: "The assumed role's session, as CloudTrail shows it.", needs: role_arn,
    examples: [nightly], sample: [nightly, as CloudTrail shows it]}
  endpoint_url: {help: Where calls go instead of AWS., examples: ["http://127.0.0.1:8000"]}
  quota: {type: section,
    help: "The account's quotas: sliding windows, never exceeded. What is not declared is found out."}
  tags: {help: Names to select accounts by., type: texts, item_help: A name shared by several accounts.,
    item_examples: [production],
    sample: ["[emea, pilot]", "--accounts tag:emea selects it with all others that have this tag"]}

discover:
  sources: {help: "Which lists are asked. Default: all.", type: text or texts}
  engagements: {help: Only these engagements., type: text or texts, item_help: An engagement's id.}
  created_by: {help: Only engagements that these AWS accounts have made., type: text or texts,
    item_help: An account's number., item_examples: ["123456789012"],
    like: [created_by, '[0-9]{12}|\w{1,12}', "does not match {pattern} (e.g. 123456789012)"]}
  context_types: {help: Only engagements with a context of these types., type: text or texts,
    item_help: A type.,
    like: [context type, '[A-Za-z]{1,64}', "does not match {pattern} (e.g. CustomerProject)"]}
  stages: {help: Only opportunities in these stages., type: text or texts,
    sample: ["[Committed, Launched]", of the opportunity]}
  changed_since: {examples: [36h, "2026-01-31"], sample: [36h, or 2026-01-31],
    help: "Only opportunities modified since: a time (UTC), or a span before now such as 36h."}
"""


def _sections() -> Iterator[tuple[ManifestKey, ...]]:
    for section in yaml.load(_TABLE, Loader=yaml.CSafeLoader).values():
        yield tuple(_key(name, _FROM_MODEL.get(name, {}) | given) for name, given in section.items())


def _key(name: str, fields: dict[str, Any]) -> ManifestKey:
    fields = {field: tuple(one) if isinstance(one, list) else one for field, one in fields.items()}
    like = fields.pop("like", None)
    fields["check"] = _like(*like) if like else _CHECKS.get(name)
    fields["type"] = ValueType(fields.get("type", "text"))
    return ManifestKey(name, **fields)


#: `CONTEXT`: what a pair, the defaults and `discover` may say of how a snapshot is made; `INCLUDE`: a file of
#: `include` that is more than a name.
TOP, CONTEXT, _PAIR, INCLUDE, QUOTA, ACCOUNT, _DISCOVER = _sections()
#: One pair; also the columns of a CSV file.
PAIR = _PAIR + CONTEXT
DISCOVER = CONTEXT + _DISCOVER
#: A YAML file that a manifest includes.
INCLUDED_FILE = tuple(key for key in TOP if key.name in {"version", "defaults", "pairs"})
