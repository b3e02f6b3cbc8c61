"""Calls, as `httpload` makes them: where they go, and what it says of them. Figures in seconds."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# What every stack is asked: about 300 bytes.
MESSAGES: Final = [
    {"role": "system", "content": "Answer in one sentence, and say nothing that you do not know."},
    {
        "role": "user",
        "content": "Where is my parcel 4711, which should have come on Tuesday? I was at home all day long, from eight to eight.",
    },
]


class BenchError(Exception):
    """A stack did not do what it was asked; the text says which, and what it said."""


@dataclass(frozen=True)
class Spread:
    """Of times: the median, the 99th percentile, and how many there were."""

    p50: float
    p99: float
    n: int


@dataclass(frozen=True)
class Calls:
    """What became of a run. `lag`: of a token, from the model to its caller; `first_text`: of a stream."""

    per_second: float
    tokens_per_second: float
    whole: Spread
    first_byte: Spread
    first_text: Spread
    lag: Spread


@dataclass(frozen=True)
class Way:
    """Where a request goes, and how it has to be spelled for that."""

    url: str
    model: str = "bench"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Caller:
    """Makes calls from one `core`. `folder` is for what it is given to send."""

    httpload: Path
    core: int
    folder: Path

    async def __call__(self, way: Way, *, connections: int, seconds: float, stream: bool = False, warm: float = 1.0) -> Calls:
        """Call for so many seconds. Raises BenchError where not nearly all is answered with 200."""
        body = self.folder / "body.json"
        said = {"model": way.model, "messages": MESSAGES, "temperature": 0.2, "max_tokens": 200}
        body.write_text(json.dumps(said | ({"stream": True} if stream else {}), separators=(",", ":")))
        command = ["taskset", "-c", str(self.core), str(self.httpload), "call", "-url", way.url, "-body", str(body)]
        command += ["-connections", str(connections), "-seconds", str(seconds), "-warm", str(warm)]
        command += [part for name, value in way.headers.items() for part in ("-header", f"{name}: {value}")]
        told = json.loads(await _output(command, within=warm + seconds + 120))
        failed = sum(told["failed"].values())
        if told["answers"] == 0 or failed > 0.01 * told["answers"]:
            raise BenchError(f"{way.url} ({way.model}): {told['answers']} answers, and {told['failed']}")
        return Calls(
            per_second=told["per_second"],
            tokens_per_second=told["tokens_per_second"],
            **{name: _spread(told[name]) for name in ("whole", "first_byte", "first_text", "lag")},
        )


def _spread(told: dict[str, Any]) -> Spread:
    return Spread(p50=told["p50"], p99=told["p99"], n=told["n"])


async def _output(command: Sequence[str], *, within: float) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(within):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise BenchError(f"`{' '.join(command)}` ended with {process.returncode}")
    return said
