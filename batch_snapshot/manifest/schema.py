"""The manifest's JSON Schema, for editors; `load` checks more (files, accounts, YAML's own traps).

Draft-07, which yaml-language-server supports best. Patterns of ids come from botocore's model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batch_snapshot.manifest import filters, values
from batch_snapshot.manifest.service_model import CATALOGS, TEMPLATES, role_input, snapshot_input

if TYPE_CHECKING:
    from batch_snapshot.manifest.service_model import Shape


def schema() -> dict[str, object]:
    """The schema of a manifest, as JSON values."""
    context = _context()
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "batch-snapshot manifest",
        "description": "Which AWS Partner Central resource snapshots are to be made, and in which accounts.",
        "type": "object",
        "additionalProperties": False,
        "required": ["version", "name"],
        "anyOf": [{"required": [key]} for key in ("pairs", "include", "discover")],
        "properties": {
            "version": {"const": 1, "description": "The version of this format."},
            "name": _text(
                rf"(?!\.{{1,2}}$){values.NAME}",
                "What the manifest is called: ledger and locks bear this name.",
                "nightly-opportunities",
            ),
            "defaults": _mapping("What a pair that says nothing else gets.", context),
            "accounts": {
                "description": "The accounts to call in. None: `default`, the ambient AWS credentials.",
                "type": ["object", "null"],
                "propertyNames": {"pattern": rf"^(?!\.{{1,2}}$){values.NAME}$"},
                "additionalProperties": _account(),
                "examples": [{"main": {"profile": "partner", "quota": {"per_second": 1, "per_day": 10000}}}],
            },
            "pairs": {
                "description": "The snapshots to make.",
                "type": ["array", "null"],
                "items": _pair(context),
                "examples": [[{"engagement": "eng-0123456789abcd", "resource": "O1234567"}]],
            },
            "discover": {
                "description": "Pairs that a run takes from the service's own lists when it starts.",
                "oneOf": [_live(context), {"type": "array", "items": _live(context)}, {"type": "null"}],
                "examples": [{"stages": ["Committed", "Launched"]}],
            },
            "include": {
                "description": "Further files with pairs (YAML, CSV, NDJSON), inside this file's folder.",
                "type": ["array", "null"],
                "items": {"oneOf": [_file("ya?ml|csv|ndjson|jsonl"), _include(context)]},
                "uniqueItems": True,
                "examples": [["pairs.csv"]],
            },
        },
    }


def _context() -> dict[str, Any]:
    shapes = snapshot_input()
    return {
        "account": _text(values.NAME, "Which of the accounts makes the call.", "main"),
        "catalog": {
            "description": "AWS is production, Sandbox is for tests. There is no default.",
            "enum": list(CATALOGS),
        },
        "resource_type": {
            "description": "What kind of resource is snapshotted.",
            "enum": list(shapes["ResourceType"].choices),
            "default": "Opportunity",
        },
        "template": {
            **_shape(
                shapes["ResourceSnapshotTemplateIdentifier"],
                "Which of the resource's data the snapshot holds.",
                *TEMPLATES,
            ),
            "default": TEMPLATES[0],
        },
    }


def _pair(context: dict[str, Any]) -> dict[str, Any]:
    shapes = snapshot_input()
    resource = _shape(shapes["ResourceIdentifier"], "The opportunity's id.", "O1234567")
    pair = _mapping(
        "One snapshot (resource), or one for each of several resources of an engagement (resources).",
        {
            "engagement": _shape(
                shapes["EngagementIdentifier"], "The engagement's id.", "eng-0123456789abcd"
            ),
            "resource": resource,
            "resources": {
                "description": "Several opportunities of the engagement.",
                "type": "array",
                "minItems": 1,
                "items": resource,
                "examples": [["O1234567", "O1234568"]],
            },
            **context,
        },
    )
    one_of = [{"required": ["resource"]}, {"required": ["resources"]}]
    return {**pair, "type": "object", "required": ["engagement"], "oneOf": one_of}


def _file(endings: str) -> dict[str, Any]:
    return {"type": "string", "pattern": rf"^[^/].*\.(?:{endings})$"}


def _include(context: dict[str, Any]) -> dict[str, Any]:
    keys = ("engagement", "resource", "resources", *context)
    column = {"type": ["string", "null"], "pattern": r"\S"}
    names = _mapping(
        "Columns with other names than the keys of a pair, by key; null: the file does not hold this key.",
        dict.fromkeys(keys, column),
    )
    examples = [{"engagement": "Engagement Id", "resource": "Opportunity Id"}]
    return {
        "description": "A file, and the names of its columns.",
        "type": "object",
        "additionalProperties": False,
        "required": ["file"],
        "properties": {
            "file": _file("ya?ml|csv|ndjson|jsonl"),
            "columns": {**names, "examples": examples},
        },
        # Only CSV files have columns.
        "dependencies": {"columns": {"properties": {"file": _file("csv")}}},
    }


def _live(context: dict[str, Any]) -> dict[str, Any]:
    engagement = snapshot_input()["EngagementIdentifier"]
    lists = {
        "sources": ("Which lists are asked. Default: both.", {"enum": list(filters.SOURCES)}),
        "engagements": ("Only these engagements.", _shape(engagement, "An engagement's id.")),
        "created_by": (
            "Only engagements that these AWS accounts have made.",
            _text(r"[0-9]{12}|\w{1,12}", "An account's number.", "123456789012"),
        ),
        "context_types": (
            "Only engagements with a context of these types.",
            _text(r"[A-Za-z]{1,64}", "A type.", *filters.CONTEXT_TYPES),
        ),
        "stages": ("Only opportunities in these stages.", {"enum": list(filters.STAGES)}),
    }
    found = {
        name: {"description": about, "oneOf": [item, {"type": "array", "items": item}]}
        for name, (about, item) in lists.items()
    }
    since = {
        "description": "Only opportunities modified since: a time (UTC), or a span before now such as 36h.",
        "type": "string",
        "examples": ["36h", "2026-01-31"],
    }
    return {
        "description": "Which pairs to take; what is left out takes all.",
        "type": "object",
        "additionalProperties": False,
        "properties": {**context, **found, "changed_since": since},
    }


def _account() -> dict[str, Any]:
    shapes = role_input()
    role = "arn:aws:iam::123456789012:role/Snapshot"
    return {
        **_mapping(
            "How calls in this account are signed, and how many it may make. Empty: the ambient credentials.",
            {
                "profile": _text(
                    r"[^\x00-\x1f\x7f]{1,256}", "A profile of the AWS configuration.", "partner"
                ),
                "region": {**_text(values.REGION, "Only us-east-1 serves the API.", "us-east-1")},
                "role_arn": _text(
                    values.ROLE, "A role to assume, with the profile's credentials if any.", role
                ),
                "external_id": _shape(shapes["ExternalId"], "What the role's trust policy asks for."),
                "session_name": _shape(
                    shapes["RoleSessionName"],
                    "The assumed role's session, as CloudTrail shows it.",
                    "nightly",
                ),
                "endpoint_url": _text(
                    r"https?://[^/@\s]+(?:/\S*)?", "Where calls go instead of AWS.", "http://127.0.0.1:8000"
                ),
                "quota": _quota(),
                "tags": {
                    "description": "Names to select accounts by.",
                    "type": ["array", "null"],
                    "items": _text(values.NAME, "A name shared by several accounts.", "production"),
                },
            },
        ),
        "dependencies": {"external_id": ["role_arn"], "session_name": ["role_arn"]},
    }


def _quota() -> dict[str, Any]:
    windows = {
        f"per_{unit}": {
            "description": f"Calls in any {stretch}.",
            "type": "integer",
            "minimum": 1,
            "examples": [example],
        }
        for unit, stretch, example in (
            ("minute", "60 seconds", 60),
            ("hour", "60 minutes", 1000),
            ("day", "24 hours", 10000),
        )
    }
    second = {
        "description": "Calls a second; may be a fraction.",
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1_000_000,
        "examples": [1],
    }
    reserve = {
        "description": "Calls of each window that are left to other programs.",
        "type": "integer",
        "minimum": 0,
        "examples": [500],
    }
    return _mapping(
        "The account's quotas: sliding windows, never exceeded. What is not declared is found out.",
        {"per_second": second, **windows, "reserve": reserve},
    )


def _mapping(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": description,
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": properties,
    }


def _text(pattern: str, description: str, *examples: str) -> dict[str, Any]:
    # Models mean the whole text; a JSON Schema's pattern may match anywhere in it
    found: dict[str, Any] = {"description": description, "type": "string", "pattern": f"^(?:{pattern})$"}
    return {**found, "examples": list(examples)} if examples else found


def _shape(shape: Shape, description: str, *examples: str) -> dict[str, Any]:
    found = _text(shape.pattern, description, *examples)
    if shape.shortest is not None:
        found["minLength"] = shape.shortest
    if shape.longest is not None:
        found["maxLength"] = shape.longest
    return found
