"""HTTP: a call is one exchange with one verified endpoint, and its answer is bounded.

aiobotocore's own transport would follow redirects, read answers of any length, and wait for a name server as
long as that takes. Before 3.9 it checks no host name (botocore leaves that to urllib3, which aiohttp does not
use), and behind a proxy it verifies nothing. `Transport` is a session class of ours, not a patch: a program
that uses this package as a library keeps its own aiobotocore.
"""

import asyncio
import errno
import os
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from copy import copy
from functools import cache, lru_cache, partial
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.hooks import AioHierarchicalEmitter
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from aiobotocore.utils import AioContainerMetadataFetcher, AioIMDSFetcher
from aiohttp import BaseConnector, ThreadedResolver
from aiohttp.client_proto import ResponseHandler
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ConnectionError as ClientConnectionError
from botocore.exceptions import HTTPClientError
from botocore.httpsession import create_urllib3_context
from yarl import URL

from batch_snapshot.aws import sdk, tls

#: Marks an exception that was raised while a connection was being made.
UNCONNECTED = "_batch_snapshot_unconnected"

#: Bytes of an answer. Snapshots have some tens of KB; a longer answer comes from something else, and one for
#: every worker still fits into memory.
LONGEST_ANSWER = 1024 * 1024

#: Seconds for a name server; then the name counts as not resolved. Most systems give up sooner.
NAME_TIMEOUT = 15.0


class AnswerTooLongError(Exception):
    """An answer is longer than any of the service; it was not read to its end."""


class InvalidProxyError(Exception):
    """The URL of the proxy cannot be used."""


class ProxyAuthenticationError(Exception):
    """The proxy asks for a user and a password."""


# -- sessions ---------------------------------------------------------------------------------------------


def http_config(**settings: Any) -> AioConfig:
    """How every client speaks HTTP; `settings` are botocore's."""
    connector: dict[str, Any] = {"resolver": Resolver()}
    if "_factory" not in BaseConnector.__init__.__code__.co_names:
        # Connections are not of our class (see `_Connection`), so none is used again.
        connector |= {"force_close": True, "keepalive_timeout": None}
    return AioConfig(http_session_cls=Transport, connector_args=connector, **settings)


def new_session() -> Any:
    """A session of botocore's; everything it sends, credential requests too, goes through `Transport`.

    It takes a twentieth of the time of aiobotocore's own, because its handlers are registered already.
    """
    return _Session(event_hooks=copy(_builtin_handlers()), include_builtin_handlers=False)


@cache
def _builtin_handlers() -> Any:
    handlers = AioHierarchicalEmitter()
    AioSession(event_hooks=handlers)
    return handlers


class _Session(AioSession):
    def create_client(self, *args: Any, config: Any = None, **settings: Any) -> Any:
        """Also called by credential providers (STS, SSO), which offer no setting for the class."""
        if getattr(config, "http_session_cls", None) is not Transport:
            ours = http_config()
            config = ours.merge(config) if config else ours
            # Merging loses it.
            config.http_session_cls = Transport
        return super().create_client(*args, config=config, **settings)


def transport_of(client: Any) -> "Transport":
    """The transport of a client: every client is made with one, or no call is made."""
    transport = getattr(getattr(client, "_endpoint", None), "http_session", None)
    if not isinstance(transport, Transport):
        raise sdk.UnverifiedError(f"a client has no {Transport.__name__} at _endpoint.http_session")
    return transport


def use_for_metadata(providers: Iterable[Any]) -> None:
    """Let the providers that ask a container or an instance for credentials do so by a `Transport`.

    A container's endpoint of HTTPS that would be called by something else raises `UnverifiedError`.
    """
    providers = [*providers]
    for kind in (AioIMDSFetcher, AioContainerMetadataFetcher):
        fetchers = [one for provider in providers for one in _kept(provider, kind)]
        sessions = [one for fetcher in fetchers for one in _kept(fetcher, AIOHTTPSession)]
        for session in sessions:
            if not isinstance(session, Transport):
                # Only the class changes: the session keeps its settings.
                session.__class__ = _metadata_transport(session.__class__)
        if sessions:
            continue
        lacks = f"session of aiobotocore's in {kind.__name__}"
        if os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "").lower().startswith("https:"):
            raise sdk.UnverifiedError(f"there is no {lacks}")
        sdk.degraded(lacks, "answers of metadata services may be of any length")


def _kept(owner: Any, kind: type) -> list[Any]:
    return [one for one in vars(owner).values() if isinstance(one, kind)]


