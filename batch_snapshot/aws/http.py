"""HTTP: a call is one exchange with one verified endpoint, and its answer is bounded.

aiobotocore's own transport would follow redirects, read answers of any length, and wait for a name server as
long as that takes. Before 3.9 it checks no host name (botocore leaves that to urllib3, which aiohttp does not
use), and behind a proxy it verifies nothing. `Transport` is a session class of ours, not a patch: a program
that uses this package as a library keeps its own aiobotocore.
"""

import asyncio
import select
import socket
import ssl
from collections.abc import Callable, Mapping
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
from aiobotocore.utils import AioContainerMetadataFetcher, AioIMDSFetcher, _RefCountedSession
from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult
from aiohttp.client_proto import ResponseHandler
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ConnectionError as ClientConnectionError
from botocore.exceptions import HTTPClientError
from yarl import URL

from batch_snapshot.aws import tls
from batch_snapshot.aws.answers import UNCONNECTED

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
    return AioConfig(http_session_cls=Transport, connector_args={"resolver": Resolver()}, **settings)


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


class _Session(AioSession):  # type: ignore[misc] # aiobotocore is untyped
    # Credential providers make clients (STS, SSO) or connections of their own, and offer no setting for their
    # class.

    async def _create_client(self, *args: Any, config: Any = None, **settings: Any) -> Any:
        if getattr(config, "http_session_cls", None) is not Transport:
            ours = http_config()
            config = ours.merge(config) if config else ours
            # Merging loses it.
            config.http_session_cls = Transport
        return await super()._create_client(*args, config=config, **settings)

    def _create_credential_resolver(self) -> Any:
        resolver = super()._create_credential_resolver()
        for provider in resolver.providers:
            for fetcher in (getattr(provider, name, None) for name in ("_fetcher", "_role_fetcher")):
                if isinstance(fetcher, AioIMDSFetcher | AioContainerMetadataFetcher):
                    # Only the class changes: the session keeps its settings.
                    fetcher._session.__class__ = MetadataTransport  # noqa: SLF001
        return resolver


# -- the transport ----------------------------------------------------------------------------------------


class Transport(AIOHTTPSession):  # type: ignore[misc] # aiobotocore is untyped
    """aiobotocore's session, but a call is one exchange with one verified endpoint, of bounded length."""

    def __init__(self, verify: bool | str | None = True, *args: Any, **settings: Any) -> None:  # noqa: FBT001, FBT002 - aiobotocore's
        # An empty AWS_CA_BUNDLE would switch verification off.
        super().__init__(verify or True, *args, **settings)
        self.proxied = bool(settings.get("proxies"))

    async def __aenter__(self) -> Any:
        tls.check_files(self._verify, self._cert_file, self._key_file)
        return await super().__aenter__()

    def _get_ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._get_ssl_context()
        context.check_hostname = True
        return context

    def _setup_proxy_ssl_context(self, proxy_url: str) -> ssl.SSLContext:
        # Before 3.9 there is none unless the proxy has certificates of its own, and aiohttp then verifies
        # neither the proxy nor the server behind it.
        return super()._setup_proxy_ssl_context(proxy_url) or self._get_ssl_context()

    async def _get_session(self, proxy_url: str | None) -> Any:
        if proxy_url not in self._sessions:
            if proxy_url is not None:
                check_proxy(proxy_url)
            try:
                session = await super()._get_session(proxy_url)
            except OSError as error:  # the file vanished since it was checked
                raise tls.TrustFileError(f"the CA bundle cannot be read: {error}") from error
            if isinstance(session, _Exchanges):  # newer aiobotocore waits there: another call made it
                return session
            connector = session.connector
            connector._factory = partial(_Connection, loop=asyncio.get_running_loop())  # noqa: SLF001
            connector._create_connection = partial(_connect, connector._create_connection)  # noqa: SLF001
            self._sessions[proxy_url] = _Exchanges(session)
        return self._sessions[proxy_url]

    async def send(self, request: Any) -> Any:
        """Send a prepared request; raises botocore's errors, and those of this module and of `tls`."""
        try:
            return await super().send(request)
        except (ClientConnectionError, HTTPClientError) as error:
            cause = error.kwargs.get("error")
            if refused := tls.refusal(cause, request.url):
                raise refused from error
            if isinstance(cause, tls.TrustFileError):
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


class MetadataTransport(Transport, _RefCountedSession):  # type: ignore[misc] # aiobotocore is untyped
    """The same for a container's or an instance's credentials, whose endpoint may be one of HTTPS."""


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
    """A connection that no request uses once there is data that none has asked for.

    aiohttp would keep an answer that came late or twice, and take it for the answer to the next request.
    """

    def is_connected(self) -> bool:
        """Whether the next request can use it (called by aiohttp's pool)."""
        return super().is_connected() and not self.should_close and not _readable(self.transport)


def _readable(transport: Any) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


def check_proxy(url: str) -> None:
    """Check the URL of a proxy: aiohttp's own refusals look like failed calls.

    Raises:
        InvalidProxyError: it cannot be used; the message names only the host, as the rest may be secret.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidProxyError("the URL of the proxy has a port or a host that is none") from None
    host = parts.hostname
    # botocore puts http:// before whatever begins otherwise: http://socks5://host:1080
    if "://" in url.partition("://")[2]:
        raise InvalidProxyError("the URL of the proxy begins with neither http:// nor https://")
    if not host or any(char.isspace() for char in url) or port == 0:
        raise InvalidProxyError("the URL of the proxy names no host and port that can be called")
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
        return await _in_daemon_thread(partial(self.look_up, *args, **options))

    async def getnameinfo(self, *args: Any) -> Any:
        return await _in_daemon_thread(partial(socket.getnameinfo, *args))


async def _in_daemon_thread(function: Callable[[], Any]) -> Any:
    found: Future[Any] = Future()
    # From now on it cannot be cancelled: the thread sets it even if nothing waits any more.
    found.set_running_or_notify_cancel()

    def run() -> None:
        try:
            found.set_result(function())
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            found.set_exception(error)

    Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(found)


class Resolver(ThreadedResolver):
    """aiohttp's resolver; a name server that does not answer is given up, and keeps no process alive."""

    def __init__(self, look_up: Callable[..., Any] = socket.getaddrinfo) -> None:
        super().__init__(_DaemonThreads(look_up))  # type: ignore[arg-type] # what it needs of a loop

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        async with asyncio.timeout(NAME_TIMEOUT):
            return await super().resolve(host, port, family)
