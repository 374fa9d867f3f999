"""The one table of manifest keys: where each may stand, its type, its check, its help.

Validation, the JSON Schema (`schema`), the manifest that `init` writes, the columns of CSV files and the
section `discover` derive from it. A new key is an entry here; an account's is a field of `models.Account`
too, from which the ledger's codec takes the texts that it keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from batch_snapshot.manifest import checks, filters
from batch_snapshot.manifest.checks import Check
from batch_snapshot.manifest.service_model import (
    CATALOGS,
    DEFAULT_RESOURCE_TYPE,
    DEFAULT_TEMPLATE,
    TEMPLATES,
    role_input,
    row_input,
)
from batch_snapshot.operations import SOURCES

#: The account of a manifest that names none: the ambient AWS credentials.
AMBIENT = "default"


class ValueType(Enum):
    TEXT = auto()
    TEXTS = auto()
    #: A list of texts, or one of them alone.
    TEXT_OR_TEXTS = auto()
    #: A whole number, from `least` on.
    COUNT = auto()
    RATE = auto()
    #: Other keys, or a list of such mappings.
    SECTION = auto()


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


def names(section: Sequence[ManifestKey]) -> frozenset[str]:
    return frozenset(key.name for key in section)


def text_checks(section: Sequence[ManifestKey]) -> dict[str, Check]:
    """The checks of a section's texts by key; for a list, that of each of its texts."""
    return {key.name: key.check for key in section if key.check is not None}


_ENGAGEMENT = checks.shape("engagement", row_input, "engagement", "an engagement id, e.g. eng-0123456789abcd")
_RESOURCE = checks.shape("resource", row_input, "resource", "an opportunity id, e.g. O1234567")
_ENDPOINT_URL = Check(checks.check_endpoint_url, lambda: checks.pattern_schema(r"https?://[^/@\s]+(?:/\S*)?"))
_ROLE_ARN = "arn:aws:iam::123456789012:role/Snapshot"

TOP = (
    ManifestKey("version", "The version of this format."),
    ManifestKey(
        "name",
        "What the manifest is called: ledger and locks bear this name.",
        check=checks.name("name"),
        examples=("nightly-opportunities",),
    ),
    ManifestKey("defaults", "What a pair that says nothing else gets.", ValueType.SECTION),
    ManifestKey(
        "accounts",
        "The accounts to call in. None: `default`, the ambient AWS credentials.",
        ValueType.SECTION,
        examples=({"main": {"profile": "partner", "quota": {"per_second": 1, "per_day": 10000}}},),
    ),
    ManifestKey(
        "pairs",
        "The snapshots to make.",
        ValueType.SECTION,
        examples=([{"engagement": "eng-0123456789abcd", "resource": "O1234567"}],),
    ),
    ManifestKey(
        "discover",
        "Pairs that a run takes from the service's own lists when it starts.",
        ValueType.SECTION,
        examples=({"stages": ["Committed", "Launched"]},),
    ),
    ManifestKey(
        "include",
        "Further files with pairs (YAML, CSV, NDJSON), inside this file's folder.",
        ValueType.SECTION,
        examples=(["pairs.csv"],),
    ),
)

#: A YAML file that a manifest includes.
INCLUDED_FILE = tuple(key for key in TOP if key.name in {"version", "defaults", "pairs"})

#: What a pair, the defaults and `discover` may say of how a snapshot is made.
CONTEXT = (
    ManifestKey(
        "account",
        "Which of the accounts makes the call.",
        check=checks.name("account"),
        examples=("main",),
        sample=("main", "needed where there are several accounts"),
    ),
    ManifestKey(
        "catalog",
        "AWS is production, Sandbox is for tests. There is no default.",
        check=checks.choice("catalog", lambda: CATALOGS),
        sample=("Sandbox", "Sandbox, or AWS for production"),
    ),
    ManifestKey(
        "resource_type",
        "What kind of resource is snapshotted.",
        check=checks.choice("resource_type", lambda: row_input()["resource_type"].choices),
        default=DEFAULT_RESOURCE_TYPE,
        sample=(DEFAULT_RESOURCE_TYPE, "the default"),
    ),
    ManifestKey(
        "template",
        "Which of the resource's data the snapshot holds.",
        check=checks.shape("template", row_input, "template", f"e.g. {DEFAULT_TEMPLATE}"),
        default=DEFAULT_TEMPLATE,
        examples=TEMPLATES,
        sample=(DEFAULT_TEMPLATE, "the default"),
    ),
)

#: One pair; also the columns of a CSV file.
PAIR = (
    ManifestKey("engagement", "The engagement's id.", check=_ENGAGEMENT, examples=("eng-0123456789abcd",)),
    ManifestKey("resource", "The opportunity's id.", check=_RESOURCE, examples=("O1234567",)),
    ManifestKey(
        "resources",
        "Several opportunities of the engagement.",
        ValueType.TEXTS,
        check=_RESOURCE,
        examples=(["O1234567", "O1234568"],),
        item_help="The opportunity's id.",
        item_examples=("O1234567",),
        least=1,
    ),
    *CONTEXT,
)

