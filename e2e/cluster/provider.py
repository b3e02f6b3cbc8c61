"""Chooses who makes a cluster, by what answers on this machine."""

from __future__ import annotations

import enum
import re
from typing import assert_never

from e2e.cluster import kind, native
from e2e.cluster.cluster import Cluster
from e2e.cluster.prerequisites import docker_answers, is_root_on_linux
from e2e.cluster.problems import ClusterProblem

NAME = r"[a-z]([-a-z0-9]{0,28}[a-z0-9])?"


class Provider(enum.Enum):
    AUTO = "auto"
    KIND = "kind"
    NATIVE = "native"


def choose(provider: Provider) -> Provider:
    """Resolves AUTO: kind where Docker answers, else native where we are root on Linux."""
    if provider is Provider.NATIVE and not is_root_on_linux():
        raise ClusterProblem("The native provider needs root on Linux: run it as root, or start a Docker engine for kind.")
    if provider is not Provider.AUTO:
        return provider
    if docker_answers():
        return Provider.KIND
    if is_root_on_linux():
        return Provider.NATIVE
    raise ClusterProblem(
        "No Docker engine answers: start one (`docker version` must work) to get a kind cluster.\n"
        "The native cluster needs root on Linux: run this as root."
    )


def start(name: str = "backstop", *, provider: Provider = Provider.AUTO, for_pid: int | None = None, detached: bool = False) -> Cluster:
    """Starts a cluster; raises `ClusterProblem` with one line for each thing that is in the way.

    A native cluster ends with this process unless `detached`, and with process `for_pid` where one is given; a kind cluster
    ends with `down` alone.
    """
    if not re.fullmatch(NAME, name):
        raise ClusterProblem(f"`{name}` cannot name a cluster: use up to 30 lower-case letters, digits and dashes, a letter first.")
    match choose(provider):
        case Provider.KIND:
            return kind.up(name)
        case Provider.NATIVE:
            return native.up(name, for_pid=for_pid, detached=detached)
        case Provider.AUTO:
            raise AssertionError("`choose` resolves AUTO")
        case unreachable:
            assert_never(unreachable)


def find(name: str = "backstop") -> Cluster | None:
    """The running cluster `name` of whichever provider."""
    return native.find(name) or kind.find(name)


def take_down(name: str) -> bool:
    """Ends cluster `name` and removes what a killed one left; False when there was nothing."""
    running = kind.find(name)
    if running is not None:
        running.down()
        return True
    return native.take_down(name)
