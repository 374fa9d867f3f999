"""Single values: taking them out of a mapping, and what each may be.

A check takes the text and returns what is wrong with it and the fix, or None.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batch_snapshot.manifest.problems import meant, shown, spelled
from batch_snapshot.manifest.service_model import CATALOGS, TEMPLATES, Shape, role_input, snapshot_input
from batch_snapshot.manifest.yaml_events import Broken, Fields, Items, Scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import TypeAlias

    from batch_snapshot.manifest.problems import Complain
    from batch_snapshot.manifest.yaml_events import Node

    Check: TypeAlias = Callable[[str], str | None]

#: Of manifests, accounts and tags: safe in a file's name.
NAME = r"[A-Za-z0-9._-]{1,64}"
REGION = r"[a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2}"
ROLE = r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,512}"

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


def check_keys(fields: Fields, known: Collection[str], where: str, complain: Complain) -> None:
    """Complain about the keys that mean nothing in `where`; a secret is never shown."""
    for key in fields.nodes:
        if key not in known:
            unknown_key(key, fields.line_of(key), known, where, complain)


def unknown_key(key: str, line: int, known: Collection[str], where: str, complain: Complain) -> None:
    """Complain about one key."""
    if key.lower() in _SECRETS:
        complain(
            line, f"credentials don't belong in a manifest ({key}): name a profile or a role_arn in accounts"
        )
    else:
        complain(line, f"unknown key {shown(key)} in {where}: {meant(key, known)}")


def take(fields: Fields, key: str, complain: Complain) -> Scalar | None:
    """The text under `key`; None where there is none, or where it was complained about."""
    node = fields.nodes.get(key)
    return None if node is None else as_text(node, key, complain)


def as_text(node: Node, what: str, complain: Complain) -> Scalar | None:
    """`node` if it is a text; None if it is absent, or was complained about."""
    if isinstance(node, Scalar):
        if node.text and not node.absent:
            return node
        if not node.plain:
            complain(node.line, f"{what} is empty: give it a value or remove it")
    elif not isinstance(node, Broken):
        kind = "a list" if isinstance(node, Items) else "a mapping"
        complain(node.line, f"{what} must be a single text, not {kind}")
    return None


def take_checked(fields: Fields, key: str, check: Check, complain: Complain) -> str | None:
    """The text under `key` that passes `check`; None where there is none, or it was complained about."""
    scalar = take(fields, key, complain)
    if scalar is None:
        return None
    wrong = check(scalar.text)
    if wrong is None:
        return scalar.text
    complain(scalar.line, wrong)
    return None


def check_name(text: str, what: str = "name") -> str | None:
    """Names become parts of paths, so the two that mean folders are refused."""
    if re.fullmatch(NAME, text) and text not in {".", ".."}:
        return None
    return f"{what} {spelled(text)} does not match {NAME} (letters, digits, dots and dashes, e.g. nightly-1)"


def check_account(text: str) -> str | None:
    """What is wrong with an account's name."""
    return check_name(text, "account")


def check_engagement(text: str) -> str | None:
    """What is wrong with an engagement id."""
    shape = snapshot_input()["EngagementIdentifier"]
    return _match(shape, "engagement", text, "an engagement id, e.g. eng-0123456789abcd")


def check_resource(text: str) -> str | None:
    """What is wrong with a resource id."""
    return _match(
        snapshot_input()["ResourceIdentifier"], "resource", text, "an opportunity id, e.g. O1234567"
    )


def check_template(text: str) -> str | None:
    """What is wrong with a template's name; an unknown one is only a warning."""
    shape = snapshot_input()["ResourceSnapshotTemplateIdentifier"]
    return _match(shape, "template", text, f"e.g. {TEMPLATES[0]}")


def doubt_template(text: str) -> str | None:
    """A warning about a template that is not known to exist."""
    if text in TEMPLATES:
        return None
    hint = "; OpportunitySummary is a payload's key, not a template" if text == "OpportunitySummary" else ""
    return f"template {shown(text)} is not one known today ({', '.join(TEMPLATES)}){hint}"


def check_catalog(text: str) -> str | None:
    """What is wrong with a catalog."""
    return _choice("catalog", text, CATALOGS)


def check_resource_type(text: str) -> str | None:
    """What is wrong with a resource type."""
    return _choice("resource_type", text, snapshot_input()["ResourceType"].choices)


def check_profile(text: str) -> str | None:
    """A profile's name is whatever the AWS configuration calls it, on one line."""
    if text.isprintable() and len(text) <= 256:
        return None
    return f"profile {shown(text)} is no profile's name: one line of up to 256 printable characters"


def check_region(text: str) -> str | None:
    """What is wrong with a region."""
    if re.fullmatch(REGION, text):
        return None
    return f"region {shown(text)} is no region's name (e.g. us-east-1)"


def check_role_arn(text: str) -> str | None:
    """What is wrong with a role's ARN."""
    if re.fullmatch(ROLE, text):
        return None
    return f"role_arn {shown(text)} is no role's ARN (e.g. arn:aws:iam::123456789012:role/Snapshot)"


def check_external_id(text: str) -> str | None:
    """What is wrong with an external id."""
    return _match(role_input()["ExternalId"], "external_id", text, "as the role's trust policy names it")


def check_session_name(text: str) -> str | None:
    """What is wrong with a role session's name."""
    return _match(role_input()["RoleSessionName"], "session_name", text, "e.g. nightly-snapshots")


def check_endpoint_url(text: str) -> str | None:
    """What is wrong with an endpoint; one that holds a password is refused without showing it."""
    fix = "write e.g. http://127.0.0.1:8000"
    try:
        url = urlsplit(text)
        good = url.scheme in {"http", "https"} and bool(url.hostname) and (url.port or 1) > 0
        secret = "@" in (url.netloc if good else text)
    except ValueError:
        good, secret = False, "@" in text
    if secret:
        return "credentials don't belong in a manifest: remove what stands before @ in endpoint_url"
    if not good or not text.isprintable() or " " in text:
        return f"endpoint_url {shown(text)} is no http or https URL: {fix}"
    return None


def _match(shape: Shape, what: str, text: str, example: str) -> str | None:
    if shape.regex.fullmatch(text):
        return None
    return f"{what} {spelled(text)} does not match {shape.form} ({example})"


def _choice(what: str, text: str, choices: tuple[str, ...]) -> str | None:
    if text in choices:
        return None
    same = [choice for choice in choices if choice.lower() == text.lower()]
    fix = f"write {' or '.join(same or choices)}"
    return f"{what} {spelled(text)} is not one of {', '.join(choices)}: {fix}"


#: What a row, or the defaults, may say of how a snapshot is made.
CONTEXT: dict[str, Check] = {
    "account": check_account,
    "catalog": check_catalog,
    "resource_type": check_resource_type,
    "template": check_template,
}
