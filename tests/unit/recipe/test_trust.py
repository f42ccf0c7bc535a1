"""Trust: what an untrusted recipe may not use, and what `explain` lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaos_runner.recipe import names
from kaos_runner.recipe.load import LoadOptions, load
from kaos_runner.recipe.model import ToolName
from kaos_runner.recipe.render import RunContext
from kaos_runner.recipe.trust import Fence, powers

HEAD = "version: 1\nname: demo\n"
LOCAL = "backend: local\n"
PROMPTS = "prompts: [Do it.]\n"


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(HEAD + text + PROMPTS, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (LOCAL + "secrets: [MY_TOKEN]\n", "secrets"),
        (LOCAL + "agent: {model: {api_key_env: MY_KEY}}\n", "agent.model.api_key_env"),
        (LOCAL + "agent: {model: {base_url: 'https://x.example'}}\n", "agent.model.base_url"),
        (LOCAL + "agent: {tools: [shell, fetch]}\n", "agent.tools"),
        (LOCAL + "params: {a: {env: H, default: x}}\nenv: {A: '{{ params.a }}'}\n", "params.a.env"),
        ("backend: {type: boxlite, url: 'https://x.example'}\n", "backend.url"),
        ("backend: {type: boxlite, api_key_env: X}\n", "backend.api_key_env"),
        ("backend: {type: boxlite, volumes: [{from: recipe.yaml, to: /x}]}\n", "backend.volumes"),
        ("backend: {type: boxlite, home: /var/x}\n", "backend.home"),
        ("backend: {type: boxlite, registries: [{host: x.example, password_env: P}]}\n",
         "backend.registries[0].password_env"),
    ],
)  # fmt: skip
def test_untrusted_refuses(tmp_path: Path, text: str, path: str) -> None:
    recipe = _write(tmp_path, text)
    assert [str(p) for p in load(recipe).problems if p.severity == "error"] == []
    refused = load(recipe, options=LoadOptions(untrusted=True)).problems
    assert path in [problem.path for problem in refused if problem.severity == "error"]


@pytest.mark.parametrize(
    "text",
    [
        LOCAL,
        LOCAL + "secrets: []\n",
        LOCAL + "env: {url: x, api_key_env: y, base_url: z}\n",
        LOCAL + "x-base_url: x\n",
        LOCAL + "params: {url: {default: x}}\nenv: {A: '{{ params.url }}'}\n",
    ],
)
def test_untrusted_accepts(tmp_path: Path, text: str) -> None:
    assert load(_write(tmp_path, text), options=LoadOptions(untrusted=True)).problems == ()


def test_untrusted_looks_into_what_is_extended(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("version: 1\nbackend: local\nsecrets: [MY_TOKEN]\n")
    top = tmp_path / "top.yaml"
    top.write_text("extends: base.yaml\nname: x\nprompts: [Do it.]\n")
    problem = load(top, options=LoadOptions(untrusted=True)).problems[0]
    assert (Path(problem.file or "").name, problem.line) == ("base.yaml", 3)


def test_an_output_schema_names_no_power(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    schema = "{type: object, properties: {base_url: {type: string}, my_env: {type: string}}}"
    recipe.write_text(f"{HEAD}{LOCAL}prompts: [{{text: x, output: {{schema: {schema}}}}}]\n")
    assert load(recipe, options=LoadOptions(untrusted=True)).problems == ()


def test_every_power_is_listed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    text = """\
backend: local
secrets: [MY_TOKEN]
files: [{from: data}]
agent:
  model: {base_url: "https://x.example", api_key_env: MY_KEY}
  tools: [shell, fetch]
"""
    rendered = load(_write(tmp_path, text)).render(run=RunContext.now("r"))
    found = {power.path: str(power) for power in powers(rendered)}
    assert found == {
        "secrets[0]": "it hands a host variable to the sandbox: MY_TOKEN (secrets[0])",
        "files[0]": "it reads from the host: data (files[0])",
        "agent.model.base_url": "it names a server of its own: base_url (agent.model.base_url)",
        "agent.model.api_key_env": (
            "it names a host variable: api_key_env (agent.model.api_key_env)"
        ),
        "agent.tools": "it acts on the host: the tool fetch (agent.tools)",
        "network": "network: the sandbox may reach any host (network)",
        "agent.model": "the model is paid by: the owner of MY_KEY (agent.model)",
    }


def test_host_tools_are_tools() -> None:
    assert set(names.HOST_TOOLS) <= set(ToolName.__args__)  # type: ignore[attr-defined]
    assert not set(names.HOST_TOOLS) & set(names.DEFAULT_TOOLS)


def test_fence_is_the_git_work_tree(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert Fence.around(inner / "recipe.yaml").roots == (inner,)
    (tmp_path / ".git").write_text("gitdir: elsewhere\n")
    assert Fence.around(inner / "recipe.yaml").roots == (tmp_path,)


def test_fence_follows_symlinks(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "out").symlink_to(outside)
    (inside / "in").symlink_to(inside)
    (inside / "loop").symlink_to(inside / "loop")
    fence = Fence.around(inside / "recipe.yaml")
    assert fence.holds(inside / "in" / "x")
    assert not fence.holds(inside / "out" / "x")
    assert not fence.holds(inside / ".." / "outside")
    assert not fence.holds(Path("/etc/passwd"))
    assert not fence.holds(inside / "a\0b")
