"""The chain of providers that give a profile's credentials: botocore's, with limits.

botocore waits for a `credential_process` as long as it runs and keeps all that it prints; it reads token
files of any kind to their end.
"""

import asyncio
import configparser
import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aioboto3
import anyio
from aiobotocore.credentials import (
    AioCredentialResolver,
    AioDeferredRefreshableCredentials,
    AioProfileProviderBuilder,
)
from botocore.credentials import SSOProvider
from botocore.exceptions import BotoCoreError, ClientError, ConfigParseError, MissingDependencyException
from botocore.utils import JSONFileCache

from batch_snapshot.aws import http, profiles, sdk
from batch_snapshot.aws.profiles import LARGEST
from batch_snapshot.models import REGION

#: The most bytes of a token's file; STS accepts 20,000 characters.
LONGEST_TOKEN = 1024 * 1024

#: Seconds to wait for the end of a process that was killed.
REAPED_WITHIN = 2.0

#: Where `aws sso login` stores tokens.
_SSO_TOKENS = "~/.aws/sso/cache"

_NO_LIMITS = "what gives credentials may take any time, and give any length"

_CHARACTERS = {"\n": "a line break", "\r": "a carriage return", "\t": "a tab", " ": "a blank"}

#: The parts of credentials: the variable of each, and its name.
_PARTS = {
    "access_key": ("AWS_ACCESS_KEY_ID", "the access key id"),
    "secret_key": ("AWS_SECRET_ACCESS_KEY", "the secret access key"),
    "token": ("AWS_SESSION_TOKEN", "the session token"),
}
#: Where credentials come from, by botocore's name of the provider.
_ORIGINS = {
    "assume-role": "that STS gave for the role of {profile}",
    "assume-role-with-web-identity": "that STS gave for the web identity of {profile}",
    "config-file": "of {profile} in the AWS config file",
    "container-role": "that the container's credentials endpoint gave",
    "custom-process": "that the credential_process of {profile} printed",
    "iam-role": "that the instance's metadata service gave",
    "shared-credentials-file": "of {profile} in the AWS credentials file",
    "sso": "that IAM Identity Center gave for {profile}",
}
#: By operation, the provider that calls it to get credentials.
_CALLERS = {
    "AssumeRole": "assume-role",
    "AssumeRoleWithWebIdentity": "assume-role-with-web-identity",
    "CreateToken": "sso",
    "GetRoleCredentials": "sso",
}


class CredentialsError(Exception):
    """What is configured gives no usable credentials; the message says why, and holds no secret."""


def session(core: Any, profile: str | None, within: float) -> tuple[Any, "Chain"]:
    """A session of a profile, and the chain that gives its credentials; a process has `within` seconds.

    A configuration file that cannot be read safely raises `CredentialsError`.
    """
    if why := profiles.problem(os.environ):
        raise CredentialsError(f"{why}; name another file")
    made = aioboto3.Session(botocore_session=core, profile_name=profile)
    if not core.get_config_variable("region"):
        # The API's own region. STS is called there too for a profile that has a role and no region.
        core.set_config_variable("region", REGION)
    return made, Chain(core, within)


class Chain(AioCredentialResolver):
    """botocore's chain of providers, with limits."""

    def __init__(self, core: Any, within: float) -> None:
        found = core.get_component("credential_provider").providers
        http.use_for_metadata(found)
        assume = next(provider for provider in found if provider.METHOD == "assume-role")
        builder = _LimitedProviders(core, assume.cache, within)
        # The profile that a role is assumed with has its own providers.
        sdk.replace(assume, "_profile_provider_builder", builder, _NO_LIMITS)
        resolve = getattr(assume, "_resolve_source_credentials", None)
        sdk.replace(
            assume,
            "_resolve_source_credentials",
            partial(_checked, resolve),
            "invalid credentials of a source_profile are not explained",
        )
        named = core.get_config_variable("profile") or "default"
        ours = builder.providers(
            profile_name=named, disable_env_vars=core.instance_variables().get("profile") is not None
        )
        by_method = {provider.METHOD: provider for provider in ours}
        super().__init__(providers=[by_method.get(provider.METHOD, provider) for provider in found])
        self._core = core
        #: The provider that was asked last: it gave the credentials, or failed.
        self.last: str | None = None
        self.profile = f"profile {named}"

    async def load_credentials(self) -> Any:
        for provider in self.providers:
            self.last = provider.METHOD
            try:
                credentials = await provider.load()
            except MissingDependencyException:
                # Newer versions read what `aws login` stores, but only with awscrt.
                break
            if credentials is not None:
                return credentials
        self.last = None
        if "login_session" in self._core.get_scoped_config():
            raise CredentialsError(
                f"{self.profile} signs in by `aws login`, which this program cannot read: give another "
                "profile `credential_process = aws configure export-credentials --format process --profile …`"
            )
        return None


async def _checked(resolve: Any, role: Mapping[str, str], profile: str) -> Any:
    credentials = await resolve(role, profile)
    if not isinstance(credentials, AioDeferredRefreshableCredentials):
        named = f"profile {role.get('source_profile') or profile}"
        check(await credentials.get_frozen_credentials(), credentials.method, named)
    return credentials


