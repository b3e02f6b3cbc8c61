"""Whatever callers, targets and authors write: never an error of our own making, never a silence, never another caller's answer."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstop.api.knowledge import KnowledgeError, read_knowledge_base
from backstop.gateway.jsontext import no_number
from backstop.gateway.sse import EventSplitter
from e2e.fakemodel.app import FakeModel
from e2e.fakemodel.script import Rule

from .harness import ExactTarget, Gateway, Gateways, Got, Model, guarded_tier, listening, make_record, model_tier, static_tier

PROMPT = "You are the stable prompt."
VARIABLE = {"name": "a", "required": False, "maxLength": 4}
STATIC = "Not now."
MARK = "7f3a-question"
FEW = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
PATHS = (*("/v1/chat/completions",) * 2, "/v1/completions", *("/v1/responses",) * 2, "/v1/embeddings", "/v1/models", "/v1/models/m1")

# -- what callers send

KEYS = st.sampled_from(
    ["messages", "model", "stream", "stream_options", "metadata", "n", "tools", "max_tokens", "prompt", "input", "user", "", "\ud800", "é"]
) | st.text(max_size=4)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["\ud83c", "\x00", "{{customer}}", "{% raw %}", '"', "\\", "[DONE]", "data: x\n\n"])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "tool"]) | VALUES}, optional={"content": VALUES}))
CHATS = st.fixed_dictionaries(
    {"messages": MESSAGES | VALUES, "prompt": VALUES, "input": VALUES},
    optional={"stream": st.booleans() | VALUES, "stream_options": VALUES, "metadata": VALUES, "tools": VALUES, "model": VALUES},
)


def spelled(value: Any, ascii_only: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")


# Half of a surrogate pair, a byte order mark, and what some readers of JSON take for a number.
ODD = st.sampled_from(
    [b"\xed\xa0\x80", b'"\xed\xa0\x80":1,', b"\xef\xbb\xbf", b"NaN", b'"x":NaN,', b'"\\ud800":"\\ud800",', b"\x00", b"\n"]
)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of which some are taken out, doubled, replaced or cut off."""
    text = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(["cut", "drop", "double", "put"])):
            case "cut":
                del text[at:]
            case "drop":
                del text[at : at + draw(st.integers(1, 8))]
            case "double":
                text[at:at] = text[at : at + draw(st.integers(1, 12))]
            case _:
                text[at:at] = draw(st.binary(min_size=1, max_size=4) | ODD)
    return bytes(text)


BODIES = damaged(st.builds(spelled, CHATS, st.booleans())) | damaged(st.builds(spelled, VALUES, st.booleans())) | st.binary(max_size=60)
ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "function_call", "function_call_output", "item_reference"]) | VALUES},
    optional={"role": st.sampled_from(["user", "assistant"]), "content": VALUES, "call_id": st.just("c"), "name": VALUES, "output": VALUES},
)
ASKED = st.fixed_dictionaries(
    {"input": st.text(min_size=1, max_size=4) | st.lists(ITEMS, min_size=1) | VALUES},
    optional=dict.fromkeys(("instructions", "metadata", "stream_options", "text", "tools"), VALUES) | {"stream": st.booleans()},
)
BODIES |= damaged(st.builds(spelled, ASKED, st.booleans()))
BODIES |= st.integers(1, 100_000).map(lambda depth: b'{"messages":' + b"[" * depth)
VARIABLES = st.dictionaries(
    st.sampled_from(["x-backstop-var-a", "x-backstop-deadline-ms", "cache-control"]), st.text("09 =-azé", max_size=6)
)


# -- what targets answer

RESPONSES = "/v1/responses"
QUESTIONS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "When?"}]},
    "/v1/completions": {"prompt": "When?"},
    RESPONSES: {"input": "When?"},
}
HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def chunk(**choice: Any) -> bytes:
    return b"data: " + json.dumps(HEAD | {"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


STREAM = b"".join(
    [
        chunk(delta={"role": "assistant", "content": ""}),
        *(chunk(delta={"content": word}) for word in ("Open ", "until ", "six.")),
        chunk(delta={}, finish_reason="stop"),
        b"data: [DONE]\n\n",
    ]
)
ANSWER = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Open until six."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
    }
).encode()
SAID = damaged(st.sampled_from([STREAM, STREAM.replace(b"\n", b"\r\n"), STREAM.replace(b"\n", b"\r"), ANSWER])) | st.binary(max_size=80)


class Stage:
    """A gateway, and a loop that lasts for all examples of a test."""

    def __init__(self, runner: asyncio.Runner, *, gateway: Gateway, model: Model, target: ExactTarget) -> None:
        self.run: Callable[[Any], Any] = runner.run
        self.gateway = gateway
        self.model = model
        self.target = target

    def ask(self, body: bytes, *, path: str = PATHS[0], headers: dict[str, str] | None = None) -> Got:
        got: Got = self.run(self.gateway.post(body, path=path, headers=headers))
        return got

    def still_answers(self) -> None:
        """The next caller gets an answer to the question that was asked, and nothing of the one before."""
        self.model.script(Rule(echo=True))
        body = json.dumps({"messages": [{"role": "user", "content": MARK}]}).encode()
        assert self.ask(body, path=PATHS[0]).text == MARK


