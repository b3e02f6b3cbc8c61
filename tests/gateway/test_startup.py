"""A bad configuration ends the gateway at its start, with code 2 and one sentence; a good one serves, from the manifests alone."""

import asyncio
import copy
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from backstop.gateway.main import main

from .harness import ROOT, USER, Model, make_record, model_tier

PROMPT: dict[str, Any] = {
    "apiVersion": "backstop.dev/v1alpha1",
    "kind": "PromptVersion",
    "metadata": {"name": "support-1"},
    "spec": {
        "prompt": "support",
        "version": "1.0.0",
        "messages": [{"role": "system", "content": "Help {{customer}}."}],
        "variables": [{"name": "customer"}],
    },
}
POLICY: dict[str, Any] = {
    "apiVersion": "backstop.dev/v1alpha1",
    "kind": "FallbackPolicy",
    "metadata": {"name": "support"},
    "spec": {
        "promptVersion": "support-1",
        "latencyBudgetMilliseconds": 400,
        "chain": [
            {
                "name": "primary",
                "model": {"baseURL": "http://llm/v1", "name": "m1", "apiKeyRef": {"name": "keys", "key": "primary"}},
                "timeouts": {"firstTokenMilliseconds": 150},
            },
            {"name": "static", "static": {"default": "Not now."}},
        ],
        "slos": [{"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": 150}],
    },
}
SECRET: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"primary": "sk-1"}}
OTHER: dict[str, Any] = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"whatever": 1}}

Change = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], Any]


def _set(target: Any, *path: Any, to: Any) -> None:
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = to


BAD: list[tuple[str, Change, str]] = [
    (
        "an unknown field",
        lambda p, f, s: _set(f, "spec", "latencyBudgetMs", to=1),
        "FallbackPolicy `support`: `spec.latencyBudgetMs` is not a known field; take it out or correct its name",
    ),
    (
        "an unknown field beside spec",
        lambda p, f, s: _set(f, "sepc", to={}),
        "FallbackPolicy `support`: `sepc` is not a known field; take it out or correct its name",
    ),
    (
        "a wrong type",
        lambda p, f, s: _set(f, "spec", "latencyBudgetMilliseconds", to="400"),
        "FallbackPolicy `support`: `spec.latencyBudgetMilliseconds` must be a whole number, not a string; write it without quotes",
    ),
    (
        "weights that do not increase",
        lambda p, f, s: _set(f, "spec", "canary", to={"steps": [{"weight": 50}, {"weight": 25}, {"weight": 100}]}),
        "FallbackPolicy `support`: `spec.canary.steps`: weights must increase",
    ),
    (
        "weights that do not end at 100",
        lambda p, f, s: _set(f, "spec", "canary", to={"steps": [{"weight": 50}]}),
        "FallbackPolicy `support`: `spec.canary.steps`: the last weight must be 100",
    ),
    (
        "a missing PromptVersion",
        lambda p, f, s: _set(f, "spec", "promptVersion", to="gone-1"),
        "`spec.promptVersion` names `gone-1`, which no file has in namespace `default`; give a file with that PromptVersion",
    ),
    (
        "an undeclared variable",
        lambda p, f, s: _set(p, "spec", "messages", 0, "content", to="Help {{who}}."),
        "`spec.messages[0].content` uses the variable `who`, which `spec.variables` does not declare; declare it or take it out",
    ),
    (
        "code in a template",
        lambda p, f, s: _set(p, "spec", "messages", 0, "content", to="{{#customer}}"),
        "`spec.messages[0].content`: `{{#customer}}` is not a variable; only `{{name}}` is offered (no sections, partials or code)",
    ),
    ("an empty spec", lambda p, f, s: _set(f, "spec", to=None), "FallbackPolicy `support`: `spec` must be an object, not `null`"),
    (
        "a name that is too long",
        lambda p, f, s: _set(f, "metadata", "name", to="x" * 41),
        "`metadata.name`: at most 40 characters, because the names of the policy's objects are built from it",
    ),
    (
        "a name that a child has",
        lambda p, f, s: _set(f, "metadata", "name", to="a-canary"),
        "`metadata.name`: must not end in `-stable`, `-canary`, `-traffic` or `-gateway`, which name the policy's own objects",
    ),
    (
        "another version of the API",
        lambda p, f, s: _set(f, "apiVersion", to="backstop.dev/v1"),
        "FallbackPolicy `support`: `apiVersion` must be `backstop.dev/v1alpha1`",
    ),
    (
        "a key that is not there",
        lambda p, f, s: _set(s, "stringData", to={"other": "sk-1"}),
        "`spec.chain[0].model.apiKeyRef`: no key; give the Secret `keys` with `primary`, or set `BACKSTOP_API_KEY_0`",
    ),
    (
        "a key that is no base64",
        lambda p, f, s: (s.pop("stringData"), s.update(data={"primary": "%%"})),
        "Secret `keys`: `data.primary` is not base64 of text; use `stringData`",
    ),
    (
        "a metadata address",
        lambda p, f, s: _set(f, "spec", "chain", 0, "model", "baseURL", to="http://169.254.169.254/v1"),
        "`spec.chain[0].model.baseURL` is a link-local or metadata address, which is never called; name the model's own host",
    ),
    (
        "a port that is no port",
        lambda p, f, s: _set(f, "spec", "chain", 0, "model", "baseURL", to="http://llm:99999/v1"),
        "`spec.chain[0].model.baseURL` is not a URL; correct the host or the port",
    ),
    ("no name", lambda p, f, s: f["metadata"].clear(), "FallbackPolicy: `metadata.name` is missing; set it"),
]


