"""The gateways that stand beside each other, each as it is started for speed, and how it is asked.

One worker each, no database, logs off, the settings that its own documentation gives for production. Every stack is a process of its own
on its own core; with a cache, or with a primary that fails, another one.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from bench.engine.processes import Usage, child, usage
from e2e.cluster.paths import REPOSITORY

from . import parts
from .calls import MESSAGES, BenchError, Way

START_SECONDS: Final = 300.0
# What a primary has before the next one is asked; of all, the whole request has ten seconds.
PATIENCE_SECONDS: Final = 0.3


class Fault(StrEnum):
    """What the primary does to each request."""

    HANG = "hangs"
    REFUSE = "refuses connections"
    RESET = "resets connections"
    BUSY = "answers 429"


@dataclass(frozen=True)
class Model:
    """The mock model: its address, and one that nobody listens on."""

    address: str
    nobody: str

    @property
    def good(self) -> str:
        """The base URL that answers at once."""
        return f"http://{self.address}/quick/v1"

    @property
    def paced(self) -> str:
        """The base URL that streams a token now and then."""
        return f"http://{self.address}/paced/v1"

    def failing(self, fault: Fault) -> str:
        """The base URL of a primary that fails so."""
        ways = {Fault.HANG: "hang", Fault.RESET: "reset", Fault.BUSY: "busy"}
        return f"http://{self.nobody}/v1" if fault is Fault.REFUSE else f"http://{self.address}/{ways[fault]}/v1"


@dataclass(frozen=True)
class Setting:
    """What a stack is started with: base URLs in the order in which they are asked, whether answers are kept, and whether rules answer
    where none of these does.
    """

    chain: Sequence[str]
    cache: bool = False
    rules: bool = False


@dataclass(frozen=True)
class Running:
    """A stack that answers."""

    way: Way
    pid: int
    usage: Callable[[], Usage]


@dataclass(frozen=True)
class Stack:
    """`prepare` writes what is needed into a folder, and gives command, environment and the way to ask. `keeps`: it has a cache. `rules`:
    rules can answer.
    """

    name: str
    version: str
    prepare: Callable[[Setting, Path, int], tuple[list[str], dict[str, str], Way]]
    keeps: bool = True
    rules: bool = False

    @asynccontextmanager
    async def running(self, setting: Setting, *, core: int, folder: Path) -> AsyncIterator[Running]:
        """A process that answers, until the context ends. Raises BenchError."""
        command, environment, way = self.prepare(setting, folder, _free_port())
        log = folder / f"{self.name}.log"
        async with child(["taskset", "-c", str(core), *command], log=log, environment=environment) as process:
            await _until_answered(way, process=process, log=log)
            yield Running(way, process.pid, lambda: usage(process.pid))


def backstop(checkout: Path = REPOSITORY) -> Stack:
    """Ours: this checkout's, or another one's, which has a `.venv` of its own."""
    python = sys.executable if checkout == REPOSITORY else str(checkout / ".venv/bin/python")

    def prepare(setting: Setting, folder: Path, port: int) -> tuple[list[str], dict[str, str], Way]:
        file = folder / "backstop.yaml"
        file.write_text(yaml.safe_dump_all([_prompt(), _rules(), _policy(setting)]))
        ports = ["--port", str(port), "--metrics-port", str(_free_port())]
        command = [python, "-m", "backstop.gateway.main", "--manifests", str(file), *ports]
        return command, {"PYTHONPATH": str(checkout / "operator")}, Way(f"http://127.0.0.1:{port}/v1/chat/completions")

    return Stack("Backstop", "this checkout", prepare, rules=True)


def litellm() -> Stack:
    """LiteLLM's proxy: one worker, no database, no cooldown of targets, so that every request meets the fault."""
    program = parts.litellm()

    def prepare(setting: Setting, folder: Path, port: int) -> tuple[list[str], dict[str, str], Way]:
        names = [f"m{position}" for position in range(len(setting.chain))]
        entry = {"model": "openai/bench", "api_key": "none"}
        patience = {"timeout": PATIENCE_SECONDS} if len(names) > 1 else {}
        models = [
            {"model_name": name, "litellm_params": entry | {"api_base": url} | (patience if name != names[-1] else {})}
            for name, url in zip(names, setting.chain, strict=True)
        ]
        router: dict[str, Any] = {"num_retries": 0, "disable_cooldowns": True}
        if len(names) > 1:
            router["fallbacks"] = [{names[0]: names[1:]}]
        settings: dict[str, Any] = {"set_verbose": False, "num_retries": 0, "telemetry": False, "request_timeout": 10}
        if setting.cache:
            settings |= {"cache": True, "cache_params": {"type": "local"}}
        file = folder / "litellm.yaml"
        config = {
            "model_list": models,
            "router_settings": router,
            "litellm_settings": settings,
            "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},  # ours asks for no key either
        }
        file.write_text(yaml.safe_dump(config))
        command = [str(program), "--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        quiet = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "NO_DOCS": "True", "DISABLE_ADMIN_UI": "True"}
        local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""}
        return command, quiet | local, Way(f"http://127.0.0.1:{port}/v1/chat/completions", model=names[0])

    return Stack("LiteLLM", parts.LITELLM, prepare)


