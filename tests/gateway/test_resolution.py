"""Names whose DNS server answers, hangs or fails: who waits for it, and who does not."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backstop.gateway import resolution
from backstop.gateway.resolution import Addresses, Resolution


class Dns:
    """The system's resolver. A name in `hanging` is answered when its event is set; one in `failing` by that error."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.begun = threading.Event()
        self.hanging: dict[str, threading.Event] = {}
        self.failing: dict[str, int] = {}
        self.address = "127.0.0.1"

    def __call__(self, host: str, port: int, **_: Any) -> Addresses:
        """In a thread."""
        self.asked.append(host)
        self.begun.set()
        if host in self.hanging:
            self.hanging[host].wait(10)
        if host in self.failing:
            raise socket.gaierror(self.failing[host], "said so")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]

    async def is_asked(self) -> None:
        """Wait until it is."""
        assert await asyncio.to_thread(self.begun.wait, 5)


@pytest.fixture
async def dns() -> AsyncIterator[Dns]:
    """The system's resolver; what hangs at the end is answered."""
    dns = Dns()
    yield dns
    for event in dns.hanging.values():
        event.set()


async def look_up(names: Resolution, host: str) -> str:
    """The one address of a name."""
    async with asyncio.timeout(5):
        ((*_, address),) = await names.look_up(host, port=80)
    return str(address[0])


async def test_names_that_hang_hold_up_no_other(dns: Dns) -> None:
    names = Resolution(ask=dns)
    dns.hanging = {f"hang{number}": threading.Event() for number in range(40)}
    waiting = [asyncio.create_task(look_up(names, host)) for host in dns.hanging]
    assert await look_up(names, "good") == "127.0.0.1"
    assert not any(task.done() for task in waiting)
    for event in dns.hanging.values():
        event.set()
    assert await asyncio.gather(*waiting) == ["127.0.0.1"] * 40


async def test_a_name_is_asked_for_once_at_a_time_and_for_all_who_wait(dns: Dns) -> None:
    names = Resolution(ask=dns)
    dns.hanging = {"a": threading.Event()}
    impatient = asyncio.create_task(look_up(names, "a"))
    await dns.is_asked()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    waiting = [asyncio.create_task(look_up(names, "a")) for _ in range(20)]
    await asyncio.sleep(0)  # they have begun to wait
    dns.hanging["a"].set()
    assert await asyncio.gather(*waiting) == ["127.0.0.1"] * 20
    assert await look_up(names, "a") == "127.0.0.1"
    assert dns.asked == ["a"]


async def test_newer_addresses_are_used_where_they_are_to_be_had(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(resolution, "_PATIENCE_SECONDS", 5.0)
    names = Resolution(ask=dns)
    assert await look_up(names, "a") == "127.0.0.1"
    dns.address = "127.0.0.2"
    assert await look_up(names, "a") == "127.0.0.2"


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "fails"])
async def test_addresses_found_before_are_given_while_there_are_no_newer_ones(
    dns: Dns, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(resolution, "_FRESH_SECONDS", 0.0)
    names = Resolution(ask=dns)
    await look_up(names, "a")
    dns.failing = {"a": socket.EAI_AGAIN}
    dns.hanging = {"a": threading.Event()} if hangs else {}
    assert [await look_up(names, "a") for _ in range(3)] == ["127.0.0.1"] * 3
    assert len(dns.asked) == (2 if hangs else 4)
    monkeypatch.setattr(resolution, "_LAST_SECONDS", 0.0)
    for event in dns.hanging.values():
        event.set()
    with pytest.raises(OSError, match="said so"):
        await look_up(names, "a")


async def test_a_name_that_is_none_any_more_has_no_addresses(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(resolution, "_PATIENCE_SECONDS", 5.0)
    names = Resolution(ask=dns)
    await look_up(names, "a")
    dns.failing = {"a": socket.EAI_NONAME}
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await look_up(names, "a")


@pytest.mark.parametrize("address", ["127.0.0.9", "::1"])
async def test_of_an_address_nobody_is_asked(dns: Dns, address: str) -> None:
    assert await look_up(Resolution(ask=dns), address) == address
    assert dns.asked == []