#: A file of `include` that is more than a name.
INCLUDE = (
    ManifestKey("file"),
    ManifestKey(
        "columns",
        "Columns with other names than the keys of a pair, by key; null: the file does not hold this key.",
        ValueType.SECTION,
        examples=({"engagement": "Engagement Id", "resource": "Opportunity Id"},),
    ),
)

QUOTA = (
    ManifestKey(
        "per_second", "Calls a second; may be a fraction.", ValueType.RATE, examples=(1,), sample=("1", "")
    ),
    ManifestKey("per_minute", "Calls in any 60 seconds.", ValueType.COUNT, examples=(60,), least=1),
    ManifestKey("per_hour", "Calls in any 60 minutes.", ValueType.COUNT, examples=(1000,), least=1),
    ManifestKey(
        "per_day",
        "Calls in any 24 hours.",
        ValueType.COUNT,
        examples=(10000,),
        least=1,
        sample=("10000", "per_minute and per_hour work the same way"),
    ),
    ManifestKey(
        "reserve",
        "Calls of each window that are left to other programs.",
        ValueType.COUNT,
        examples=(500,),
        sample=("500", "calls of each window that are left to other programs"),
    ),
)

ACCOUNT = (
    ManifestKey(
        "profile",
        "A profile of the AWS configuration.",
        check=checks.like(
            "profile",
            r"[^\x00-\x1f\x7f]{1,256}",
            "is not a profile name: one line of up to 256 printable characters",
        ),
        examples=("partner",),
        sample=("partner", "the credentials that assume the role"),
    ),
    ManifestKey(
        "region",
        "Only us-east-1 serves the API.",
        check=checks.like(
            "region", r"[a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2}", "is not a region name (e.g. us-east-1)"
        ),
        examples=("us-east-1",),
    ),
    ManifestKey(
        "role_arn",
        "A role to assume, with the profile's credentials if any.",
        check=checks.like(
            "role_arn",
            r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,512}",
            f"is not the ARN of a role (e.g. {_ROLE_ARN})",
        ),
        examples=(_ROLE_ARN,),
        sample=(_ROLE_ARN, ""),
    ),
    ManifestKey(
        "external_id",
        "What the role's trust policy asks for.",
        check=checks.shape("external_id", role_input, "ExternalId", "as the role's trust policy names it"),
        needs="role_arn",
        sample=("abc-123", ""),
    ),
    ManifestKey(
        "session_name",
        "The assumed role's session, as CloudTrail shows it.",
        check=checks.shape("session_name", role_input, "RoleSessionName", "e.g. nightly-snapshots"),
        examples=("nightly",),
        needs="role_arn",
        sample=("nightly", "as CloudTrail shows it"),
    ),
    ManifestKey(
        "endpoint_url",
        "Where calls go instead of AWS.",
        check=_ENDPOINT_URL,
        examples=("http://127.0.0.1:8000",),
    ),
    ManifestKey(
        "quota",
        "The account's quotas: sliding windows, never exceeded. What is not declared is found out.",
        ValueType.SECTION,
    ),
    ManifestKey(
        "tags",
        "Names to select accounts by.",
        ValueType.TEXTS,
        check=checks.name("tag"),
        item_help="A name shared by several accounts.",
        item_examples=("production",),
        sample=("[emea, pilot]", "--accounts tag:emea selects it with all others that have this tag"),
    ),
)

DISCOVER = (
    *CONTEXT,
    ManifestKey(
        "sources",
        "Which lists are asked. Default: all.",
        ValueType.TEXT_OR_TEXTS,
        check=checks.choice("source", lambda: SOURCES),
    ),
    ManifestKey(
        "engagements",
        "Only these engagements.",
        ValueType.TEXT_OR_TEXTS,
        check=_ENGAGEMENT,
        item_help="An engagement's id.",
    ),
    ManifestKey(
        "created_by",
        "Only engagements that these AWS accounts have made.",
        ValueType.TEXT_OR_TEXTS,
        check=checks.like(
            "created_by", r"[0-9]{12}|\w{1,12}", "does not match {pattern} (e.g. 123456789012)"
        ),
        item_help="An account's number.",
        item_examples=("123456789012",),
    ),
    ManifestKey(
        "context_types",
        "Only engagements with a context of these types.",
        ValueType.TEXT_OR_TEXTS,
        check=checks.like(
            "context type", r"[A-Za-z]{1,64}", "does not match {pattern} (e.g. CustomerProject)"
        ),
        item_help="A type.",
        item_examples=filters.CONTEXT_TYPES,
    ),
    ManifestKey(
        "stages",
        "Only opportunities in these stages.",
        ValueType.TEXT_OR_TEXTS,
        check=checks.choice("stage", lambda: filters.STAGES),
        sample=("[Committed, Launched]", "of the opportunity"),
    ),
    ManifestKey(
        "changed_since",
        "Only opportunities modified since: a time (UTC), or a span before now such as 36h.",
        check=Check(checks.check_changed_since, lambda: {"type": "string"}),
        examples=("36h", "2026-01-31"),
        sample=("36h", "or 2026-01-31"),
    ),
)
