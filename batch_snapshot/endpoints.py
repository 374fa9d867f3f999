"""Which endpoint the environment names, and what may be called an endpoint at all. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batch_snapshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What botocore would heed, the first that is set.
VARIABLES = ("AWS_ENDPOINT_URL_PARTNERCENTRAL_SELLING", "AWS_ENDPOINT_URL")

#: Where credentials are fetched; botocore heeds these by itself.
_FOR_CREDENTIALS = ("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_SSO", "AWS_ENDPOINT_URL_SSO_OIDC")

#: Makes botocore heed none of them.
IGNORE = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"


def configured(environ: Mapping[str, str]) -> str | None:
    """The endpoint that the environment names, as botocore reads it; None: none.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html

    Raises:
        InputError: it is no URL, or bears credentials.
    """
    if environ.get(IGNORE, "").lower() == "true":
        return None
    named = next((name for name in VARIABLES if environ.get(name)), None)
    return checked(environ[named], named) if named else None


def check_others(environ: Mapping[str, str]) -> None:
    """Check the endpoints that the environment names for what fetches credentials.

    Raises:
        InputError: one is no URL, or bears credentials.
    """
    if environ.get(IGNORE, "").lower() != "true":
        for name in _FOR_CREDENTIALS:
            if environ.get(name):
                checked(environ[name], name)


def checked(url: str, source: str) -> str:
    """Check a URL that `source`, a flag or a variable, gives for an endpoint.

    Raises:
        InputError: it is no URL, or bears credentials.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1) > 0
        secret = bool(parts.username or parts.password)
    except ValueError:
        valid, secret = False, False
    if secret or (not valid and "@" in url):
        raise InputError(f"{source}: leave credentials out of the URL; name a --profile")
    if not valid:
        raise InputError(f"{source} {url}: give a URL such as http://127.0.0.1:8080")
    return url
