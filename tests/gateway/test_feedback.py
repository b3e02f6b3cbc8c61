"""What callers say of answers: counted for the revision that gave them, by ids that nobody else can make. Over real sockets."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from backstop.api.metricnames import FeedbackLabel
from backstop.api.record import RevisionRecord
from backstop.gateway.compilation import compile_revision
from backstop.gateway.errors import CallerError
from backstop.gateway.feedback import MOST_USED, FeedbackKeys, SignedId, UsedIds, read_feedback
from backstop.gateway.revision import ConfigurationError
from e2e.fakemodel.script import Rule

from .harness import Gateway, Gateways, Got, Model, TrafficApi, make_record, model_tier, state, static_tier

KEY, OTHER_KEY = "k" * 32, "o" * 32
KEYS = {"BACKSTOP_FEEDBACK_KEY": KEY}
FEEDBACK = {"keyRef": {"name": "feedback", "key": "key"}, "maxAgeSeconds": 3600}
NOW = 1_800_000_000.0
NOT_OURS = "`request_id` is of no answer of this policy's, or of one too long ago; send `x-backstop-request-id` of the answer"


def record_of(model: Model, *, prompt: str = "You are the stable prompt.", **fields: Any) -> RevisionRecord:
    return make_record([model_tier(model.url), static_tier()], prompt=prompt, feedback=FEEDBACK, **fields)


async def say(gateway: Gateway, identity: str | None, *, headers: dict[str, str] | None = None, **fields: Any) -> Got:
    said = {"request_id": identity, **(fields or {"label": "negative"})}
    return await gateway.post(json.dumps(said).encode(), path="/v1/feedback", headers=headers)


async def told(gateway: Gateway, revision: str) -> dict[str, float]:
    """Feedback of a revision by label, as this pod counts it."""
    name = "backstop_feedback_total"
    return {s["label"]: v for s, v in (await gateway.metrics(name)).get(name, []) if s["revision"] == revision and v}


@pytest.mark.parametrize("stream", [False, True])
async def test_feedback_counts_for_the_revision_that_answered_whichever_pod_takes_it(
    stream: bool, model: Model, gateways: Gateways, api: TrafficApi
) -> None:
    records = [record_of(model), record_of(model, prompt="You are the canary prompt.")]
    api.write(state(2, stable=records[0].revision, canary=records[1].revision, permille=1000))
    entry, canary = [await gateways.start(record, api=api, keys=KEYS) for record in records]
    for gateway in (entry, canary):
        await gateway.acts_on(2)
    answer = await entry.chat(stream=stream)
    assert answer.said("track") == "canary"
    taken = await say(entry, answer.said("request-id"), label="negative", comment="No!")
    assert (taken.status, taken.json) == (200, {"object": "feedback", "label": "negative", "counted": True})
    assert await told(entry, canary.revision) == {"negative": 1}
    assert await told(entry, entry.revision) == {}
    # Both pods take it, and a pod counts an answer once.
    assert not (await say(entry, answer.said("request-id"), label="positive")).json["counted"]
    other = await entry.chat()
    assert (await say(canary, other.said("request-id"), score=0.9)).json == {"object": "feedback", "label": "positive", "counted": True}
    assert await told(canary, canary.revision) == {"positive": 1}


async def test_w63_feedback_with_a_forged_or_foreign_request_id_is_a_403_and_not_counted(model: Model, gateways: Gateways) -> None:
    now = [NOW]
    gateway = await gateways.start(record_of(model), keys=KEYS, now=lambda: now[0])
    identity = (await gateway.chat(headers={"x-backstop-request-id": "mine"})).said("request-id") or ""
    assert identity.startswith("mine."), "what the caller called it is still there"
    raw = bytearray(base64.urlsafe_b64decode(identity.partition(".")[2] + "=="))
    raw[20] ^= 1
    forged = {
        "another signature": identity[:-4] + ("AAAA" if identity[-4:] != "AAAA" else "BBBB"),
        "another content": f"mine.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}",
        "another request": "yours" + identity[4:],
        "unsigned": "mine",
        "not base64": "mine.ä!",
        "nothing": "",
        "long": "x" * 5000,
        "another policy": sign(FeedbackKeys(KEY, scope="default/other", longest=3600), gateway.revision),
        "another key": sign(FeedbackKeys(OTHER_KEY, scope="default/support", longest=3600), gateway.revision),
    }
    for what, one in forged.items():
        refused = await say(gateway, one)
        assert (refused.status, refused.json["error"]["code"], refused.json["error"]["message"]) == (403, "unknown_request_id", NOT_OURS), (
            what
        )
    now[0] += 3601
    assert (await say(gateway, identity)).status == 403, "too old"
    assert await told(gateway, gateway.revision) == {}
    now[0] -= 2
    assert (await say(gateway, identity)).json["counted"], "the id itself is good"


def sign(keys: FeedbackKeys, revision: str) -> str:
    return keys.sign("a", revision=revision, now=NOW, nonce=1, counts=True)


def test_what_is_signed_cannot_be_divided_otherwise() -> None:
    keys = FeedbackKeys(KEY, scope="default/support", longest=60)
    signed = keys.sign("v2-abc", revision="rev-", now=NOW, nonce=1, counts=True)
    spelled = signed.rpartition(".")[2]
    raw = base64.urlsafe_b64decode(spelled + "=" * (-len(spelled) % 4))
    content, mac = raw[:-16], raw[-16:]
    for moved, rest in (("v2", "-abc"), ("\0v2", "-abc"), ("v2-abc", ""), ("\0v2-ab", "\0c")):
        forged = base64.urlsafe_b64encode(content + moved.encode() + mac).rstrip(b"=").decode()
        assert keys.read(f"{rest}.{forged}", now=NOW) is None
    assert keys.read(signed, now=NOW) == SignedId(revision="rev-", nonce=1, counts=True)


async def test_what_a_tester_says_of_a_pinned_answer_is_taken_and_not_counted(model: Model, gateways: Gateways, api: TrafficApi) -> None:
    record = record_of(model)
    api.write(state(2, stable=record.revision))
    gateway = await gateways.start(record, api=api, keys=KEYS, now=lambda: NOW)
    await gateway.acts_on(2)
    pinned = await gateway.chat(headers={"x-backstop-pin": gateway.revision})
    gone = sign(FeedbackKeys(KEY, scope="default/support", longest=1e9), "gone")
    for identity in (pinned.said("request-id"), gone):
        taken = await say(gateway, identity)
        assert (taken.status, taken.json["counted"]) == (200, False)
    assert await gateway.total("backstop_feedback_total") == 0


async def test_an_answer_of_a_fixed_tier_can_be_disliked_and_an_error_cannot(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(record_of(model), keys=KEYS)
    model.script(Rule(error_percent=100))
    static = await gateway.chat()
    assert static.said("tier") == "static"
    assert (await say(gateway, static.said("request-id"))).json["counted"]
    model.script(Rule(error_percent=100, error_status=400))
    for error in (await gateway.chat(), await gateway.post(b"{")):
        assert error.status == 400
        assert (await say(gateway, error.said("request-id"))).status == 403


async def test_feedback_is_not_offered_where_no_key_is_and_asks_for_a_callers_key_where_requests_do(
    model: Model, gateways: Gateways, tmp_path: Path
) -> None:
    without = await gateways.start(make_record([model_tier(model.url)]))
    assert "." not in ((await without.chat()).said("request-id") or "")
    assert (await say(without, "x")).status == 404
    assert await without.total("backstop_feedback_total") == 0
    callers = tmp_path / "callers"
    callers.mkdir()
    (callers / "app").write_text("a-key-that-is-long-enough\n")
    gateway = await gateways.start(record_of(model, access={"callerKeysRef": {"name": "callers"}}), keys=KEYS, callers=callers)
    key = {"Authorization": "Bearer a-key-that-is-long-enough"}
    identity = (await gateway.chat(headers=key)).said("request-id")
    assert (await say(gateway, identity)).status == 401
    assert (await say(gateway, identity, headers=key)).json["counted"]


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b"[]", 400, "expected `object`"),
        (b"{", 400, "not valid JSON"),
        (b'{"label":"negative"}', 400, "missing required field `request_id`"),
        (b'{"request_id":"a"}', 400, "exactly one of `label` and `score` is needed"),
        (b'{"request_id":"a","label":"negative","score":0}', 400, "exactly one of"),
        (b'{"request_id":"a","label":"bad"}', 400, "invalid enum value 'bad' - at `$.label`"),
        (b'{"request_id":"a","score":1.1}', 400, "`$.score`"),
        (b'{"request_id":"a","score":NaN}', 400, "not valid JSON"),
        (b'{"request_id":"a","score":1,"user":"me"}', 400, "unknown field `user`"),
        (b'{"request_id":"' + b"a" * 20_000 + b'"}', 413, "longer than 16 KiB"),
    ],
)
async def test_feedback_that_cannot_be_read_is_refused_in_one_sentence(
    body: bytes, status: int, part: str, model: Model, gateways: Gateways
) -> None:
    gateway = await gateways.start(record_of(model), keys=KEYS)
    got = await gateway.post(body, path="/v1/feedback")
    assert got.status == status
    assert part in got.json["error"]["message"]
    async with gateway.http.get(f"http://{gateway.address}/v1/feedback") as response:
        assert response.status == 405
    form = await gateway.post(body, path="/v1/feedback", headers={"Content-Type": "text/plain"})
    assert (form.status, form.json["error"]["param"]) == (415, "content-type")


def test_a_score_is_a_label() -> None:
    labels = [read_feedback(json.dumps({"request_id": "a", "score": score}).encode())[1] for score in (0, 0.49, 0.5, 0.51, 1)]
    assert labels == [FeedbackLabel.NEGATIVE, FeedbackLabel.NEGATIVE, FeedbackLabel.NEUTRAL, FeedbackLabel.POSITIVE, FeedbackLabel.POSITIVE]
    with pytest.raises(CallerError):
        read_feedback(b'{"request_id": "a", "score": true}')


def test_ids_of_all_keys_hold_and_the_first_signs_so_that_a_key_can_be_changed() -> None:
    old, both, new = (FeedbackKeys(text, scope="shop/support", longest=60) for text in (KEY, f"{OTHER_KEY}\n{KEY}\n", OTHER_KEY))
    by_old, by_both = (keys.sign("a", revision="7f9c", now=NOW, nonce=2**64 - 1, counts=False) for keys in (old, both))
    assert both.read(by_old, now=NOW) == both.read(by_both, now=NOW) == SignedId(revision="7f9c", nonce=2**64 - 1, counts=False)
    assert new.read(by_both, now=NOW) is not None
    assert old.read(by_both, now=NOW) is None
    assert both.read(by_old, now=NOW + 61) is None
    assert both.read(by_old, now=NOW - 30) is not None, "clocks of nodes differ"
    assert both.read(by_old, now=NOW - 61) is None


def test_what_is_remembered_of_used_ids_is_bounded() -> None:
    used = UsedIds()
    assert all(used.take(nonce) for nonce in range(MOST_USED + 1))
    assert not used.take(MOST_USED)
    assert used.take(0), "forgotten first"


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("", "`spec.feedback.keyRef`: it is empty; give the Secret `feedback` with `key`, or set `BACKSTOP_FEEDBACK_KEY`"),
        (
            "short",
            "`spec.feedback.keyRef`: Secret `feedback`, `key`: each key needs 32 characters or more; make another, of random ones",
        ),
        ("\n".join([KEY] * 9), "`spec.feedback.keyRef`: Secret `feedback`, `key`: there are more than 8 keys; take old ones out"),
    ],
)
def test_a_key_that_protects_nothing_is_refused_at_the_start(key: str, sentence: str, model: Model) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(record_of(model), environment={"BACKSTOP_FEEDBACK_KEY": key})
    assert str(refused.value) == sentence
