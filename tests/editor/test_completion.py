"""The schema in an editor: completion, hover and diagnostics of the YAML language server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.editor.language_server import LanguageServer, installed_server

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = Path(__file__).parents[2] / "schemas" / "recipe.schema.json"
FIRST = f"# yaml-language-server: $schema={SCHEMA.as_uri()}\n"
TOP = [
    "agent", "artifacts", "backend", "checks", "cleanup", "description", "env", "extends", "files",
    "image", "limits", "name", "network", "params", "prompts", "secrets", "setup", "version",
    "workdir",
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[LanguageServer]:
    """One server for all cursor positions."""
    with LanguageServer(installed_server()) as server:
        yield server


def _cursor(text: str) -> tuple[str, int, int]:
    """The text without its cursor, and where that stood: line and character, from 0."""
    before, _, after = (FIRST + text).partition("¦")
    line = before.count("\n")
    return before + after, line, len(before) - before.rfind("\n") - 1


def _offers(server: LanguageServer, text: str) -> list[str]:
    plain, line, character = _cursor(text)
    uri = f"file:///recipes/{server.version}.yaml"
    server.open(uri, plain)
    return [str(item["label"]) for item in server.complete(uri, line, character)]


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("version: 1\nbackend: ¦", ["boxlite", "e2b", "local", "sprites"]),
        ("backend:\n  type: ¦", ["boxlite", "e2b", "local", "sprites"]),
        ("backend:\n  type: e2b\n  ¦", ["on_timeout", "sandbox_id", "timeout"]),
        ("limits:\n  ¦", ["steps", "tokens", "wall"]),
        ("cleanup: ¦", ["always", "never", "on_success"]),
        ("network:\n  default: ¦", ["allow", "deny"]),
        ("params:\n  a:\n    type: ¦", ["boolean", "integer", "list", "number", "string"]),
        ("prompts:\n  - text: x\n    ¦", ["checks", "id", "output", "retry"]),
        ("checks:\n  - run: x\n    ¦", ["name", "timeout"]),
        ("artifacts:\n  - path: x\n    optional: ¦", ["false", "true"]),
        ("agent:\n  model:\n    ¦",
         ["api_key_env", "base_url", "max_context", "name", "provider", "replay"]),
    ],
)  # fmt: skip
def test_offers_exactly_what_fits(server: LanguageServer, text: str, offered: list[str]) -> None:
    assert sorted(_offers(server, text)) == offered


def test_offers_every_key_at_the_top(server: LanguageServer) -> None:
    assert set(TOP) <= set(_offers(server, "¦"))


def test_offers_every_kind_of_check(server: LanguageServer) -> None:
    assert {"run", "file", "changed"} <= set(_offers(server, "checks:\n  - ¦"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("limits:\n  wa¦ll: 30m\n", "Wall clock time of the whole run"),
        ("prompts:\n  - te¦xt: x\n", "What the agent is told"),
        ("clean¦up: always\n", "What becomes of the sandbox"),
        ("backend:\n  type: sprites\n  crea¦te_as: x\n", "sprite that is created"),
    ],
)
def test_hover_tells_the_fields_own_words(server: LanguageServer, text: str, words: str) -> None:
    plain, line, character = _cursor(text)
    uri = f"file:///recipes/{server.version}.yaml"
    server.open(uri, plain)
    assert words in server.hover(uri, line, character)


def _diagnostics(server: LanguageServer, text: str) -> list[tuple[int, str]]:
    found = server.open(f"file:///recipes/{server.version}.yaml", FIRST + text)
    return [(each["range"]["start"]["line"], each["message"]) for each in found]


HEAD = "version: 1\nname: x\nbackend: local\nprompts: [x]\n"


def test_valid_recipes_are_clean(server: LanguageServer) -> None:
    for recipe in sorted((SCHEMA.parents[1] / "tests/recipes/valid").glob("*.yaml")):
        text = recipe.read_text(encoding="utf-8-sig")
        assert _diagnostics(server, text) == [], recipe


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("limits: {wall: 30 minutes}\n", 5, "write a duration like 90s, 15m or 2h"),
        ("image: base\n", 5, "the backend `local` has no image"),
        ("cleanup: nevr\n", 5, '"always", "on_success", "never"'),
        ("checks: [{run: x, nam: y}]\n", 5, "Property nam is not allowed"),
        ("checks: [{file: x, timeout: 5s}]\n", 5, "Property timeout is not allowed"),
    ],
)
def test_diagnostics_blame_the_right_branch(
    server: LanguageServer, text: str, line: int, message: str
) -> None:
    ((found, told),) = _diagnostics(server, HEAD + text)
    assert found == line
    assert message in told