@pytest.mark.parametrize(("change", "sentence"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_manifest_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change: Change, sentence: str
) -> None:
    prompt, policy, secret = (copy.deepcopy(body) for body in (PROMPT, POLICY, SECRET))
    change(prompt, policy, secret)
    said = _refused(["--manifests", str(_write(tmp_path, prompt, OTHER, policy, secret))], capsys=capsys)
    assert said.removeprefix("backstop-gateway: ").removeprefix(f"{tmp_path}/m.yaml: ").endswith(sentence)
    assert "sk-1" not in said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1", "line 1: not valid YAML"),
        ("a: 1\n\tb: 2", "line 2: not valid YAML"),
        ("just text", "a document without `kind`; give Kubernetes manifests"),
        ("", "no file has a FallbackPolicy; give one to `--manifests`"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    assert sentence in _refused(["--manifests", str(tmp_path / "m.yaml")], capsys=capsys)


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}/gone.yaml: cannot be read" in _refused(["--manifests", f"{tmp_path}/gone.yaml"], capsys=capsys)
    assert f"{tmp_path}: cannot be read" in _refused(["--manifests", str(tmp_path)], capsys=capsys)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in _refused(["--record", f"{tmp_path}/binary"], capsys=capsys)


def test_several_policies_need_a_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = copy.deepcopy(POLICY)
    second["metadata"]["name"] = "sales"
    file = str(_write(tmp_path, PROMPT, POLICY, second, SECRET))
    assert "several FallbackPolicies; choose one with `--policy`: `sales`, `support`" in _refused(["--manifests", file], capsys=capsys)
    assert "no file has a FallbackPolicy `x`" in _refused(["--manifests", file, "--policy", "x"], capsys=capsys)
    assert "is given twice" in _refused(["--manifests", str(_write(tmp_path, PROMPT, POLICY, POLICY))], capsys=capsys)


def test_a_port_in_use_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(_write(tmp_path, PROMPT, POLICY, SECRET))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = _refused(["--manifests", file, "--port", str(port)], capsys=capsys)
    assert said == f"backstop-gateway: `--port {port}` cannot be listened on (Address already in use); choose another port"


SECONDS = "must be seconds between 0 and 86400, not"
PORT = "must be a port between 0 and 65535, not"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        *(
            ([f"{option}={text}"], f"`{option}` {SECONDS} `{text}`; correct it")
            for option in ("--grace-seconds", "--drain-seconds")
            for text in ("nan", "inf", "-inf", "-1", "1e300", "30s", "")
        ),
        *(
            ([f"{option}={text}"], f"`{option}` {PORT} `{text}`; correct it")
            for option in ("--port", "--metrics-port")
            for text in ("70000", "-1", "http", "8080.0", "\u0664", "9" * 5000)
        ),
        (["--peer", "abc=llm:99999"], f"`--peer abc` {PORT} `99999`; correct it"),
        (["--peer", "abc=8080"], "`--peer abc=8080` is not REVISION=HOST:PORT; correct it"),
        (["--grace-seconds", "-inf"], "argument --grace-seconds: expected one argument; see `backstop-gateway --help`"),
        (["--colour", "red"], "unrecognized arguments: --colour red; see `backstop-gateway --help`"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    file = str(_write(tmp_path, PROMPT, POLICY, SECRET))
    said = _refused(["--manifests", file, "--port", "0", "--metrics-port", "0", *options], capsys=capsys)
    assert said == f"backstop-gateway: {sentence}"


def test_an_environment_without_a_port_of_the_api_server_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "tcp://10.0.0.1:443")
    (tmp_path / "r.json").write_text(make_record([model_tier("llm:80")]).model_dump_json(exclude_defaults=True))
    said = _refused(["--record", f"{tmp_path}/r.json"], capsys=capsys)
    assert said == f"backstop-gateway: `KUBERNETES_SERVICE_PORT` {PORT} `tcp://10.0.0.1:443`; correct it"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PROTOCOL", "grpc", "`OTEL_EXPORTER_OTLP_PROTOCOL` must be `http/protobuf`, for the gateway knows no other; correct it"),
        ("CERTIFICATE", "/gone.pem", "`OTEL_EXPORTER_OTLP_CERTIFICATE` names a file that cannot be read; correct it"),
    ],
)
def test_traces_that_cannot_be_sent_so_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    said = _refused(["--manifests", str(_write(tmp_path, PROMPT, POLICY, SECRET))], capsys=capsys)
    assert said == f"backstop-gateway: {sentence}"


