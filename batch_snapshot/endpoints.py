"""URLs that can be called, and the endpoints that the environment names. Pure."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from batch_snapshot.errors import InputError

#: Name the service's endpoint, as botocore reads them: the first that is set.
_SERVICE_VARIABLES = ("AWS_ENDPOINT_URL_PARTNERCENTRAL_SELLING", "AWS_ENDPOINT_URL")

#: Name the endpoints that give credentials; botocore reads these by itself.
_CREDENTIAL_VARIABLES = ("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_SSO", "AWS_ENDPOINT_URL_SSO_OIDC")

#: Switches all of them off.
IGNORE = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"


def is_url(text: str) -> bool:
    """Whether it is an http or https URL, with a host and a port that can exist."""
    try:
        parts = urlsplit(text)
        # An empty part of a name, or one of more than 63 characters, cannot be resolved.
        host = (parts.hostname or "").encode("idna")
        valid = parts.scheme in {"http", "https"} and bool(host) and parts.port != 0
    except ValueError:
        return False
    return valid and text.isprintable() and " " not in text


def has_credentials(text: str) -> bool:
    """Whether a URL has credentials before its host; a text that is not a URL has them if it has an @."""
    return "@" in (urlsplit(text).netloc if is_url(text) else text)


def check_endpoint(url: str, source: str) -> str:
    """An endpoint's URL that `source`, a flag or a variable, names; `InputError` if it cannot be one."""
    if has_credentials(url):
        raise InputError(f"{source}: leave credentials out of the URL; name a --profile")
    if not is_url(url):
        raise InputError(f"{source} {url}: give a URL such as http://127.0.0.1:8080")
    return url


def environment_endpoint(environ: Mapping[str, str]) -> str | None:
    """The endpoint that the environment names, as botocore reads it, or None."""
    named = None if _ignored(environ) else next(filter(environ.get, _SERVICE_VARIABLES), None)
    return check_endpoint(environ[named], named) if named else None


def check_credential_endpoints(environ: Mapping[str, str]) -> None:
    """Check the endpoints that the environment names for what gives credentials."""
    for name in () if _ignored(environ) else filter(environ.get, _CREDENTIAL_VARIABLES):
        check_endpoint(environ[name], name)


def _ignored(environ: Mapping[str, str]) -> bool:
    return environ.get(IGNORE, "").lower() == "true"
