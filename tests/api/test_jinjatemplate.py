"""Which templates in Jinja2 may be, what they render, and which are refused before anything of them runs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.api.jinjatemplate import MOST_DEPTH, MOST_NODES, judge
from backstop.api.problems import parse_strictly
from backstop.api.promptversion import PromptVersionSpec
from backstop.api.record import prompt_digest
from backstop.api.template import compile_prompt
from backstop.api.templateerror import TemplateError

KINDS = {"name": "String", "count": "Integer", "share": "Number", "gold": "Boolean"}
VALUES = {"name": "Ann", "count": "007", "share": "1.50", "gold": "false"}


def rendered(text: str, **values: str) -> str:
    template = judge(text, field="f", kinds=KINDS)
    return template.compile().render(template.typed(VALUES | values))


RENDERED = [
    ("Hi {{ name }}.\n", "Hi Ann.\n"),
    ("{{count}} {{share}} {{gold}}", "007 1.50 false"),
    ("{% if gold %}gold{% elif count > 6 and share <= 1.5 %}many{% else %}few{% endif %}", "many"),
    ("{{ 'yes' if name == 'Ann' else 'no' }}", "yes"),
    ("{{ name | upper }} {{ name|length }} {{ '' | default('?', true) }} {{ name ~ '-' ~ count }}", "ANN 3 ? Ann-007"),
    ("{% if 'n' in name and name not in ['Bob', 'Eve'] %}1{% endif %}{% if name < 'B' %}2{% endif %}", "12"),
    ("{# nobody sees this #}{% raw %}{{ name }}{% endraw %}", "{{ name }}"),
    ("{% if not gold -%}  trimmed  {%- endif %}", "trimmed"),
    ("<b>{{ name }}</b>", "<b>Ann</b>"),
]


@pytest.mark.parametrize(("text", "said"), RENDERED)
def test_what_is_offered_renders(text: str, said: str) -> None:
    assert rendered(text) == said


@given(st.text())
def test_w51_a_value_is_only_ever_a_value(value: str) -> None:
    assert rendered("a{{ name }}b{{ name }}c", name=value) == f"a{value}b{value}c"


@pytest.mark.parametrize("value", ["{{ count }}", "{% if gold %}", "{#", "{{ name }}", "{{ 7 * 7 }}", "%}", "\x00", "\ud800"])
def test_w51_a_value_that_looks_like_a_template_is_literal(value: str) -> None:
    assert rendered("{{ name }}", name=value) == value


BOMBS = [
    "{% for i in range(1000000000) %}x{% endfor %}",
    "{% for c in name %}{% for d in name %}x{% endfor %}{% endfor %}",
    "{{ 'x' * 1000000000 }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ 9 % 0 }}",
    "{{ count / 0 }}",
    "{{ 10 + count }}",
    "{% set x = name ~ name %}{{ x }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% include 'f' %}",
    "{% import 'f' as f %}",
    "{% from 'f' import g %}",
    "{% extends 'f' %}",
    "{% block b %}{% endblock %}",
    "{% call name() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}",
    "{% with x = name %}{{ x }}{% endwith %}",
    "{% autoescape true %}{% endautoescape %}",
    "{{ range(10) }}",
    "{{ name() }}",
    "{{ name.__class__ }}",
    "{{ name['__class__'] }}",
    "{{ name[0] }}",
    "{{ name[::2] }}",
    "{{ '%1000000000d' | format(count) }}",
    "{{ name | replace('', name) }}",
    "{{ name | center(1000000000) }}",
    "{{ name | indent(1000000000) }}",
    "{{ name | attr('upper') }}",
    "{{ name | map('upper') }}",
    "{{ name | default(name) }}",
    "{{ name | default(value='x') }}",
    "{{ name | upper(1) }}",
    "{{ count | upper }}",
    "{{ name is defined }}",
    "{{ [name, name] }}",
    "{{ {'a': name} }}",
    "{{ none }}",
    "{{ name if gold }}",
    "{{ -count }}",
    "{{ self }}",
    "{{ loop }}",
    "{{ cycler }}",
    "{{ count > name }}",
    "{{ count == 'x' }}",
    "{{ 1 < gold }}",
    "{{ 'x' in count }}",
    "{{ name ~ gold }}",
    "{{ name in [name] }}",
    "{{ ((name | default(1)) < 2) }}",
    "{{",
    "{% if gold %}",
    "{{ name | nobody }}",
    "{{ " + "(" * 5000 + "name" + ")" * 5000 + " }}",
    "{% if gold %}" * (MOST_DEPTH + 1) + "{% endif %}" * (MOST_DEPTH + 1),
    "{{ name }}" * (MOST_NODES + 1),
    "{{ name not in [" + "1," * 10 * MOST_NODES + "] }}{{ name }}",
]


@pytest.mark.parametrize("text", BOMBS, ids=lambda text: text[:40])
def test_w52_what_could_loop_grow_or_fail_is_refused_before_anything_of_it_runs(text: str) -> None:
    with pytest.raises(TemplateError, match=r"^`f`"):
        judge(text, field="f", kinds=KINDS)


def spec(content: str, *, variables: list[dict[str, Any]], **more: Any) -> PromptVersionSpec:
    whole = {"prompt": "p", "version": "1.0.0", "messages": [{"role": "system", "content": content}], "variables": variables}
    return parse_strictly(PromptVersionSpec, whole | more, prefix="spec")


JINJA = {"template": {"engine": "Jinja2"}}


@pytest.mark.parametrize(
    ("content", "variables", "sentence"),
    [
        (
            "{{ b }}",
            [],
            "`spec.messages[0].content` uses the variable `b`, which `spec.variables` does not declare; declare it or take it out",
        ),
        ("x", [{"name": "a"}], "`spec.variables` declares `a`, which no message uses; use it or take it out"),
        (
            "a\n{{ a * 2 }}",
            [{"name": "a", "type": "Integer"}],
            "`spec.messages[0].content`, line 2: `mul` is not offered; there are variables, `if`, comparisons, `and`",
        ),
        (
            "{{ a }}",
            [{"name": "a", "type": "Integer", "required": False}],
            "`spec.variables`: `a` may be missing, and `Jinja2` cannot compare a missing Integer; give it a `default`",
        ),
        ("{% if a %}", [{"name": "a"}], "`spec.messages[0].content`, line 1: no Jinja2 template: "),
    ],
)
def test_a_prompt_that_cannot_be_rendered_is_refused_in_a_sentence(content: str, variables: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(TemplateError) as refused:
        compile_prompt(spec(content, variables=variables, **JINJA))
    assert str(refused.value).startswith(sentence)


def test_the_engine_is_part_of_the_digest_where_it_is_not_the_default() -> None:
    plain, said, other = (spec("x", variables=[], **more) for more in ({}, {"template": {"engine": "Mustache"}}, JINJA))
    assert prompt_digest(plain) == prompt_digest(said) != prompt_digest(other)
