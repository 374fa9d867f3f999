"""The HTTP endpoint: it sends what `Simulator` decides."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from functools import partial
from ipaddress import ip_address
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Final
from uuid import uuid4

import orjson
from aiohttp import web

from batch_snapshot.simulator.answers import Response
from batch_snapshot.simulator.model import show_time
from batch_snapshot.simulator.settings import SimulatorSettings
from batch_snapshot.simulator.simulator import Simulator

#: Seconds for the calls in flight when the endpoint closes.
_SHUTDOWN: Final = 0.1
#: A socket option (on, 0 seconds) that makes closing a reset.
_NO_LINGER: Final = pack("ii", 1, 0)


@asynccontextmanager
async def serve(
    settings: SimulatorSettings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    now: Callable[[], float] = time.time,
) -> AsyncIterator[tuple[str, Simulator]]:
    """Serve the API while the context is open; yields the URL and the simulator.

    `now` is the clock of tokens, quotas and lags. The `Date` header and the age of signatures follow the
    real clock, because clients sign by it; `clock_offset` moves both. A host that is not on loopback, or a
    file that is no state file, raises ValueError; a port that is taken OSError.
    """
    _check_loopback(host)
    simulator = Simulator(settings, now=now)
    try:
        application = web.Application()
        application.router.add_post("/{operation:[A-Za-z]*}", partial(_call, simulator))
        application.router.add_get("/_simulator/record", partial(_record, simulator))
        application.router.add_post("/_simulator/touch", partial(_touch, simulator))
        runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=_SHUTDOWN)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
            bound, bound_port = runner.addresses[0][:2]
            yield f"http://{f'[{bound}]' if ':' in bound else bound}:{bound_port}", simulator
        finally:
            await runner.cleanup()
    finally:
        await simulator.close()


async def run_forever(
    settings: SimulatorSettings,
    host: str,
    port: int,
    announce: Callable[[str], None],
    over: Callable[[Simulator], None] = lambda _: None,
) -> None:
    """Serve until cancelled; `announce` gets the URL as soon as calls are answered, `over` the record."""
    async with serve(settings, host=host, port=port) as (url, simulator):
        announce(url)
        try:
            await asyncio.Event().wait()
        finally:
            over(simulator)


async def _call(simulator: Simulator, request: web.Request) -> web.StreamResponse:
    transport, settings = request.transport, simulator.settings
    with simulator.in_flight(lambda: transport is not None and not transport.is_closing()) as call:
        answer = simulator.answer(call, request.headers, await request.read(), request.path)
        # Without latency this still lets calls that arrived together meet.
        await asyncio.sleep(settings.latency + answer.delay)
        return await _send(request, answer, settings.clock_offset)


async def _record(simulator: Simulator, request: web.Request) -> web.Response:
    record = simulator.record()
    if request.query.get("log"):
        record["log"] = [logged._asdict() for logged in simulator.log]
    return web.Response(body=orjson.dumps(record), content_type="application/json")


async def _touch(simulator: Simulator, request: web.Request) -> web.Response:
    try:
        opportunity = orjson.loads(await request.read())["opportunity"]
    except (ValueError, TypeError, KeyError):
        opportunity = None
    if not isinstance(opportunity, str):
        raise web.HTTPBadRequest(text='send {"opportunity": "O1"}')
    body = {"opportunity": opportunity, "last_modified": show_time(simulator.touch(opportunity))}
    return web.Response(body=orjson.dumps(body), content_type="application/json")


async def _send(request: web.Request, answer: Response, clock_offset: float) -> web.StreamResponse:
    if answer.label in {"reset", "hang-up"}:
        if request.transport is not None:
            if answer.label == "reset":
                request.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _NO_LINGER)
            request.transport.abort()
        return web.Response()
    headers = {
        "Date": formatdate(int(time.time() + clock_offset), usegmt=True),
        "Content-Type": answer.content_type,
        "x-amzn-RequestId": str(uuid4()),
        **answer.headers,
    }
    if answer.label != "cut":
        return web.Response(status=answer.status, body=answer.body, headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = len(answer.body) + 1
    response.force_close()
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    return response


def _check_loopback(host: str) -> None:
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(
            f"host {host!r} is not on loopback; the simulator serves 127.0.0.1, ::1 or localhost"
        )