class _LimitedProviders(AioProfileProviderBuilder):
    def __init__(self, core: Any, cache: Any, within: float) -> None:
        tokens = _TokenCache(getattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", _SSO_TOKENS))
        super().__init__(core, cache=cache, sso_token_cache=tokens)
        self._within = within

    def providers(self, profile_name: str, *args: Any, **options: Any) -> Any:
        found = super().providers(profile_name, *args, **options)
        for provider in found:
            if provider.METHOD == "custom-process":
                run = partial(_run_process, profile_name, self._within)
                sdk.replace(provider, "_popen", run, _NO_LIMITS)
            elif provider.METHOD == "assume-role-with-web-identity":
                sdk.replace(provider, "_token_loader_cls", partial(partial, _token), _NO_LIMITS)
        return found


def _token(path: str) -> str:
    what = f"the web identity token file {path}"
    try:
        if why := profiles.unsafe(Path(path), LONGEST_TOKEN):
            raise CredentialsError(f"{what} {why}")
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError:
        raise CredentialsError(f"{what} is not text") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CredentialsError(f"{what} cannot be read ({why})") from None


class _TokenCache(JSONFileCache):
    def __getitem__(self, cache_key: str) -> Any:
        convert = getattr(self, "_convert_cache_key", None)
        if convert is None:
            sdk.degraded("JSONFileCache._convert_cache_key", _NO_LIMITS)
        path = Path(convert(cache_key) if convert else os.devnull)
        with suppress(OSError):
            if convert and (why := profiles.unsafe(path)):
                raise CredentialsError(f"the cache of `aws sso login`, {path}, {why}")
        return super().__getitem__(cache_key)


class _Ended(NamedTuple):
    """A process that has ended, as botocore uses one."""

    returncode: int
    output: tuple[bytes, bytes]

    async def communicate(self) -> tuple[bytes, bytes]:
        return self.output


async def _run_process(profile: str, within: float, *command: str, **_: Any) -> _Ended:
    """Run a `credential_process` to its end; if that takes too long, end all that it started."""
    name, pipe = f"the credential_process of profile {profile}", asyncio.subprocess.PIPE
    nothing = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=nothing, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise CredentialsError(f"{name} cannot be started ({why})") from None
    try:
        async with asyncio.timeout(within):
            output = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            return _Ended(await process.wait(), output)
    except BaseException as error:
        await _kill(process)
        if not isinstance(error, TimeoutError | OverflowError):
            raise
        took = isinstance(error, TimeoutError)
        why = f"did not end within {within:g} s" if took else f"printed more than {LARGEST:,} bytes"
        raise CredentialsError(
            f"{name} {why}; it was killed, with all processes that it had started"
        ) from None


async def _read(stream: Any) -> bytes:
    try:
        await stream.readexactly(LARGEST + 1)
    except asyncio.IncompleteReadError as end:
        return end.partial
    raise OverflowError


async def _kill(process: Any) -> None:
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process that left the group may hold the pipes open.
    process._transport.close()  # noqa: SLF001 - asyncio offers no other way
    with anyio.CancelScope(shield=True), anyio.move_on_after(REAPED_WITHIN):
        await process.wait()


def check(frozen: Any, method: str | None, profile: str) -> None:
    """Raise `CredentialsError` unless credentials can be written into the headers of a call."""
    for part, (variable, name) in _PARTS.items():
        value = getattr(frozen, part)
        if (not value and part == "token") or not (problem := _problem(value)):
            continue
        named = f"{name} {_ORIGINS.get(method or '', 'of {profile}').format(profile=profile)}"
        if method == "env":
            older = not os.environ.get(variable) and part == "token"
            named = "AWS_SECURITY_TOKEN" if older else variable
        raise CredentialsError(f"{named} {problem}; it is not shown")


def _problem(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return "is missing" if not value else "is not text"
    place = next((at for at, char in enumerate(value) if not "!" <= char <= "~"), None)
    if place is None:
        return None
    other = "a control character" if value[place].isascii() else "a character that is not ASCII"
    return f"holds {_CHARACTERS.get(value[place], other)} at position {place + 1} of {len(value)}"


def provider_of(error: Exception) -> str | None:
    """The provider that an error names; None: it names none."""
    if isinstance(error, ClientError):
        return _CALLERS.get(error.operation_name)
    named = getattr(error, "kwargs", {}).get("provider")
    return named if isinstance(named, str) else None


def explained(error: Exception) -> str | None:
    """What an error of botocore means whose own message may quote secrets; None: it is another error."""
    if isinstance(error, ConfigParseError):
        return _unparsed(str(error.kwargs.get("path")), error.kwargs.get("error"))
    if isinstance(error, BotoCoreError) and provider_of(error) == "container-role":
        status = re.search(r"Received non 200 response (\d{3}) ", str(error))
        return f"the container's credentials endpoint {f'answered {status[1]}' if status else 'gave none'}"
    if isinstance(error, TimeoutError) and not str(error):
        return "there were no credentials within the time-out"
    return None


def _unparsed(path: str, error: object) -> str:
    """Where a configuration file is invalid; its lines may hold secrets."""
    if isinstance(error, configparser.DuplicateSectionError | configparser.DuplicateOptionError):
        option = getattr(error, "option", None)
        what = f"option {option} appears twice in section [{error.section}]" if option else None
        return f"{path}:{error.lineno}: {what or f'section [{error.section}] appears twice'}"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"{path}:{error.lineno}: a line before the first [section]; its text is not shown"
    if isinstance(error, configparser.ParsingError):
        lines = ", ".join(str(number) for number, _ in error.errors[:5])
        return f"{path}: line {lines}: neither a [section] nor key = value; its text is not shown"
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: is not UTF-8"
    return f"{path}: a nested block has a line without = in it"
