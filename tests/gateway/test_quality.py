"""Answers that are judged: which ones, for whom they count, and that nobody waits for it. Over real sockets."""

from typing import Any

import pytest

from backstop.api.quality import Quality, grounding_digest
from backstop.api.record import RevisionRecord
from e2e.fakemodel.script import Rule

from .harness import Gateway, Gateways, Model, eventually, make_record, model_tier

FIGURES = {"name": "figures", "type": "NumbersAndLinks"}
INVENTS = "Call 0800 123456 or see https://made-up.example/hours before 10:45."


def judged(*scorers: dict[str, Any], percent: int = 100) -> dict[str, Any]:
    return {"samplePercent": percent, "scorers": list(scorers)}


def record_of(model: Model, *scorers: dict[str, Any], prompt: str = "You are the stable prompt.", percent: int = 100) -> RevisionRecord:
    return make_record([model_tier(model.url)], prompt=prompt, quality=judged(*(scorers or (FIGURES,)), percent=percent))


async def answers_judged(gateway: Gateway, count: int) -> dict[tuple[str, str], float]:
    """Verdicts by (scorer, label), once every scorer has given as many."""
    name = "backstop_quality_samples_total"

    async def look() -> dict[tuple[str, str], float] | None:
        found = {(s["scorer"], s["label"]): v for s, v in (await gateway.metrics(name)).get(name, []) if v}
        by_scorer = {scorer: sum(v for (s, _), v in found.items() if s == scorer) for scorer, _ in found}
        return found if by_scorer and all(total == count for total in by_scorer.values()) else None

    found = await eventually(look)
    assert found is not None
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_makes_figures_up_fails_and_one_that_repeats_those_of_its_request_passes(
    stream: bool, model: Model, gateways: Gateways
) -> None:
    gateway = await gateways.start(record_of(model))
    model.script(Rule(text=INVENTS))
    assert (await gateway.chat(stream=stream)).text == INVENTS
    assert await answers_judged(gateway, 1) == {("figures", "fail"): 1}
    await gateway.chat(stream=stream, messages=[{"role": "user", "content": f"Is this right? {INVENTS}"}])
    assert await answers_judged(gateway, 2) == {("figures", "fail"): 1, ("figures", "pass"): 1}
    digest = grounding_digest(Quality.model_validate(judged(FIGURES)))
    assert await gateway.total("backstop_quality_answers_total", scorers=digest, label="fail", revision=gateway.revision) == 1
    assert await gateway.total("backstop_quality_answers_total", scorers=digest, label="pass", revision=gateway.revision) == 1
    assert await gateway.total("backstop_quality_score_count", scorer="figures") == 2
    assert await gateway.total("backstop_quality_score_sum", scorer="figures") == 1
