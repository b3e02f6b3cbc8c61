"""Starting the operator with a wrong configuration: exit code 2 and one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

START = "from backstop.main import main; main()"
SOURCE = Path(__file__).parents[2] / "operator"


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START, *arguments], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("gatewayImage: [", "is not YAML"),
        ("just text", "must hold an object"),
        ("metricsSources: []", "`gatewayImage` is missing; set it"),
        ("{gatewayImage: x, metricsource: []}", "`metricsource` is not a known field"),
        ('{gatewayImage: x, metricsSources: [{name: a, url: "ftp://x", scrapeIntervalSeconds: 5}]}', "`metricsSources[0].url`"),
        (
            "{gatewayImage: x, metricsSources: [&source {name: a, url: 'http://x', scrapeIntervalSeconds: 5}, *source]}",
            "`metricsSources`: names must be unique",
        ),
        ("{gatewayImage: 2026-01-01}", "`gatewayImage` is of a type that JSON does not have"),
        ("{gatewayImage: x, metricsSources: , namespaces: }", "`--kubeconfig`"),
        *(
            (f"{{gatewayImage: x, metricsSources: [{{name: a, url: '{url}', scrapeIntervalSeconds: 5}}]}}", said)
            for url, said in (
                ("http://prom:9090/?x=1", "`metricsSources[0].url` does not match"),
                ("http://prom#a", "`metricsSources[0].url` does not match"),
                ("http://:9090", "`metricsSources[0].url` does not match"),
                ("http://prom:port", "`metricsSources[0].url` does not match"),
                ("http://user:pw@prom", "`metricsSources[0].url` does not match"),
                ("http://prom:99999", "`url` is not a URL; correct its host or port (at `metricsSources[0]`)"),
                ("http://[:.:]:9090", "`url` is not a URL; correct its host or port (at `metricsSources[0]`)"),
                ("https://[::1]:9090/prom", "`--kubeconfig`"),
            )
        ),
        ("{gatewayImage: x}", "`--kubeconfig`"),
    ],
)
def test_a_wrong_configuration_is_told_in_one_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "operator.yaml"
    if text is not None:
        path.write_text(text)
    ended = start("--config", str(path))
    assert ended.returncode == 2
    assert said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stderr.startswith("backstop-operator: ")


def test_without_a_configuration_it_says_what_it_needs() -> None:
    ended = start()
    assert ended.returncode == 2
    assert "--config" in ended.stderr