def test_traces_need_what_sends_them(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.delitem(sys.modules, "backstop.gateway.spanexport", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)  # as it is where the extra was not installed
    said = _refused(["--manifests", str(_write(tmp_path, PROMPT, POLICY, SECRET))], capsys=capsys)
    assert said.endswith("this installation has nothing to send them with; install `backstop[traces]`")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.update(colour=1), "`colour` is not a known field; take it out or correct its name"),
        (lambda r: r["chain"][0].pop("name"), "`chain[0].name` is missing; set it"),
        (lambda r: r.update(scheme=2), "`scheme` must be at most 1"),
    ],
)
def test_a_record_from_another_time_is_refused_with_its_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], Any], sentence: str
) -> None:
    record = make_record([model_tier("llm:80")]).model_dump(mode="json", exclude_defaults=True)
    change(record)
    (tmp_path / "r.json").write_text(json.dumps(record))
    assert _refused(["--record", f"{tmp_path}/r.json"], capsys=capsys).endswith(f"r.json: {sentence}")


@pytest.mark.long
async def test_a_gateway_runs_on_a_laptop_from_the_manifests_alone(tmp_path: Path, model: Model, http: aiohttp.ClientSession) -> None:
    policy = copy.deepcopy(POLICY)
    _set(policy, "spec", "chain", 0, "model", "baseURL", to=f"http://{model.url}/v1")
    _set(policy, "spec", "latencyBudgetMilliseconds", to=20_000)
    _set(policy, "spec", "chain", 0, "timeouts", "firstTokenMilliseconds", to=10_000)
    file = _write(tmp_path, OTHER, {"apiVersion": "v1", "kind": "List", "items": [PROMPT, SECRET]}, policy)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backstop.gateway.main", "--manifests", str(file), "--port", "0", "--metrics-port", "0"),
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT / "operator"), "KUBERNETES_SERVICE_HOST": "127.0.0.1"},
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            line = (await process.stderr.readline()).decode()
            port = line.split("on port ")[1].split(",")[0]
            body = {"messages": [USER], "metadata": {"customer": "Ann"}}
            async with http.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as response:
                assert response.status == 200
                assert response.headers["x-backstop-track"] == "stable"
            process.terminate()
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    assert model.fake.requests[-1]["headers"]["Authorization"] == "Bearer sk-1"
    assert model.sent()["messages"] == [{"role": "system", "content": "Help Ann."}, USER]


def _write(folder: Path, *objects: dict[str, Any]) -> Path:
    file = folder / "m.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    return file


def _refused(arguments: list[str], *, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.endswith("\n")
    assert said.count("\n") == 1, "one sentence on one line"
    return said.strip()
