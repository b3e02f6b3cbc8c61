"""A prompt in Jinja2, over real sockets: rendered around the caller's messages, with values that are only ever values."""

import json
from pathlib import Path
from typing import Any

import pytest

from backstop.gateway.manifests import read_record

from .harness import USER, Gateways, Model, make_record, model_tier

TEXT = "{% if gold %}Call {{ name | upper }}.{% else %}{{ name }}: {{ count }} {{ 'orders' if count > 1 else 'order' }}.{% endif %}"
VARIABLES: list[dict[str, Any]] = [
    {"name": "name"},
    {"name": "count", "type": "Integer", "default": "1"},
    {"name": "gold", "type": "Boolean", "default": "false"},
]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": 'A"n\n🙂'}, 'A"n\n🙂: 1 order.'),
        ({"name": "Ann", "count": "02"}, "Ann: 02 orders."),
        ({"name": "Ann", "gold": "true"}, "Call ANN."),
        ({"name": "{{ count }}{% if"}, "{{ count }}{% if: 1 order."),
        ({"name": "\ud800 \x00"}, "\ud800 \x00: 1 order."),
    ],
)
async def test_w51_a_prompt_in_jinja_is_rendered_with_values_of_their_types(
    gateways: Gateways, model: Model, values: dict[str, str], said: str
) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)], prompt=TEXT, variables=VARIABLES, engine="Jinja2"))
    body = b'{"model":"any","messages":[{"role":"user","content":"Hello"}],"metadata":' + as_ascii(values) + b"}"
    assert (await gateway.post(body)).status == 200
    assert model.sent()["messages"] == [{"role": "system", "content": said}, USER]


def as_ascii(values: dict[str, str]) -> bytes:
    return json.dumps(values).encode()


async def test_w50_a_wrong_variable_is_named_as_ever(gateways: Gateways, model: Model) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)], prompt=TEXT, variables=VARIABLES, engine="Jinja2"))
    for metadata, param in (({}, "metadata.name"), ({"name": "A", "count": "x"}, "metadata.count")):
        got = await gateway.chat(metadata=metadata)
        assert (got.status, got.json["error"]["param"]) == (400, param)
    assert list(model.fake.requests) == []


def test_the_record_keeps_the_engine(tmp_path: Path) -> None:
    record = make_record([model_tier("m")], prompt=TEXT, variables=VARIABLES, engine="Jinja2")
    file = tmp_path / "revision.json"
    file.write_text(record.model_dump_json(exclude_defaults=True))
    assert read_record(file) == record
    assert "template" not in make_record([model_tier("m")]).model_dump(mode="json", exclude_defaults=True)["prompt"]