def portkey() -> Stack:
    """Portkey's gateway, headless. The package that is published keeps no answers; that is a part of its service."""
    program = parts.portkey()

    def prepare(setting: Setting, _: Path, port: int) -> tuple[list[str], dict[str, str], Way]:
        targets: list[dict[str, Any]] = [{"provider": "openai", "api_key": "none", "custom_host": url} for url in setting.chain]
        config = targets[0]
        if len(targets) > 1:
            for target in targets[:-1]:
                target["request_timeout"] = round(PATIENCE_SECONDS * 1000)
            config = {"strategy": {"mode": "fallback"}, "targets": targets}
        headers = {"x-portkey-config": json.dumps(config, separators=(",", ":"))}
        command = ["node", str(program), f"--port={port}", "--headless"]
        return command, {"NODE_ENV": "production"}, Way(f"http://127.0.0.1:{port}/v1/chat/completions", headers=headers)

    return Stack("Portkey", parts.PORTKEY, prepare, keeps=False)


@asynccontextmanager
async def model(*, core: int, folder: Path) -> AsyncIterator[Model]:
    """The mock model, on the callers' core."""
    said = folder / "model.log"
    command = ["taskset", "-c", str(core), str(parts.httpload()), "model"]
    async with child(command, log=said) as process:
        async with asyncio.timeout(START_SECONDS):
            while not (address := said.read_text().strip()):
                if process.poll() is not None:
                    raise BenchError("the mock model ended at its start")
                await asyncio.sleep(0.05)
        with socket.create_server(("127.0.0.1", 0)) as there:
            nobody = f"127.0.0.1:{there.getsockname()[1]}"
        yield Model(address, nobody)


def _prompt() -> dict[str, Any]:
    spec = {
        "prompt": "bench",
        "version": "1.0.0",
        "messages": [{"role": "system", "content": "You are the help desk of a parcel service."}],
    }
    return {"apiVersion": "backstop.dev/v1alpha1", "kind": "PromptVersion", "metadata": {"name": "bench-1"}, "spec": spec}


def _rules() -> dict[str, Any]:
    """Twenty of which the last one holds, every other with a pattern: how long a request is at them is about what they cost at most."""
    entries = [
        {"when": f"request.folded.contains('subject {number}')" if number % 2 else f"request.text.matches('(?i)subject {number}\\\\b')"}
        for number in range(19)
    ]
    text = yaml.safe_dump(
        {"entries": [entry | {"answer": "-"} for entry in entries] + [{"when": "true", "answer": "Ask again on Monday."}]}
    )
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rules"}, "data": {"rules.yaml": text}}


def _policy(setting: Setting) -> dict[str, Any]:
    chain: list[dict[str, Any]] = []
    for position, url in enumerate(setting.chain):
        tier: dict[str, Any] = {"name": f"m{position}", "model": {"baseURL": url, "name": "bench"}}
        if position + 1 < len(setting.chain):
            tier |= {"timeouts": {"firstTokenMilliseconds": round(PATIENCE_SECONDS * 1000)}, "circuitBreaker": {"minRequests": 10_000}}
        chain.append(tier)
    if setting.cache:
        chain.append({"name": "kept", "cache": {"hot": {"maxMebibytes": 16}}})
    if setting.rules:
        chain.append({"name": "rules", "ruleEngine": {"rulesRef": {"name": "rules", "key": "rules.yaml"}}})
    spec = {"promptVersion": "bench-1", "latencyBudgetMilliseconds": 10_000, "chain": chain}
    return {"apiVersion": "backstop.dev/v1alpha1", "kind": "FallbackPolicy", "metadata": {"name": "bench"}, "spec": spec}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as there:
        port: int = there.getsockname()[1]
        return port


async def _until_answered(way: Way, *, process: "subprocess.Popen[bytes]", log: Path) -> None:
    body = {"model": way.model, "messages": MESSAGES}
    said: Mapping[str, Any] | str = "nothing"
    try:
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
            while process.poll() is None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.post(way.url, json=body, headers=way.headers) as answer:
                        if answer.status == 200:
                            return
                        said = (await answer.text())[:500]
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise BenchError(f"{way.url} gave no answer in {START_SECONDS:.0f} s; it says {said}") from None
    raise BenchError(f"{way.url} ended at its start: {_end_of(log)}")


def available_cores() -> tuple[int, int]:
    """The gateway's core, and that of callers and model. Raises BenchError."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("two cores are needed: one for the gateway, one for callers and model")
    return cores[0], cores[1]


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-1500:]
