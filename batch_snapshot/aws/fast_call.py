"""A call without what is the same for each: it is learned once, from a call that botocore makes itself.

For every call botocore builds its user agent anew, evaluates its endpoint rules, checks and serialises
the parameters, and sorts what it signs: two thirds of the processor time of a call. Here botocore is
asked once how it would call, and the same is put together the short way. That is taken only if both
calls are the same to the byte, signature and all; else, as with a botocore that has changed, there is
no short way and the client's own is gone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
from botocore import xform_name
from botocore.auth import SIGV4_TIMESTAMP
from botocore.parsers import create_parser

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    Exchange = Callable[["SignedCall"], Awaitable["FastResponse"]]

#: Differs from call to call by its nature.
_INVOCATION = "amz-sdk-invocation-id"
_TOKEN = "X-Amz-Security-Token"  # noqa: S105 - a header's name


#: Whether this task is learning: another's call of the same client is none of it, and is sent.
_learning: ContextVar[bool] = ContextVar("learning", default=False)


class SignedCall(NamedTuple):
    """A call, ready to be sent by POST."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class FastResponse(NamedTuple):
    """What came back."""

    status: int
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes


class _Captured(Exception):  # noqa: N818 - no error: the request that would have been sent
    """Ends botocore's own call where it would have been sent."""

    def __init__(self, request: Any) -> None:
        super().__init__("captured")
        self.request = request


class FastCall:
    """One operation of one client, the short way."""

    def __init__(self, client: Any, operation: str, exchange: Exchange, request: Any) -> None:
        """Call `operation` (as the API names it) as `request` does, which botocore has made ready."""
        self._client = client
        self._exchange = exchange
        self._model = client.meta.service_model.operation_model(operation)
        self._parser = create_parser(client.meta.service_model.resolved_protocol)
        self._url: str = request.url
        headers = {name: _text(value) for name, value in request.headers.items()}
        self._kept = {name: headers[name] for name in ("X-Amz-Target", "Content-Type", "User-Agent")}
        self._attempt = headers["amz-sdk-request"]
        # AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …
        _, _, region, service, _ = headers["Authorization"].split(",")[0].split("/")
        self._region, self._service = region, service
        where = urlsplit(request.url)
        self._path = where.path or "/"
        self._host = where.netloc
        self._day: tuple[str, str, bytes] = ("", "", b"")

    def signed(self, parameters: Mapping[str, Any], credentials: Any, at: datetime) -> SignedCall:
        """Put a call together, signed at a time by (frozen) credentials."""
        body = json.dumps(parameters).encode()
        time = at.strftime(SIGV4_TIMESTAMP)
        headers = {
            **self._kept,
            "X-Amz-Date": time,
            **({_TOKEN: credentials.token} if credentials.token else {}),
        }
        headers["Authorization"] = self._authorization(headers, body, credentials, time)
        headers[_INVOCATION] = str(uuid4())
        headers["amz-sdk-request"] = self._attempt
        headers["Content-Length"] = str(len(body))
        return SignedCall(self._url, headers, body)

    def _authorization(self, headers: Mapping[str, str], body: bytes, credentials: Any, time: str) -> str:
        """Signature version 4, https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html."""
        token = f"x-amz-security-token:{credentials.token}\n" if credentials.token else ""
        names = f"content-type;host;x-amz-date;{'x-amz-security-token;' if token else ''}x-amz-target"
        canonical = (
            f"POST\n{self._path}\n\ncontent-type:{headers['Content-Type']}\nhost:{self._host}\n"
            f"x-amz-date:{time}\n{token}x-amz-target:{headers['X-Amz-Target']}\n\n{names}\n"
            f"{hashlib.sha256(body).hexdigest()}"
        )
        scope = f"{time[:8]}/{self._region}/{self._service}/aws4_request"
        told = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key(credentials.secret_key, scope), told.encode(), "sha256").hex()
        return (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )

    def _key(self, secret: str, scope: str) -> bytes:
        """The key for a day, a region and a service."""
        known, when, key = self._day
        if (known, when) != (secret, scope):
            key = f"AWS4{secret}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day = (secret, scope, key)
        return key

    async def call(self, parameters: Mapping[str, Any], credentials: Any, at: datetime) -> dict[str, Any]:
        """Call, and read the answer as the client would.

        Raises:
            ClientError: the service refused.
            Exception: whatever botocore raises where the exchange fails.
        """
        answer = await self._exchange(self.signed(parameters, credentials, at))
        if answer.status == 200 and (members := _members(answer.body)):
            return {**members, "ResponseMetadata": _metadata(answer)}
        return self._read(answer)

    def _read(self, answer: FastResponse) -> dict[str, Any]:
        """Read an answer by botocore's own parser."""
        raw = {"status_code": answer.status, "headers": answer.headers, "body": answer.body}
        name_error(raw)
        parsed = self._parser.parse(raw, self._model.output_shape)
        if answer.status < 300:
            # A `null` is parsed to nothing at all.
            return parsed or {"ResponseMetadata": _metadata(answer)}
        code = parsed.get("Error", {}).get("Code")
        if shape := code and self._client.meta.service_model.shape_for_error_code(code):
            parsed.update(self._parser.parse(raw, shape))
        raise self._client.exceptions.from_code(code)(parsed, self._model.name)