# -- the transport ----------------------------------------------------------------------------------------


class Transport(AIOHTTPSession):
    """aiobotocore's session, but a call is one exchange with one verified endpoint, of bounded length."""

    #: What is loaded to verify and to be verified: CA bundle, own certificate, its key.
    _files: tuple[Any, Any, Any] = True, None, None
    proxied = False

    def __init__(self, verify: bool | str | None = True, *args: Any, **settings: Any) -> None:  # noqa: FBT001, FBT002 - aiobotocore's
        # An empty AWS_CA_BUNDLE would switch verification off.
        super().__init__(verify or True, *args, **settings)
        self.proxied = bool(settings.get("proxies"))
        own = settings.get("client_cert")
        self._files = verify or True, *(own if isinstance(own, tuple) else (own, None))

    async def __aenter__(self) -> Any:
        if not hasattr(AIOHTTPSession, "_get_session"):
            raise sdk.UnverifiedError("there is no AIOHTTPSession._get_session")
        tls.check_files(*self._files)
        self._exchanges: dict[str | None, _Exchanges] = {}
        return await super().__aenter__()

    def _setup_proxy_ssl_context(self, proxy_url: str) -> Any:
        # Before 3.9 there is none unless the proxy has certificates of its own, and aiohttp then verifies
        # neither the proxy nor the server behind it.
        return super()._setup_proxy_ssl_context(proxy_url) or create_urllib3_context()

    async def _get_session(self, proxy_url: str | None) -> Any:
        if proxy_url is not None and proxy_url not in self._exchanges:
            check_proxy(proxy_url)
        try:
            session = await super()._get_session(proxy_url)
        except OSError as error:  # the file vanished since it was checked
            raise tls.TrustFileError(f"the CA bundle cannot be read: {error}") from error
        known = self._exchanges.get(proxy_url)
        if known is None or known.session is not session:
            _prepare(session.connector)
            known = self._exchanges[proxy_url] = _Exchanges(session)
        return known

    async def send(self, request: Any) -> Any:
        """Send a prepared request; raises botocore's errors, and those of this module and of `tls`."""
        try:
            return await super().send(request)
        except (ClientConnectionError, HTTPClientError) as error:
            cause = error.kwargs.get("error")
            if refused := tls.refusal(cause, request.url):
                raise refused from error
            if isinstance(cause, tls.TrustFileError | sdk.UnverifiedError):
                raise cause from error
            raise

    async def exchange(self, request: AWSPreparedRequest) -> "HttpAnswer":
        """Do what `send` does, in less time; not through a proxy."""
        headers = {**request.headers, "Accept-Encoding": "identity"}
        try:
            session = await self._get_session(None)
            answer: HttpAnswer = await session.request(
                request.method, url=_url(request.url), headers=headers, data=request.body
            )
        except Exception as error:
            await _Failed(error).send(request)
            raise
        return answer


_url = lru_cache(maxsize=1024)(partial(URL, encoded=True))


class _Failed(Transport):
    """Turns what aiohttp raised into botocore's errors: aiobotocore does so in the middle of its `send`."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def _get_session(self, _: str | None) -> None:
        raise self._error


@cache
def _metadata_transport(kind: Any) -> Any:
    """The same for a container's or an instance's credentials, whose endpoint may be one of HTTPS."""
    return type("MetadataTransport", (Transport, kind), {})


def _prepare(connector: Any) -> None:
    """Make sure that a session's connections verify what they call, and replace what makes them."""
    context = getattr(connector, "_ssl", None)
    if not isinstance(context, ssl.SSLContext) or context.verify_mode is not ssl.CERT_REQUIRED:
        raise sdk.UnverifiedError(f"the connections have the context {context!r}")
    context.check_hostname = True
    create: Any = getattr(connector, "_create_connection", None)
    effect = "a row may be in doubt though no connection was made"
    sdk.replace(connector, "_create_connection", partial(_connect, create), effect)
    made = partial(_Connection, loop=asyncio.get_running_loop())
    sdk.replace(connector, "_factory", made, "each call makes a connection of its own")


