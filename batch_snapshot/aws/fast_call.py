"""Makes calls of one operation in a third of botocore's processor time.

For every call botocore builds its user agent, evaluates its endpoint rules, checks and serialises the
parameters, and sorts what it signs. All but body, time and signature are the same in each call. So:

1. `learn` lets botocore prepare one example call, and takes its request just before it would be sent.
2. A `FastCall` keeps the URL and the headers that never change, and adds body, time and signature to them.
3. It is used only if it gives the same bytes as botocore for the example, signature included. Where botocore
   calls differently, `learn` returns None and botocore makes every call.
"""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
from botocore import xform_name
from botocore.auth import SIGV4_TIMESTAMP
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError
from botocore.parsers import create_parser

from batch_snapshot.aws.http import HttpAnswer

#: Sends a call and returns the answer; raises what botocore would.
Exchange = Callable[[AWSPreparedRequest], Awaitable[HttpAnswer]]

#: The header that differs in each call.
_INVOCATION = "amz-sdk-invocation-id"

#: Headers that are the same in each call of an operation.
_CONSTANT = ("X-Amz-Target", "Content-Type", "User-Agent", "amz-sdk-request")


class FastCall:
    def __init__(self, client: Any, operation: str, exchange: Exchange, request: Any) -> None:
        """Keep what does not change of `request`, which botocore has prepared for `operation`."""
        self._client = client
        self._exchange = exchange
        self._model = client.meta.service_model.operation_model(operation)
        self._parser = create_parser(client.meta.service_model.resolved_protocol)
        headers = _texts(request.headers)
        self._url: str = request.url
        self._constant = {name: headers[name] for name in _CONSTANT}
        self._signature = _Signature(self._url, headers)

    def signed(self, parameters: Mapping[str, Any], credentials: Any, at: datetime) -> AWSPreparedRequest:
        body = json.dumps(parameters).encode()
        headers = {**self._constant, "X-Amz-Date": at.strftime(SIGV4_TIMESTAMP)}
        if credentials.token:
            headers["X-Amz-Security-Token"] = credentials.token
        headers["Authorization"] = self._signature.authorization(headers, body, credentials)
        headers[_INVOCATION] = str(uuid4())
        headers["Content-Length"] = str(len(body))
        return AWSPreparedRequest("POST", self._url, headers, body, stream_output=False)

    async def call(self, parameters: Mapping[str, Any], credentials: Any, at: datetime) -> dict[str, Any]:
        """Make the call, and read the answer as the client would."""
        answer = await self._exchange(self.signed(parameters, credentials, at))
        if answer.status == 200:
            with suppress(orjson.JSONDecodeError):
                members = orjson.loads(answer.body)
                if isinstance(members, dict) and members:
                    return {**members, "ResponseMetadata": _metadata(answer)}
        return self.parsed(answer)

    def parsed(self, answer: HttpAnswer) -> dict[str, Any]:
        """The answer as botocore's own parser reads it; a refusal is raised."""
        headers = {name.lower(): value for name, value in answer.headers.items()}
        raw = {"status_code": answer.status, "headers": headers, "body": answer.body}
        name_error(raw)
        parsed = self._parser.parse(raw, self._model.output_shape)
        if answer.status < 300:
            # botocore reads the body `null` as nothing at all.
            return parsed or {"ResponseMetadata": _metadata(answer)}
        code = parsed.get("Error", {}).get("Code")
        if shape := code and self._client.meta.service_model.shape_for_error_code(code):
            parsed.update(self._parser.parse(raw, shape))
        raise self._client.exceptions.from_code(code)(parsed, self._model.name)


def _metadata(answer: HttpAnswer) -> dict[str, Any]:
    return {
        "RequestId": answer.headers.get("x-amzn-requestid"),
        "HTTPStatusCode": answer.status,
        "HTTPHeaders": answer.headers,
    }


