"""Clients of a throttling server, event by event: hours in milliseconds."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf
from random import Random

from tests.bench.pacing.controllers import Controller
from tests.bench.pacing.servers import Server

#: Calls in flight at most, of each client.
WORKERS = 32
#: Share by which latencies vary.
JITTER = 0.02


@dataclass
class Client:
    """One process: its pace and its rows."""

    controller: Controller
    #: inf: it calls until the others are done.
    rows: float
    starts: float = 0.0
    #: Whether a throttled call is made again.
    retries: bool = True
    left: float = field(init=False)
    in_flight: int = 0
    throttled: int = 0
    #: When each row was settled.
    done: list[float] = field(default_factory=list)
    woken_at: float = inf

    def __post_init__(self) -> None:
        self.left = self.rows


@dataclass
class Simulation:
    """Run until every row is settled, or `limit` seconds are over."""

    server: Server
    clients: Sequence[Client]
    latency: float = 0.08
    #: Share by which latencies vary.
    jitter: float = JITTER
    #: Share of calls that are throttled although the limit allows them.
    stray: float = 0.0
    seed: int = 0
    limit: float = 20_000.0

    def run(self) -> None:
        self.rng, self.order = Random(self.seed), count()
        self.turns = Random(self.seed)
        self.orders = [[*self.clients[n:], *self.clients[:n]] for n in range(len(self.clients))]
        self.waited_for = [client for client in self.clients if client.rows < inf]
        self.events: list[tuple[float, int, str, Client, float]] = []
        for client in self.clients:
            self._push(client.starts, "wake", client)
        while self.events and any(client.left or client.in_flight for client in self.waited_for):
            now, _, what, client, sent_at = heapq.heappop(self.events)
            if now > self.limit:
                return
            if what == "arrive":
                # No client sees that.
                self._arrive(client, now, sent_at)
                continue
            if what == "wake":
                client.woken_at = inf
            else:
                self._answer(client, now, sent_at, admitted=what == "admitted")
            for one in self._in_turn():
                self._send(one, now)

    def _in_turn(self) -> Sequence[Client]:
        """All clients; of two that may send at the same time, either may be first."""
        return self.orders[int(self.turns.random() * len(self.orders))]

    def _push(self, at: float, what: str, client: Client, sent_at: float = 0.0) -> None:
        heapq.heappush(self.events, (at, next(self.order), what, client, sent_at))

    def _half(self) -> float:
        return self.latency / 2 * (1 + self.rng.uniform(-self.jitter, self.jitter))

    def _send(self, client: Client, now: float) -> None:
        while now >= client.starts and client.left and client.in_flight < WORKERS:
            opens = client.controller.opens(now)
            if opens > now + 1e-12:
                if opens < client.woken_at:
                    client.woken_at = opens
                    self._push(opens, "wake", client)
                return
            client.controller.sent(now)
            client.left -= 1
            client.in_flight += 1
            self._push(now + self._half(), "arrive", client, now)

    def _arrive(self, client: Client, now: float, sent_at: float) -> None:
        admitted = self.server.admits(now) and self.rng.random() >= self.stray
        self._push(now + self._half(), "admitted" if admitted else "throttled", client, sent_at)

    def _answer(self, client: Client, now: float, sent_at: float, *, admitted: bool) -> None:
        client.in_flight -= 1
        if admitted:
            client.done.append(now)
            client.controller.answered(sent_at, now)
        else:
            client.left += client.retries
            client.throttled += 1
            client.controller.throttled(sent_at, now)