def name_error(response_dict: dict[str, Any], **_: Any) -> None:
    """Write an error's code into the body where only the header names it; botocore reads it there alone.

    May be registered for botocore's event `before-parse`.
    """
    headers = {name.lower(): value for name, value in response_dict["headers"].items()}
    code = str(headers.get("x-amzn-errortype", "")).split(":")[0].strip()
    if response_dict["status_code"] <= 300 or not code:
        return
    body = response_dict["body"] or b""
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        members = {"message": body.decode("utf-8", "replace")}
    if not members.get("__type"):
        response_dict["body"] = json.dumps({**members, "__type": code}).encode()


async def learn(
    client: Any, operation: str, exchange: Exchange, parameters: Mapping[str, Any], credentials: Any
) -> FastCall | None:
    """Learn the short way of `operation` (as the API names it), if it is the same as botocore's own.

    Args:
        client: of aiobotocore; nothing is sent.
        operation: as the API names it.
        exchange: sends a call and brings its answer; raises what botocore would.
        parameters: any valid ones.
        credentials: frozen; those that the client signs with.
    """
    request = await _captured(client, operation, parameters)
    if request is None:
        return None
    try:
        shortcut = FastCall(client, operation, exchange, request)
        at = _LearnedCall(_text(request.headers["X-Amz-Date"]))
        ours = shortcut.signed(parameters, credentials, at)  # type: ignore[arg-type]
    except (KeyError, ValueError):
        return None
    return shortcut if _same(ours, request) else None


class _LearnedCall(NamedTuple):
    """A moment that is told already."""

    text: str

    def strftime(self, _: str) -> str:
        return self.text


async def _captured(client: Any, operation: str, parameters: Mapping[str, Any]) -> Any:
    """The request that botocore would send."""

    def capture(request: Any, **_: Any) -> None:
        if _learning.get():
            raise _Captured(request)

    event = f"before-send.{client.meta.service_model.service_id.hyphenize()}.{operation}"
    client.meta.events.register(event, capture)
    token = _learning.set(True)
    try:
        # Whatever else is wrong with calls, the first real one tells.
        with suppress(Exception):
            try:
                await getattr(client, xform_name(operation))(**parameters)
            except _Captured as found:
                return found.request
    finally:
        _learning.reset(token)
        client.meta.events.unregister(event, capture)
    return None


def _same(ours: SignedCall, theirs: Any) -> bool:
    def told(headers: Mapping[str, Any]) -> dict[str, str]:
        texts = {name.lower(): _text(value) for name, value in headers.items()}
        return {**texts, _INVOCATION: "" if _INVOCATION in texts else "none"}

    return ("POST", ours.url, ours.body) == (theirs.method, theirs.url, theirs.body) and told(
        ours.headers
    ) == told(theirs.headers)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _metadata(answer: FastResponse) -> dict[str, Any]:
    """What botocore tells beside an answer."""
    return {
        "RequestId": answer.headers.get("x-amzn-requestid"),
        "HTTPStatusCode": answer.status,
        "HTTPHeaders": answer.headers,
    }


def _members(body: bytes) -> dict[str, Any] | None:
    """The members of a success; None: let botocore have a look."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None