class _Signature:
    """Signature version 4, https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Take the URL, and the headers of a request that botocore has signed."""
        where = urlsplit(url)
        self._path, self._host = where.path or "/", where.netloc
        # AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …
        _, _, self._region, self._service, _ = headers["Authorization"].split(",")[0].split("/")
        #: The last signing key with what it was derived from: it is the same for a day.
        self._key: tuple[str, str, bytes] = ("", "", b"")

    def authorization(self, headers: Mapping[str, str], body: bytes, credentials: Any) -> str:
        time = headers["X-Amz-Date"]
        token = f"x-amz-security-token:{credentials.token}\n" if credentials.token else ""
        names = f"content-type;host;x-amz-date;{'x-amz-security-token;' if token else ''}x-amz-target"
        canonical = (
            f"POST\n{self._path}\n\ncontent-type:{headers['Content-Type']}\nhost:{self._host}\n"
            f"x-amz-date:{time}\n{token}x-amz-target:{headers['X-Amz-Target']}\n\n{names}\n"
            f"{hashlib.sha256(body).hexdigest()}"
        )
        scope = f"{time[:8]}/{self._region}/{self._service}/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = self._signing_key(credentials.secret_key, scope)
        return (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={names}, "
            f"Signature={hmac.digest(key, to_sign.encode(), 'sha256').hex()}"
        )

    def _signing_key(self, secret: str, scope: str) -> bytes:
        if self._key[:2] != (secret, scope):
            key = f"AWS4{secret}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = (secret, scope, key)
        return self._key[2]


def name_error(response_dict: dict[str, Any], **_: Any) -> None:
    """Write an error's code into the body where only the header has it: botocore reads only the body.

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


# -- learning ---------------------------------------------------------------------------------------------


async def learn(
    client: Any, operation: str, exchange: Exchange, parameters: Mapping[str, Any], credentials: Any
) -> FastCall | None:
    """The fast call of `operation`; None: it would not give the same bytes as botocore's call.

    Nothing is sent: `exchange` serves later calls. The client signs with these frozen `credentials`; the
    `parameters` are any valid ones.
    """
    request = await _captured(client, operation, parameters)
    if request is None:
        return None
    try:
        fast_call = FastCall(client, operation, exchange, request)
        at = datetime.strptime(_texts(request.headers)["X-Amz-Date"], SIGV4_TIMESTAMP)  # noqa: DTZ007 - UTC
        ours = fast_call.signed(parameters, credentials, at)
        with suppress(ClientError):
            fast_call.parsed(_REFUSAL)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return fast_call if _comparable(ours) == _comparable(request) else None


#: An answer that is read while learning: also what reads refusals must be where it was.
_REFUSAL = HttpAnswer("", 400, (), {}, b'{"__type": "ValidationException"}')

#: Set in the task that captures: calls that other tasks make with the same client are sent.
_capturing: ContextVar[bool] = ContextVar("capturing", default=False)


class _Captured(Exception):  # noqa: N818 - no error: it ends botocore's call where it would be sent
    pass


async def _captured(client: Any, operation: str, parameters: Mapping[str, Any]) -> Any:
    """The request that botocore would send, or None."""
    captured: list[Any] = []

    def capture(request: Any, **_: Any) -> None:
        if _capturing.get():
            captured.append(request)
            raise _Captured

    event = f"before-send.{client.meta.service_model.service_id.hyphenize()}.{operation}"
    client.meta.events.register(event, capture)
    token = _capturing.set(True)
    try:
        # Any other error will be met, and reported, by the first real call.
        with suppress(Exception):
            await getattr(client, xform_name(operation))(**parameters)
    finally:
        _capturing.reset(token)
        client.meta.events.unregister(event, capture)
    return captured[0] if captured else None


def _comparable(request: Any) -> tuple[Any, ...]:
    headers = {name.lower(): value for name, value in _texts(request.headers).items()}
    headers[_INVOCATION] = "present" if _INVOCATION in headers else "missing"
    return request.method, request.url, request.body, headers


def _texts(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}
