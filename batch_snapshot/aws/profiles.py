"""AWS's shared configuration files: whether they can be read, and which endpoint a profile names."""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from batch_snapshot.endpoints import IGNORE, check_endpoint
from batch_snapshot.errors import InputError
from batch_snapshot.operations import SERVICE

#: The most bytes of a file that is read for credentials; the largest real ones have some hundred KB.
LARGEST = 4 * 1024 * 1024

#: The variables that name the files, and the paths where they are not set.
_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
#: Variables of older tools, which botocore reads too.
_OLDER = ("AWS_CREDENTIAL_FILE", "BOTO_CONFIG")


def files(environ: Mapping[str, str]) -> dict[Path, str]:
    """The files that botocore would read, and the variables that name them."""
    named = {variable: environ.get(variable) or path for variable, path in _FILES.items()}
    named |= {variable: environ[variable] for variable in _OLDER if environ.get(variable)}
    # Unlike pathlib's, os.path's function leaves a path with an unknown user as it is.
    expanded = {name: os.path.expanduser(os.path.expandvars(path)) for name, path in named.items()}  # noqa: PTH111
    return {Path(path): variable for variable, path in expanded.items()}


def problem(environ: Mapping[str, str]) -> str | None:
    """Why one of the files cannot be read safely; None: all can."""
    for path, variable in files(environ).items():
        # botocore ignores what does not exist.
        with suppress(OSError, ValueError):
            if not path.is_dir() and path != Path("/dev/null") and (why := unsafe(path)):
                return f"{path} ({variable}) {why}"
    return None


def unsafe(path: Path, most: int = LARGEST) -> str | None:
    """Why a file that exists cannot be read safely: it is too long, or may never end; None: it can."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    return f"has {found.st_size:,} bytes; at most {most:,} are read" if found.st_size > most else None


def endpoints(profiles: Iterable[str | None], environ: Mapping[str, str]) -> dict[str | None, str]:
    """The endpoint of Partner Central that each profile names, by `endpoint_url` or its `services`.

    The profile None is the one of the environment. What is no endpoint raises `InputError`.
    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    # Importing botocore takes a tenth of a second, and few files name endpoints.
    if environ.get(IGNORE, "").lower() == "true" or problem(environ) or not _may_name_endpoints(environ):
        return {}
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        full = Session().full_config
    except BotoCoreError:  # the error is reported when the profile is opened
        return {}
    default = environ.get("AWS_DEFAULT_PROFILE") or environ.get("AWS_PROFILE") or "default"
    found = {profile: _endpoint_of(full, profile or default) for profile in set(profiles)}
    return {profile: url for profile, url in found.items() if url}


def _may_name_endpoints(environ: Mapping[str, str]) -> bool:
    for path in files(environ):
        try:
            text = path.read_bytes() if path.is_file() else b""
        except OSError:
            continue
        if b"endpoint_url" in text or b"services" in text:
            return True
    return False


def _endpoint_of(full: Mapping[str, Mapping[str, Mapping[str, str]]], profile: str) -> str | None:
    from botocore.configprovider import ConfiguredEndpointProvider
    from botocore.exceptions import InvalidConfigError

    scoped = full["profiles"].get(profile, {})
    if scoped.get("ignore_configured_endpoint_urls", "").lower() == "true":
        return None
    try:
        url = ConfiguredEndpointProvider(full, scoped, SERVICE, environ={}).provide()
    except InvalidConfigError as error:
        raise InputError(f"profile {profile}: {error}") from None
    except AttributeError:  # a word where a block should be
        raise InputError(
            f"profile {profile}: its services section must hold blocks: a service's name with = and nothing "
            "after it, then indented lines such as endpoint_url = https://…"
        ) from None
    return check_endpoint(url, f"endpoint_url of profile {profile}") if url else None
