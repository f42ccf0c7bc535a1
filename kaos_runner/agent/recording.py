"""Writes a cassette from what the model really answered."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import yaml

from kaos_runner.agent import placeholders
from kaos_runner.agent.journal import ROOT
from kaos_runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kaos_runner.agent.journal import Answer, AnswerCall


class Recording:
    """Follows one session. What is written has passed the mask, and names no workdir."""

    def __init__(self, path: Path, model: str, workdir: str, mask: Callable[[str], str]) -> None:
        self._path = path
        self._model = model
        self._clean = lambda text: placeholders.put(mask(text), workdir)
        self._turns: list[dict[str, Any]] = []
        self._calls: dict[str, dict[str, Any]] = {}
        self._early: dict[str, bool] = {}

    def answered(self, conversation: str, answer: Answer) -> None:
        """Add a turn: the main agent's, or under the call that started the subagent."""
        turn: dict[str, Any] = {}
        if answer.think:
            turn["think"] = answer.think
        if answer.text:
            turn["text"] = answer.text
        if answer.calls:
            turn["tools"] = [self._call(call) for call in answer.calls]
        if answer.usage:
            usage = answer.usage
            turn["usage"] = {"input": usage.input, "output": usage.output}
            if usage.cache_read:
                turn["usage"]["cache_read"] = usage.cache_read
        self._conversation(conversation).append(turn)

    def _call(self, call: AnswerCall) -> dict[str, Any]:
        args = call.arguments
        entry: dict[str, Any] = {
            "tool": call.tool,
            "args": args if isinstance(args, str) else dict(args),
        }
        if call.id in self._early:
            entry["expect"] = {"ok": self._early.pop(call.id)}
        self._calls[call.id] = entry
        return entry

    def _conversation(self, name: str) -> list[dict[str, Any]]:
        if name == ROOT or name not in self._calls:
            return self._turns
        turns: list[dict[str, Any]] = self._calls[name].setdefault("turns", [])
        return turns

    def finished(self, call_id: str, ok: bool, output: str) -> None:  # noqa: ARG002
        """Pin whether the call succeeded; its output may hold times and names of this machine."""
        if call_id in self._calls:
            self._calls[call_id]["expect"] = {"ok": ok}
        else:  # a call begins, and may end, before the answer that holds it does
            self._early[call_id] = ok

    def check(self) -> None:
        """Find out before the run whether the cassette can be written.

        Raises:
            UsageError: it cannot.
        """
        parent = self._path.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"the recording cannot be written to {self._path}: {error.strerror}"
            raise UsageError(msg, hint="choose another place with --record") from None
        if self._path.is_dir() or not os.access(parent, os.W_OK):
            msg = f"the recording cannot be written to {self._path}"
            raise UsageError(msg, hint="choose another place with --record")

    def write(self) -> None:
        """Write the cassette, atomically; without a turn there is none.

        Raises:
            OSError: the disk is full, or the folder gone.
        """
        if not self._turns:
            return
        document = {"cassette": 1, "model": self._model, "turns": self._turns}
        text = dump(placeholders.over(document, self._clean))
        if self._path.exists() and not self._path.is_file():
            self._path.write_text(text, "utf-8")  # a device or a pipe is never replaced
            return
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(text, "utf-8")
        draft.replace(self._path)


def dump(document: dict[str, Any]) -> str:
    """The document as YAML for people: keys in their order, long texts as blocks."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and repeats a value rather than naming it."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
