"""`--check`: the chain's times as a table, and the same refusals as at a start, without a socket, a key or a request."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from backstop.gateway.main import main

from .harness import ROOT

PROMPT = {
    "apiVersion": "backstop.dev/v1alpha1",
    "kind": "PromptVersion",
    "metadata": {"name": "answer-1"},
    "spec": {"prompt": "answer", "version": "1.0.0", "messages": [{"role": "system", "content": "Be kind."}]},
}


def tier(name: str, *, milliseconds: int | None = None, retries: int = 0, hedge: int | None = None, **model: Any) -> dict[str, Any]:
    """A model tier."""
    hedged = {} if hedge is None else {"hedgeAfterMilliseconds": hedge}
    times = {} if milliseconds is None else {"timeouts": {"firstTokenMilliseconds": milliseconds}}
    return {
        "name": name,
        "retries": retries,
        "model": {"baseURL": "http://models:8000/v1", "name": f"m-{name}", **model},
        **times,
        **hedged,
    }


def check(folder: Path, chain: list[dict[str, Any]], *, budget: int = 1000) -> None:
    """Run it."""
    policy = {
        "apiVersion": "backstop.dev/v1alpha1",
        "kind": "FallbackPolicy",
        "metadata": {"name": "support"},
        "spec": {"promptVersion": "answer-1", "latencyBudgetMilliseconds": budget, "chain": chain},
    }
    file = folder / "m.yaml"
    file.write_text(yaml.safe_dump_all([PROMPT, policy]))
    main(["--manifests", str(file), "--check"])


def test_the_chain_is_told_as_a_table_of_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = {"name": "kept", "cache": {"hot": {"maxMebibytes": 1}}}
    chain = [
        tier("first", retries=2, apiKeyRef={"name": "keys", "key": "k"}, capabilities=["Vision", "Tools"], contextTokens=8000),
        cache,
        tier("second", milliseconds=300, capabilities=[], embeddingModel="e-1"),
        tier("third", milliseconds=100),
        {"name": "static", "static": {"default": "Later."}},
    ]
    check(tmp_path, chain)
    heading, _, *rows, _, ending = capsys.readouterr().out.splitlines()
    assert heading.startswith("policy default/support, prompt version answer-1, revision ")
    assert heading.endswith(", budget 1000 ms")
    assert [" | ".join(row.split()) for row in rows] == [
        "TIER | KIND | ANSWERS | FROM | ms | UNTIL | ms | LEFT | ms | TRIES | CAN | WINDOW | EMBEDDINGS",
        "first | model | m-first | 0 | 600 | 400 | 3 | Tools,Vision | 8000 | -",
        "kept | cache | what | it | has | kept | 600 | 600 | 400 | - | - | - | -",
        "second | model | m-second | 600 | 900 | 100 | 1 | text | - | e-1",
        "third | model | m-third | 900 | 1000 | 0 | 1 | all | - | -",
        "static | static | backstop/static | 1000 | 1000 | 0 | - | - | - | -",
    ]
    assert ending == "The chain is total: `static` answers whatever happens before it."


def test_the_first_model_is_asked_when_the_levels_of_the_cache_have_had_their_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = {"redis": {"addressRef": {"name": "answers", "key": "url"}}}
    kept = {"name": "kept", "cache": {"hot": {"maxMebibytes": 1}, "warm": warm, "cold": {}}}
    check(tmp_path, [tier("first", milliseconds=300, apiKeyRef={"name": "keys", "key": "k"}), kept])
    assert [" ".join(line.split()[2:5]) for line in capsys.readouterr().out.splitlines() if line.startswith("first")] == ["m-first 30 330"]


def test_who_begins_beside_another_begins_sooner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {"name": "kept", "cache": {"hot": {"maxMebibytes": 1}}}
    check(tmp_path, [tier("first", milliseconds=300, hedge=50), kept, tier("second", milliseconds=500), tier("third", milliseconds=100)])
    times = [line.split() for line in capsys.readouterr().out.splitlines()[3:7]]
    assert [[*row[3:6], row[-1]] for row in (times[0], times[2], times[3])] == [
        ["0", "300", "700", "50"],
        ["50", "550", "450", "-"],
        ["550", "650", "350", "-"],
    ]


def test_no_tier_has_longer_than_all_of_its_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long, longer = tier("first"), tier("second", milliseconds=3000)
    long["timeouts"], longer["timeouts"] = {"totalSeconds": 2}, {**longer["timeouts"], "totalSeconds": 1}
    check(tmp_path, [long, longer], budget=9000)
    first, second = (line.split()[3:6] for line in capsys.readouterr().out.splitlines()[3:5])
    assert (first, second) == (["0", "2000", "7000"], ["2000", "3000", "6000"])


def test_the_readme_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--manifests", str(ROOT / "manifests" / "samples" / "support.yaml"), "--check"])
    assert capsys.readouterr().out in (ROOT / "README.md").read_text()


def test_a_chain_that_can_run_out_of_tiers_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(tmp_path, [tier("only", milliseconds=300)])
    assert capsys.readouterr().out.splitlines()[-1].startswith("The chain is not total: ")


def test_what_cannot_be_served_is_refused_as_at_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check(tmp_path, [tier("only", milliseconds=300)], budget=200)
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert "must fit into `spec.latencyBudgetMilliseconds`" in told.err
    with pytest.raises(SystemExit) as ended:
        main(["--record", "r.json", "--check"])
    assert (ended.value.code, capsys.readouterr().err.startswith("backstop-gateway: `--check` belongs to `--manifests`")) == (2, True)
