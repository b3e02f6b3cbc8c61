"""The official `openai` client for Node, unchanged, against a gateway. Its version is locked beside `node/client.mjs`."""

import asyncio
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.paths import cache, forget_old_generations, locked

from .harness import ExactTarget, Gateways, Model, make_record, model_tier, static_tier

pytestmark = pytest.mark.long

HERE = Path(__file__).parent / "node"
NEEDED = ("package.json", "package-lock.json", "client.mjs")
INSTALL_SECONDS = 300.0
RUN_SECONDS = 60.0


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"`{name}` is missing: install Node 20 or newer with npm (https://nodejs.org, or the Debian packages nodejs and npm)")
    return found


async def run(*command: str, folder: Path, within: float) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    try:
        async with asyncio.timeout(within):
            out, problems = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, problems.decode()
    return out.decode()


def prepared() -> Path:
    """A folder of the cache with what is locked, by its content; empty of packages where it is new."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in NEEDED)).hexdigest()[:16]
    folder = cache() / "node" / digest
    folder.mkdir(parents=True, exist_ok=True)
    for name in NEEDED:
        shutil.copyfile(HERE / name, folder / name)
    forget_old_generations(folder, pattern="*[0-9a-f]")
    return folder


@pytest.fixture
async def installed() -> Path:
    """The client's folder."""
    npm = program("npm")
    folder = await asyncio.to_thread(prepared)
    ready = folder / "node_modules" / ".ready"
    with locked(folder.with_suffix(".lock")):
        if not ready.exists():
            await run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=folder, within=INSTALL_SECONDS)
            ready.touch()
    return folder


async def test_w49_the_node_client(installed: Path, model: Model, target: ExactTarget, gateways: Gateways) -> None:
    tier = model_tier(model.url, firstTokenMilliseconds=2000)
    chain = [tier | {"model": tier["model"] | {"embeddingModel": "e1"}}, static_tier()]
    gateway = await gateways.start(make_record(chain, prompt="Help {{customer}}.", variables=[{"name": "customer"}]))
    calling = await gateways.start(make_record([model_tier(target.url)]))
    called = {"id": "call-1", "type": "function", "function": {"name": "find", "arguments": '{"id": 4711}'}}
    target.says(
        json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": [called]}, "finish_reason": "tool_calls"}]})
    )
    delta = {"role": "assistant", "tool_calls": [called | {"index": 0}]}
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": "tool_calls"}]}
    target.says(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", stream=True, then=True)
    urls = (f"http://{gateway.address}/v1", f"http://{calling.address}/v1")
    said: dict[str, Any] = json.loads(await run(program("node"), "client.mjs", *urls, folder=installed, within=RUN_SECONDS))
    text = "All is well."
    assert said["chat"] == {"text": text, "model": "m1"}
    assert said["stream"] == {"text": text, "tokens": 11}
    assert said["response"] == {"text": text, "status": "completed"}
    assert said["responseStream"] == {"text": text, "first": "response.created", "last": "response.completed"}
    assert said["embeddings"] == [[3.0, 0.5], [3.0, 0.5]]
    assert said["completion"] == text
    assert said["models"] == ["m1", "backstop/static", "e1"]
    assert said["tools"] == [called]
    assert said["toolStream"] == '{"id": 4711}'
    assert said["error"] == {"name": "BadRequestError", "status": 400, "param": "metadata.customer"}