@contextlib.contextmanager
def stage(folder: Path, *, exact: bool) -> Iterator[Stage]:
    """A gateway in front of the fake model, or of a target that says exact bytes and a fixed answer."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(_start(stack, runner=runner, folder=folder, exact=exact))
        finally:
            runner.run(stack.aclose())


async def _start(stack: AsyncExitStack, *, runner: asyncio.Runner, folder: Path, exact: bool) -> Stage:
    http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    fake, target = FakeModel(random=Random(1)), ExactTarget()
    model = Model(fake, await stack.enter_async_context(listening(fake.application())))
    target.url = await stack.enter_async_context(listening(target.application()))
    gateways = await stack.enter_async_context(_gateways(http, folder=folder))
    patient = guarded_tier(target.url, breaker={"minRequests": 10_000})  # it is asked whatever it has answered
    chain = [patient, static_tier(STATIC)] if exact else [model_tier(model.url, vectors="e")]
    gateway = await gateways.start(make_record(chain, prompt=PROMPT + "{{a}}", variables=[VARIABLE]))
    return Stage(runner, gateway=gateway, model=model, target=target)


@contextlib.asynccontextmanager
async def _gateways(http: aiohttp.ClientSession, *, folder: Path) -> AsyncIterator[Gateways]:
    gateways = Gateways(http, account=folder)
    yield gateways
    await gateways.close()


@pytest.mark.long
def test_whatever_is_asked_is_answered_or_refused_in_one_sentence(tmp_path: Path) -> None:
    with stage(tmp_path, exact=False) as on:

        @FEW
        @given(BODIES, st.sampled_from(PATHS), VARIABLES)
        def ask(body: bytes, path: str, headers: dict[str, str]) -> None:
            on.model.script(Rule())
            on.model.fake.requests.clear()
            got = on.ask(body, path=path, headers={name: value.encode().decode("latin-1") for name, value in headers.items()})
            assert got.status in (200, 400, 405, 504), got.body
            if got.status != 200:
                assert json.loads(got.body)["error"]["message"]
            if got.status == 504:
                assert "x-backstop-deadline-ms" in headers  # less time than it takes
            if on.model.fake.requests and path != "/v1/embeddings":
                # What a target gets is one prompt and no second one behind it.
                sent = json.loads(on.model.fake.requests[-1]["body"], object_pairs_hook=list, parse_constant=no_number)
                ((_, messages),) = [pair for pair in sent if pair[0] == "messages"]
                assert [name for name, _ in messages[0]] == ["role", "content"]
                assert dict(messages[0])["content"].startswith(PROMPT)

        ask()
        on.still_answers()


@pytest.mark.long
def test_whatever_a_target_answers_its_caller_gets_a_whole_answer_or_is_told_that_it_is_not(tmp_path: Path) -> None:
    with stage(tmp_path, exact=True) as on:

        @FEW
        @given(SAID, st.sampled_from(list(QUESTIONS)), st.booleans(), st.booleans())
        def answered(said: bytes, path: str, stream: bool, as_stream: bool) -> None:
            on.target.says(said, stream=as_stream)
            got = on.ask(json.dumps(QUESTIONS[path] | {"stream": stream}).encode(), path=path)
            assert got.status == 200
            is_fixed = STATIC.encode() in got.body
            if not stream:
                # What is well-formed is passed on, whatever it says; what is not is the fixed answer's.
                assert (
                    json.loads(got.body, strict=False, parse_constant=no_number)["output" if path == RESPONSES else "choices"] is not None
                )
                assert got.said("tier") == "primary" or is_fixed
                return
            data = [event.data for event in EventSplitter().feed(got.body) if event.data is not None]
            if path == RESPONSES:
                assert json.loads(data[-1])["type"] in ("response.completed", "response.incomplete", "response.failed")
            else:
                assert data[-1] == b"[DONE]" or "error" in json.loads(data[-1])
            assert got.said("tier") == "primary" or is_fixed

        answered()
        on.target.says(ANSWER)
        assert on.ask(b'{"messages":[{"role":"user","content":"When?"}]}').text == "Open until six."


# -- what authors write

ENTRY = {"keywords": ["open"], "answer": "Until six."}
BASE = yaml.safe_dump(
    {"locale": "en", "default": "Sorry.", "entries": [ENTRY, {"patterns": ["when * open"], "answers": {"en": "Six.", "de": "Sechs."}}]}
)
BASES = (
    damaged(st.just(BASE.encode())).map(lambda text: text.decode(errors="replace"))
    | st.builds(yaml.safe_dump, st.dictionaries(st.sampled_from(["locale", "default", "entries", "x"]), VALUES, max_size=4))
    | st.text(max_size=60)
)


@given(BASES)
def test_whatever_a_knowledge_base_says_it_is_read_or_refused_in_one_sentence(text: str) -> None:
    refused = None
    try:
        base = read_knowledge_base(text)
    except KnowledgeError as error:
        refused = str(error)
    if refused is not None:
        assert refused
        assert "\n" not in refused
        return
    for entry in base.entries:
        assert entry.answers