class _Exchanges(NamedTuple):
    """What aiobotocore needs of an aiohttp session, without redirects and with a limit for answers."""

    session: Any

    async def request(self, method: str, **options: Any) -> "HttpAnswer":
        # A redirect would send the signed call to the host it names, and take that host's answer for ours.
        async with self.session.request(method, allow_redirects=False, **options) as response:
            if response.status == 407 and options.get("proxy"):
                host = urlsplit(options["proxy"]).netloc.rpartition("@")[2]
                what = f"the proxy {host} answered 407: it wants a user and a password"
                raise ProxyAuthenticationError(what)
            body = b""
            while not response.content.at_eof():
                body += await response.content.readany()
                if len(body) > LONGEST_ANSWER:
                    raise AnswerTooLongError(f"the answer is longer than {LONGEST_ANSWER:,} bytes")
            if response.cookies:
                # botocore keeps none either.
                self.session.cookie_jar.clear()
            return HttpAnswer(response.url, response.status, response.raw_headers, response.headers, body)


class HttpAnswer(NamedTuple):
    """What aiobotocore needs of an aiohttp response; the body is read already."""

    url: Any
    status: int
    raw_headers: tuple[tuple[bytes, bytes], ...]
    #: The same by name, in any case.
    headers: Mapping[str, str]
    body: bytes

    async def read(self) -> bytes:
        return self.body


async def _connect(create: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Make a connection as aiohttp does, and mark what it raises: nothing of a call was sent by then."""
    try:
        return await create(*args, **options)
    except Exception as error:
        setattr(error, UNCONNECTED, True)
        raise


class _Connection(ResponseHandler):
    """A connection that is not used again once data has come that no request asked for.

    aiohttp would keep an answer that came late or twice, and take it for the answer to the next request.
    """

    def is_connected(self) -> bool:
        """Whether the next request can use it (called by aiohttp's pool)."""
        if self.transport is None or self.should_close or not super().is_connected():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLIN)
        return not poll.poll(0)


def connection_message(error: Any) -> str | None:
    """Why no connection was made, by aiohttp's error; None: it was made, or TLS failed."""
    if type(error).__name__ == "ConnectionTimeoutError":
        # Its last word is the URL.
        return f"cannot reach {urlsplit(str(error).split()[-1]).netloc}: no connection before the time-out"
    if isinstance(error, ssl.SSLError) or not hasattr(error, "os_error"):
        return None
    cause: OSError = error.os_error
    what = _REASONS.get(cause.errno or 0) or cause.strerror or str(cause) or type(cause).__name__
    unresolved = any(cls.__name__ == "ClientConnectorDNSError" for cls in type(error).__mro__)
    proxied = "the proxy " if type(error).__name__ == "ClientProxyConnectionError" else ""
    return f"cannot reach {proxied}{error.host}:{error.port}: {'name not resolved: ' * unresolved}{what}"


_REASONS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "no route to the host",
}


def check_proxy(url: str) -> None:
    """Check the URL of a proxy: aiohttp's own refusals look like failed calls.

    What is raised names only the host, as the rest may be secret.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidProxyError("the URL of the proxy has an invalid host or port") from None
    host = parts.hostname
    # botocore puts http:// before whatever begins otherwise: http://socks5://host:1080
    if "://" in url.partition("://")[2]:
        raise InvalidProxyError("the URL of the proxy must begin with http:// or https://")
    if not host or any(char.isspace() for char in url) or port == 0:
        raise InvalidProxyError("the URL of the proxy has no usable host and port")
    try:
        URL(url)
        f"{parts.username}:{parts.password}".encode("latin-1")
    except ValueError:
        raise InvalidProxyError(f"the URL of the proxy {host} cannot be used") from None


# -- names ------------------------------------------------------------------------------------------------


class _DaemonThreads(NamedTuple):
    """Looks names up in threads that do not keep the process from ending; those of the loop's pool would."""

    look_up: Callable[..., Any]

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        found: Future[Any] = Future()
        # From now on it cannot be cancelled: the thread sets it even if nothing waits any more.
        found.set_running_or_notify_cancel()

        def run() -> None:
            try:
                found.set_result(self.look_up(*args, **options))
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                found.set_exception(error)

        Thread(target=run, daemon=True).start()
        async with asyncio.timeout(NAME_TIMEOUT):
            return await asyncio.wrap_future(found)

    async def getnameinfo(self, *args: Any) -> Any:
        return socket.getnameinfo(*args)  # aiohttp asks for numbers alone: no name server is needed


class Resolver(ThreadedResolver):
    """aiohttp's resolver; a name server that does not answer is given up, and keeps no process alive."""

    def __init__(self, look_up: Callable[..., Any] = socket.getaddrinfo) -> None:
        super().__init__(_DaemonThreads(look_up))  # type: ignore[arg-type] # what it needs of a loop
