"""The manifest's JSON Schema, for editors; `load` checks more (files, accounts, YAML's own traps).

Draft-07, which yaml-language-server supports best. Patterns of ids come from botocore's model.
"""

from collections.abc import Sequence
from typing import Any

from batch_snapshot.manifest import keys
from batch_snapshot.manifest.keys import ManifestKey, ValueType


def schema() -> dict[str, object]:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "batch-snapshot manifest",
        "description": "Which AWS Partner Central resource snapshots are to be made, and in which accounts.",
        "type": "object",
        "additionalProperties": False,
        "required": ["version", "name"],
        "anyOf": [{"required": [key]} for key in ("pairs", "include", "discover")],
        "properties": _properties(
            keys.TOP,
            version={"const": 1},
            defaults=_mapping(keys.CONTEXT),
            accounts=_accounts(),
            pairs={"type": ["array", "null"], "items": _pair()},
            discover={"oneOf": [_discover(), {"type": "array", "items": _discover()}, {"type": "null"}]},
            include={
                "type": ["array", "null"],
                "items": {"oneOf": [_file("ya?ml|json|csv|ndjson|jsonl"), _include()]},
                "uniqueItems": True,
            },
        ),
    }


def _properties(section: Sequence[ManifestKey], **sections: dict[str, Any]) -> dict[str, Any]:
    return {
        key.name: {
            **_described(key.help, key.examples, key.default),
            **(sections.get(key.name) or _value(key)),
        }
        for key in section
    }


def _value(key: ManifestKey) -> dict[str, Any]:
    if key.type is ValueType.RATE:
        return {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1_000_000}
    if key.type is ValueType.COUNT:
        return {"type": "integer", "minimum": key.least}
    form = key.check.schema() if key.check else {}
    item = {**_described(key.item_help, key.item_examples), **form}
    if key.type is ValueType.TEXT_OR_TEXTS:
        return {"oneOf": [item, {"type": "array", "items": item}]}
    if key.type is ValueType.TEXTS:
        least = {"type": "array", "minItems": key.least} if key.least else {"type": ["array", "null"]}
        return {**least, "items": item}
    return form


def _described(text: str, examples: Sequence[Any], default: str | None = None) -> dict[str, Any]:
    described = {"description": text, "default": default, "examples": list(examples)}
    return {name: value for name, value in described.items() if value}


def _mapping(section: Sequence[ManifestKey], **sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": _properties(section, **sections),
    }


def _accounts() -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "propertyNames": {"pattern": f"^{keys.NOT_DOTS}{keys.NAME}$"},
        "additionalProperties": {
            "description": "How calls in this account are signed, and how many it may make. Empty: the "
            "ambient credentials.",
            **_mapping(keys.ACCOUNT, quota=_mapping(keys.QUOTA)),
            "dependencies": {key.name: [key.needs] for key in keys.ACCOUNT if key.needs},
        },
    }


def _pair() -> dict[str, Any]:
    return {
        "description": "One snapshot (resource), or one for each of several resources of an engagement "
        "(resources).",
        **_mapping(keys.PAIR),
        "type": "object",
        "required": ["engagement"],
        "oneOf": [{"required": ["resource"]}, {"required": ["resources"]}],
    }


def _discover() -> dict[str, Any]:
    return {
        "description": "Which pairs to take; what is left out takes all.",
        **_mapping(keys.DISCOVER),
        "type": "object",
    }


def _include() -> dict[str, Any]:
    column = {"type": ["string", "null"], "pattern": r"\S"}
    columns = {**_mapping(()), "properties": {key.name: column for key in keys.PAIR}}
    return {
        "description": "A file, and the names of its columns.",
        **_mapping(keys.INCLUDE, file=_file("ya?ml|json|csv|ndjson|jsonl"), columns=columns),
        "type": "object",
        "required": ["file"],
        # Only CSV files have columns.
        "dependencies": {"columns": {"properties": {"file": _file("csv")}}},
    }


def _file(endings: str) -> dict[str, Any]:
    return {"type": "string", "pattern": rf"^[^/].*\.(?:{endings})$"}
