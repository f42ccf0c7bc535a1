"""Makes the SDK's session: its own classes, with our tools, prompt, provider and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from kaos.path import KaosPath
from kimi_agent_sdk import Config, Session
from kimi_cli.app import KimiCLI
from kimi_cli.config import LLMModel, LLMProvider, LoopControl
from kimi_cli.metadata import WorkDirMeta
from kimi_cli.session import Session as SdkSession
from kimi_cli.wire.file import WireFile
from pydantic import SecretStr

from kaos_runner.agent import prompt
from kaos_runner.agent.binding import Binding, building
from kaos_runner.agent.closed import ClosedKaos, bound
from kaos_runner.agent.provider import MeteredProvider
from kaos_runner.agent.soul import LiteralSoul
from kaos_runner.agent.spec import DEFAULT_CONTEXT, Provider, SessionSpec
from kaos_runner.agent.wire import rewire

if TYPE_CHECKING:
    import httpx

TOOLS = {
    "shell": "kaos_runner.agent.tools:Shell",
    "read": "kaos_runner.agent.tools:ReadFile",
    "write": "kaos_runner.agent.tools:WriteFile",
    "edit": "kaos_runner.agent.tools:StrReplaceFile",
    "glob": "kaos_runner.agent.tools:Glob",
    "grep": "kaos_runner.agent.grep:Grep",
    "todo": "kaos_runner.agent.tools:SetTodoList",
    "task": "kaos_runner.agent.soul:Task",
    "fetch": "kaos_runner.agent.tools_fetch:FetchURL",
}
_CODER = "Good at general software engineering tasks."
_UNLIMITED = 10**9
_RESERVED = 50_000
"""Tokens that the SDK keeps free for the answer."""


async def make(
    binding: Binding, provider: Provider, http: httpx.AsyncClient, session_id: str
) -> Session:
    """The session over `session_dir`: a conversation that is there is gone on with."""
    spec = binding.spec
    agent_file = _write_agent(binding)
    closed = ClosedKaos(spec.kaos, spec.workdir)
    token = building.set(binding)
    try:
        with bound(closed):
            cli = await KimiCLI.create(
                _files(spec, session_id),
                config=_config(provider),
                yolo=True,  # our wrapper decides; the SDK's own refusal would end the turn
                agent_file=agent_file,
            )
    finally:
        building.reset(token)
    llm = cli.soul.runtime.llm
    if llm is not None:
        rewire(llm.chat_provider, http)
        llm.chat_provider = MeteredProvider(llm.chat_provider, binding.journal)
    soul = LiteralSoul(cli.soul.agent, context=cli.soul.context)
    return Session(KimiCLI(soul, cli.soul.runtime, {}))


def _files(spec: SessionSpec, session_id: str) -> SdkSession:
    """The SDK's record of a session, in our directory.

    `Session.create` would put it under a path that all sessions of this process share, note it in
    an unlocked index, and empty a conversation that is there.
    """
    context = spec.session_dir / "context.jsonl"
    context.touch(mode=0o600)
    return SdkSession(
        id=session_id,
        work_dir=KaosPath(spec.workdir),
        work_dir_meta=WorkDirMeta(path=spec.workdir, kaos=spec.kaos.name),
        context_file=context,
        wire_file=WireFile(path=spec.session_dir / "wire.jsonl"),
        title="",
        updated_at=0.0,
    )


def _config(provider: Provider) -> Config:
    """A fresh Config: the SDK writes into it."""
    name = "recipe"
    size = provider.max_context or DEFAULT_CONTEXT
    model = LLMModel(provider=name, model=provider.model, max_context_size=size)
    source = LLMProvider.model_validate(
        {
            "type": provider.type,
            "base_url": provider.url,
            "api_key": SecretStr(provider.api_key),
        }
    )
    return Config(
        default_model=name,
        models={name: model},
        providers={name: source},
        loop_control=LoopControl(
            max_steps_per_turn=_UNLIMITED,  # the meter's business, subagents included
            max_retries_per_step=1,  # the wrapper's business: a cut answer is not asked for twice
            reserved_context_size=max(min(_RESERVED, size // 2), 1000),
        ),
    )


def _write_agent(binding: Binding) -> Path:
    """The agent files, made for this session."""
    spec = binding.spec
    tools = [TOOLS[name] for name in spec.agent.tools]
    root: dict[str, Any] = _agent(binding, "kaos-runner", tools, subagent=False)
    if TOOLS["task"] in tools:
        root["subagents"] = {"coder": {"path": "./coder.yaml", "description": _CODER}}
        others = [tool for tool in tools if tool != TOOLS["task"]]
        _write(spec.session_dir / "coder.yaml", _agent(binding, "coder", others, subagent=True))
    return _write(spec.session_dir / "agent.yaml", root)


def _agent(binding: Binding, name: str, tools: list[str], *, subagent: bool) -> dict[str, Any]:
    return {
        "name": name,
        "system_prompt_path": str(Path(__file__).with_name("system.md")),
        "system_prompt_args": prompt.arguments(binding.spec, binding.facts, subagent=subagent),
        "tools": tools,
    }


def _write(path: Path, agent: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"version": 1, "agent": agent}, allow_unicode=True), "utf-8")
    return path
