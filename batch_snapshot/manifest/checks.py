"""What single values may be."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from batch_snapshot.endpoints import has_credentials, is_url
from batch_snapshot.manifest import filters
from batch_snapshot.manifest.problems import quoted, quoted_ascii, suggestion
from batch_snapshot.manifest.service_model import TEMPLATES, Shape

#: Takes a text; returns what is wrong with it and the fix, or None.
Problem: TypeAlias = Callable[[str], str | None]


class Check(NamedTuple):
    problem: Problem
    #: The same as JSON Schema, as far as that can say it.
    schema: Callable[[], dict[str, Any]]


#: Of manifests, accounts and tags: safe in a file's name.
NAME = r"[A-Za-z0-9._-]{1,64}"
#: Before `NAME`: the two names that mean folders are none.
NOT_DOTS = r"(?!\.{1,2}$)"


def check_name(text: str, what: str = "name") -> str | None:
    """The two names that mean folders are refused: names become parts of paths."""
    if re.fullmatch(NAME, text) and text not in {".", ".."}:
        return None
    hint = "letters, digits, dots and dashes, e.g. nightly-1"
    return f"{what} {quoted_ascii(text)} does not match {NAME} ({hint})"


def name(what: str) -> Check:
    return Check(lambda text: check_name(text, what), lambda: pattern_schema(NOT_DOTS + NAME))


def shape(what: str, shapes: Callable[[], Mapping[str, Shape]], parameter: str, hint: str) -> Check:
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


def choice(what: str, choices: Callable[[], Sequence[str]]) -> Check:
    def problem(text: str) -> str | None:
        if text in choices():
            return None
        return f"{what} {quoted_ascii(text)} is not known: {suggestion(text, choices())}"

    return Check(problem, lambda: {"enum": list(choices())})


def like(what: str, pattern: str, fault: str) -> Check:
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
        return "credentials don't belong in a manifest: remove what stands before @ in endpoint_url"
    if not is_url(text):
        return f"endpoint_url {quoted(text)} is not an http or https URL: write e.g. http://127.0.0.1:8000"
    return None


def check_changed_since(text: str) -> str | None:
    try:
        filters.since(text, datetime(2026, 1, 1, tzinfo=UTC))
    except ValueError as error:
        return f"changed_since: {error}"
    return None


def template_warning(text: str) -> str | None:
    if text in TEMPLATES:
        return None
    hint = "; OpportunitySummary is a payload's key, not a template" if text == "OpportunitySummary" else ""
    return f"template {quoted(text)} is not one known today ({', '.join(TEMPLATES)}){hint}"
