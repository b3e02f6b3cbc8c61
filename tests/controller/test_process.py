"""The operator as a process: gets ready, and ends when it is told to."""

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from e2e.cluster.apiserver import ApiServer

from .test_main import SOURCE, START
from .until import until

pytestmark = pytest.mark.apiserver


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
async def test_it_gets_ready_and_ends_cleanly_when_it_is_told_to(
    api_server: ApiServer, tmp_path: Path, unused_tcp_port: int, told: signal.Signals
) -> None:
    config = tmp_path / "operator.json"
    config.write_text(json.dumps({"gatewayImage": "localhost/backstop:test", "telemetryPort": unused_tcp_port}))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", START, "--config", str(config), "--kubeconfig", str(api_server.kubeconfig)),
        env={"PYTHONPATH": str(SOURCE)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with aiohttp.ClientSession() as session:

            async def ready() -> bool:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.get(f"http://127.0.0.1:{unused_tcp_port}/readyz") as response:
                        return response.status == 200
                return False

            await until("the operator is ready", ready)
        process.send_signal(told)
        async with asyncio.timeout(15):
            _, errors = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0
    for line in errors.decode().splitlines():
        assert json.loads(line)["level"] in ("info", "warning"), line
