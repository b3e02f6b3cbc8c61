"""Gateway pods as the operator and Prometheus see them: one address of the loopback each, `/-/status` and `/metrics` on it.

All pods are answered by one event loop. They learn their shares from one watch (see `kubelet`), where real ones have one each. Their
counters grow with the clock, by the share of traffic that the traffic object gives; a canary's requests are slow once it is `bad`.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from backstop.api.names import METRICS_PORT
from backstop.api.traffic import TrafficState

from .slos import series_of, spelled

REQUESTS_PER_SECOND: Final = 50.0  # per pod that callers enter at
GOOD_SECONDS: Final = 0.1
BAD_SECONDS: Final = 0.4
_BACKLOG: Final = 64

PolicyName = tuple[str, str]  # namespace, name


@dataclass
class Policy:
    """What the pods of one policy know and do."""

    traffic: TrafficState | None = None
    bad: set[str] = field(default_factory=set)
    # When Prometheus first read counters with slow requests of a bad canary, by pod.
    told: dict[str, float] = field(default_factory=dict)


@dataclass
class Pod:
    """One gateway pod."""

    of: PolicyName
    revision: str
    address: str
    counted_at: float
    counters: dict[str, list[float]] = field(default_factory=dict)  # revision → [requests, slow ones]
    texts: dict[str, str] = field(default_factory=dict)  # revision → its part of the exposition, with places for the numbers


class Gateways:
    """All pods that answer, of policies with the first so many of SLOS."""

    def __init__(self, *, slos: int) -> None:
        self.policies: dict[PolicyName, Policy] = {}
        self._slos = slos
        self._pods: dict[str, Pod] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._numbers = iter(range(250_000))

    def policy(self, of: PolicyName) -> Policy:
        """What the pods of this policy share."""
        return self.policies.setdefault(of, Policy())

    async def begin(self, of: PolicyName, *, revision: str) -> str:
        """A pod begins to answer; returns its address."""
        address, listener = self._listener()
        pod = self._pods[address] = Pod(of, revision, address, time.time())
        loop = asyncio.get_running_loop()
        self._servers[address] = await loop.create_server(lambda: _Connection(self, pod), sock=listener, backlog=_BACKLOG)
        return address

    def _listener(self) -> tuple[str, socket.socket]:
        """The next address that is free: another bench may be running."""
        for number in self._numbers:
            address = f"127.{251 + number // 62500}.{number // 250 % 250}.{number % 250 + 2}"
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, METRICS_PORT))
            except OSError as error:
                listener.close()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return address, listener
        raise AssertionError("there are more pods than addresses for them")

    def end(self, address: str) -> None:
        """The pod is gone."""
        del self._pods[address]
        self._servers.pop(address).close()

    def close(self) -> None:
        """End all of them."""
        for address in list(self._servers):
            self.end(address)

    def entries(self) -> Iterable[tuple[str, Pod]]:
        """The pods that callers enter at: those of the stable revision."""
        for address, pod in self._pods.items():
            traffic = self.policy(pod.of).traffic
            if traffic is None or traffic.stable == pod.revision:
                yield address, pod

    def status(self, pod: Pod) -> bytes:
        """The body of `/-/status`."""
        traffic = self.policy(pod.of).traffic
        return f'{{"revision":"{pod.revision}","generation":{traffic.generation if traffic else "null"}}}'.encode()

    def exposition(self, pod: Pod) -> bytes:
        """The body of `/metrics`, now."""
        now = time.time()
        policy = self.policy(pod.of)
        traffic = policy.traffic
        if traffic is not None and traffic.stable == pod.revision:
            requests = REQUESTS_PER_SECOND * (now - pod.counted_at)
            shares = {traffic.stable: 1000 - traffic.permille} | ({traffic.canary: traffic.permille} if traffic.canary else {})
            for revision, permille in shares.items():
                counted = pod.counters.setdefault(revision, [0.0, 0.0])
                counted[0] += requests * permille / 1000
                if revision in policy.bad:
                    counted[1] += requests * permille / 1000
                    if permille:
                        policy.told.setdefault(pod.address, now)
        pod.counted_at = now
        return "".join(self._text(pod, revision) % _numbers(counted) for revision, counted in pod.counters.items()).encode()

    def _text(self, pod: Pod, revision: str) -> str:
        if revision not in pod.texts:
            pod.texts[revision] = _exposition_of(pod.of, revision=revision, slos=self._slos)
        return pod.texts[revision]


def _numbers(counted: list[float]) -> dict[str, int]:
    total, slow = (int(number) for number in counted)
    return {"total": total, "quick": total - slow, "none": 0}


def kind_of(labels: Mapping[str, str]) -> str:
    """Which requests a series counts: `total`, those that were `quick`, or `none`."""
    bound = labels.get("le")
    if bound is None or float(bound) >= BAD_SECONDS:
        return "total"
    return "none" if float(bound) < GOOD_SECONDS else "quick"


def _exposition_of(of: PolicyName, *, revision: str, slos: int) -> str:
    series = series_of(of, revision=revision, slos=slos)
    return "".join(f"{spelled(metric, labels)} %({kind_of(labels)})d\n" for metric, labels in series)


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as two clients speak it: GET without a body. A web framework would take the cores that are measured."""

    def __init__(self, gateways: Gateways, pod: Pod) -> None:
        self._gateways = gateways
        self._pod = pod
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A piece of a request."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, self._received = self._received[:end], self._received[end + 4 :]
            path = head.split(b" ", 2)[1]
            if path == b"/metrics":
                self._answer(self._gateways.exposition(self._pod), content=b"text/plain; version=0.0.4")
            else:
                self._answer(self._gateways.status(self._pod), content=b"application/json")

    def _answer(self, body: bytes, *, content: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (content, len(body), body))
