"""Starting the operator with a wrong configuration: exit code 2 and one sentence."""

import gc
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstop.main import main

START = "from backstop.main import main; main()"
SOURCE = Path(__file__).parents[2] / "operator"


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START, *arguments], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def process() -> Iterator[None]:
    """What a start changes of the process that it has for itself is put back."""
    root, thresholds = logging.getLogger(), gc.get_threshold()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("process")
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
def test_a_wrong_configuration_is_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    path = tmp_path / "operator.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(path)])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert told.startswith("backstop-operator: ")


@pytest.mark.long
def test_a_process_with_a_wrong_configuration_ends_with_one_sentence(tmp_path: Path) -> None:
    ended = start("--config", str(tmp_path / "nowhere.yaml"))
    assert ended.returncode == 2
    assert ended.stderr.startswith("backstop-operator: ")
    assert len(ended.stderr.strip().splitlines()) == 1


@pytest.mark.long
def test_without_a_configuration_it_says_what_it_needs() -> None:
    ended = start()
    assert ended.returncode == 2
    assert "--config" in ended.stderr
