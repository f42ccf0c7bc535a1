"""Templates: what they can do, what they cannot, and how little of the machine they get."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kaos_runner.recipe.evaluate import TemplateError, render_text, render_value
from kaos_runner.recipe.template import Template, parse

PARAMS = {
    "s": "a b",
    "n": 3,
    "yes": True,
    "names": ["x", "y z"],
    "nothing": None,
    "deep": {"a": [1]},
}
CONTEXT = {"params": PARAMS, "run": {"id": "r1"}, "recipe": {"name": "demo"}, "prompts": {}}


def _render(text: str) -> str:
    template = parse(text, PARAMS)
    assert [flaw.message for flaw in template.flaws] == []
    return render_text(template, CONTEXT)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ params.s }}", "a b"),
        ("{{ params['s'] }}", "a b"),
        ("{{ params.s | sh }} {{ params.names | sh }}", "'a b' x 'y z'"),
        ("{{ params.n + 1 }} {{ params.n * 2 }} {{ params.n // 2 }} {{ 2 ** 10 }}", "4 6 1 1024"),
        ("{{ params.yes }} {{ not params.yes }}", "true false"),
        ("{{ params.names }}", '["x", "y z"]'),
        ("{{ params.deep.a[0] }}", "1"),
        ("{{ params.names | join(', ') }}", "x, y z"),
        ("{{ params.names | map('upper') | join }}", "XY Z"),
        ("{{ params.names | length }} {{ params.s | length }}", "2 3"),
        ("{% for n in params.names %}{{ loop.index }}{{ n }}{% if not loop.last %},{% endif %}"
         "{% else %}none{% endfor %}", "1x,2y z"),
        ("{% for n in [] %}{{ n }}{% else %}none{% endfor %}", "none"),
        ("{% for n in params.names if n != 'x' %}{{ n }}{% endfor %}", "y z"),
        ("{% for k, v in {'a': 1} | items %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{% if params.n > 2 and 'x' in params.names %}yes{% else %}no{% endif %}", "yes"),
        ("{% set a = 'x' %}{{ a ~ 1 ~ true }}", "x1true"),
        ("{{ params.nothing | default('d') }} {{ params.nothing | d }}", "d "),
        ("{{ 'a' if params.nothing else 'b' }}", "b"),
        ("{{ params.nothing is none }} {{ params.nothing is defined }}", "true false"),
        ("{{ 'abc'[1:] }} {{ 'abc' | first }} {{ 'abc' | reverse }}", "bc a cba"),
        ("{{ [3, 1, 2] | sort | join('-') }} {{ [1, 2] | sum }} {{ [2, 5] | max }}", "1-2-3 3 5"),
        ("{{ 'a,b' | split(',') | tojson }}", '["a", "b"]'),
        ("{{ '1' | int + 1 }} {{ 'x' | int }} {{ 2.5 | round }} {{ -2 | abs }}", "2 0 2.0 2"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ [{'a': 1}, {'a': 2}] | selectattr('a', 'gt', 1) | map(attribute='a') }}", "[2]"),
        ("{{ [1, 1, 'a'] | unique }} {{ ['a'] | reject('eq', 'a') | list }}", '[1, "a"] []'),
        ("{{ params.s | replace('a', 'b') | upper | trim }}", "B B"),
        ("{% raw %}{{ not a template }}{% endraw %}", "{{ not a template }}"),
        ("{# a comment #}x", "x"),
        ("{{ params.n is odd }} {{ params.n is divisibleby(3) }}", "true true"),
        ("{{ recipe.name }} {{ run.id }}", "demo r1"),
        ("{{ ('a' * 1000000) | length }}", "1000000"),
    ],
)  # fmt: skip
def test_what_templates_do(text: str, rendered: str) -> None:
    assert _render(text) == rendered


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ params.n }}", 3), (" {{ params.yes }}\n", True), ("{{ params.names }}", ["x", "y z"]),
        ("{{ (1, [2.5]) }}", [1, [2.5]]), ("{{ {1: (2,)} }}", {"1": [2]}), ("{{ 6 / 2 }}", 3.0),
        ("{{ [1, 2] | map('string') }}", ["1", "2"]), ("{{ 'a' if false }}", ""),
        ("{{ params.names | select('eq', 'x') | first }}", "x"), ("{{ '1' ~ 2 }}", "12"),
    ],
)  # fmt: skip
def test_whole_expressions_keep_their_type(text: str, value: Any) -> None:
    template = parse(text, PARAMS)
    assert template.expression is not None
    assert render_value(template, CONTEXT) == value


@pytest.mark.parametrize(
    "text", ["{{ params.n }}m", "{{ params.n }}{{ params.n }}", "{% if 1 %}{% endif %}", "x"]
)
def test_what_is_no_whole_expression(text: str) -> None:
    assert parse(text, PARAMS).expression is None


LONG_NESTING = "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}"
HOSTILE = [
    '{{ "a" * 300000000 }}',
    "{{ ('a' * 1000000) ~ ('a' * 1000000) }}",
    "{{ [0] * 999999999 }}",
    "{{ [['a' * 1000] * 1000] * 1000 }}",
    "{{ (['a' * 1000] * 1000) | map('replace', 'a', 'b' * 1000) | join }}",
    "{{ 9 ** 9 ** 9 ** 9 ** 9 }}",
    "{{ 2 ** 99999999999 }}",
    "{{ 9 ** -99999999999 }}",
    "{{ 10.0 ** 400 }}",
    "{{ 3.7 | round(1000000000, 'ceil') }}",
    "{{ 'a' | indent(999999999) }}",
    "{{ 'a' | indent(width=999999999, first=true) }}",
    "{{ ('\\n' * 1000000) | indent(300) }}",
    "{{ ('a' * 16000) | replace('a', 'b' * 16000) }}",
    "{{ (['x'] * 10000) | join('y' * 10000) }}",
    "{{ '%999999999d' % 3 }}",
    "{{ '{:>999999999}' | format(1) }}",
    "{{ range(999999999) | list }}",
    "{{ lipsum(999999) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ params.__class__ }}",
    "{{ params.s.upper }}",
    "{{ params['__class__'] }}",
    "{{ params.s | attr('__class__') }}",
    "{{ [params.s] | map(attribute='__class__') | first }}",
    "{{ self._TemplateReference__context }}",
    "{{ run.__class__ }}",
    "{{ joiner }}{{ namespace() }}{{ dict(a=1) }}",
    "{% for a in 'aaaaaaaaaaaaaaaaaaaa' %}" * 8 + "{% endfor %}" * 8,
    "{% for a in 'a' * 1000000 %}x{% endfor %}",
    "{% set a = 'aaaaaaaaaa' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
    "{% set a = [0] %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
    "{% set a = [[]] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
    LONG_NESTING,
    "{{ " + "-" * 5000 + "1 }}",
    "{{ " + "not " * 5000 + "1 }}",
    "{{ " + "9" * 6000 + " }}",
    "{{ 0x" + "f" * 100000 + " }}",
    "{{ 1e999999 }}",
    "{{ params.s" + ".a" * 3000 + " }}",
    "{{ params.s" + " | upper" * 3000 + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for a in params.names recursive %}{{ loop(a) }}{% endfor %}",
    "{% call x() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}",
    "{% block a %}{% endblock %}",
    "{% autoescape true %}{% endautoescape %}",
    "{% trans %}{% endtrans %}",
    "{{ 1 / 0 }}{{ 'a' + 1 }}",
    "{{ params.n > 'a' }}",
    "{{ params.names[99] }}",
    "{{ params.nothing }}",
    "{{ none }}",
    "{% set params = 1 %}",
    "{% for prompts in [1] %}{% endfor %}",
    "{{ params }}",
    "{{ prompts }}",
    "{{ params[params.s] }}",
    "{{ params.s(*params.names) }}",
    "{{ params.s | default(*params.names) }}",
    "{{ params.s | join(**params.deep) }}",
    "{{ params.s is callable }}",
    "{{ params.n | sum }}",
    "{{ params.n | map('map', 'map') }}",
    "{{ 'a' | int(1, 99) | map('sh', 1) }}",
    "{{ 'x' | split('') }}",
    "{% for a, b in params.names %}{% endfor %}",
    "{{ '%999999999d' is odd }}",
    "{{ '%999999999d' is divisibleby 3 }}",
    "{{ ['%999999999d'] | select('even') | list }}",
    "{{ 'aaa' | round(8, 'ceil') }}",
    "{{ ([[1]] * 30000) | sum(start=[]) }}",
    "{{ ('a,' * 500000) | split(',') }}",
    "{{ 1[1:] }}",
    "{{ ('a' * 60000) | map(attribute='0.' * 100000 ~ '0') | list }}",
    "{{ (['x'] * 10000) | join(['y' * 100000]) }}",
    "{{ ('x' * 10000) | replace('x', ['y' * 100000]) }}",
    "{{ ([2 ** 2000] * 60000) | join }}",
    "{% set a = ['a' * 1000] * 1000 %}{% for i in 'a' * 5000 %}{{ a == a }}{% endfor %}",
    "{% set a = 'a' * 1000000 %}{% for i in 'a' * 5000 %}{{ 'b' in a }}{% endfor %}",
    "{% set a = 'a' * 1000000 %}{% for i in 'a' * 5000 %}{% set b = a[1:] %}{% endfor %}",
    "".join(f"{{% set a{i} = 'a' * 1000000 %}}" for i in range(500)),
    "".join(f"{{% if 1 %}}{{% set a{i} = 1 %}}{{% endif %}}" for i in range(2000)),
    "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
    "{{ 1" + " + 1" * 400 + " }}",
    "{{ 1" + " if 1 else 1" * 150 + " }}",
    "{{ caller }}{{ varargs }}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:40])
def test_hostile_templates_fail_soon(text: str) -> None:
    begun = time.process_time()
    template = parse(text, PARAMS)
    if not template.flaws:
        with pytest.raises(TemplateError):
            render_text(template, CONTEXT)
    assert time.process_time() - begun < 20  # a hang, not a speed: each takes under a second


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ '{0.__class__}'.format(params) }}",
    "{{ '{0.__class__}' | format(params) }}",
    "{{ '%s' | format(params) }}",
    "{{ ['{0.__class__}'] | map('format', 1) | list }}",
    "{{ params.s | attr('__class__') }}",
    "{{ [1] | map('attr', '__class__') | list }}",
    "{{ [1] | map(attribute='__class__') | list }}",
    "{{ [params] | map(attribute='s.__class__') | list }}",
    "{{ [1] | selectattr('__class__') | map(attribute='__class__') | first }}",
    "{{ [[].append] }}",
    "{{ params.update({}) }}",
    "{{ params.names.append(1) }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ range(3) }}",
    "{% for a in [1] %}{{ loop }}{% endfor %}",
    "{% for a in [1] %}{{ [loop] }}{% endfor %}",
    "{% for a in [1] %}{{ loop ~ '' }}{% endfor %}",
    "{% for a in [1] %}{{ loop | list }}{% endfor %}",
    "{% for a in [1] %}{{ loop.cycle }}{% endfor %}",
    "{% for a in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m }}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "{% import 'os' as os %}",
    "{% include 'x' %}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_no_way_out_of_the_sandbox_even_past_the_reader(text: str) -> None:
    with pytest.raises(TemplateError):
        render_text(Template(text), CONTEXT)


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("\n{{ 1 / 0 }}", 2, "division by zero", None),
        ("{{ params.deep.b }}", 1, "`params.deep.b` has no value",
         "give it one, or write `params.deep.b | default('…')`"),
        ("a\nb\n{{ [] | first }}", 3, "no first item, sequence was empty",
         "give it one, or write `… | default('…')`"),
        ("{{ [params.nothing] }}", 1, "`params.nothing` has no value",
         "give it one, or write `params.nothing | default('…')`"),
        ("{{ none }}", 1, "the value is `none`, which has no text", "write `… | default('…')`"),
        ("{% for a in params.n %}{% endfor %}", 1, "a loop goes over a list", None),
        ("{{ 'a' is odd }}", 1, "`odd` takes a number", None),
        ("{{ '%9d' % 1 }}", 1, "`%` formats no text here", "use `~` to join values"),
        ("{{ 1 }}\n{{ 9 | join }}", 2,
         "`join` does not suit its value: 'int' object is not iterable", None),
        ("{{ 1 + 'a' }}", 1, "the expression does not fit its values: "
         "unsupported operand type(s) for +: 'int' and 'str'", None),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told(text: str, line: int, message: str, hint: str | None) -> None:
    with pytest.raises(TemplateError) as caught:
        render_text(parse(text, PARAMS), CONTEXT)
    assert (caught.value.line, caught.value.message, caught.value.hint) == (line, message, hint)


def test_output_is_bounded() -> None:
    template = parse("{% for a in 'aaaaaaaaaa' %}{% for b in 'aaaaaaaaaa' %}" + "x" * 20000
                     + "{% endfor %}{% endfor %}", PARAMS)  # fmt: skip
    with pytest.raises(TemplateError, match="longer than 1 MiB"):
        render_text(template, CONTEXT)


def test_a_value_is_never_a_template() -> None:
    template = parse("{{ params.s }}", {"s": ""})
    assert render_text(template, {"params": {"s": "{{ 7 * 7 }}"}}) == "{{ 7 * 7 }}"


@pytest.mark.parametrize(
    ("text", "unquoted"),
    [
        ("{{ params.s }}", True),
        ("{{ params.s | upper }}", True),
        ("{{ 'x' ~ params.s }}", True),
        ("{{ params.s if params.n else 'x' }}", True),
        ("{% for n in params.names %}{{ n }}{% endfor %}", False),
        ("{{ params.s | sh }}", False),
        ("{{ params.s | upper | sh }}", False),
        ("{{ params.names | map('sh') | join(' ') }}", False),
        ("{{ params.s | length }}", False),
        ("{{ 'a' if params.s else 'b' }}", False),
        ("{% if params.s %}x{% endif %}", False),
    ],
)
def test_where_shell_quoting_is_missing(text: str, unquoted: bool) -> None:
    assert bool(parse(text, PARAMS).unquoted) == unquoted
