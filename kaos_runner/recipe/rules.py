"""What a schema cannot say: names that must fit one another, and paths that must stay inside."""

from __future__ import annotations

import posixpath
import time
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.nodes import problem_at
from kaos_runner.recipe.outputs import schema_problems
from kaos_runner.recipe.suggest import did_you_mean
from kaos_runner.recipe.support import refusals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kaos_runner.errors import Problem
    from kaos_runner.recipe import nodes
    from kaos_runner.recipe.check import Checked
    from kaos_runner.recipe.leaves import Leaf
    from kaos_runner.recipe.nodes import Node
    from kaos_runner.recipe.params import Declared
    from kaos_runner.recipe.texts import Text, Texts
    from kaos_runner.recipe.trust import Fence


_RULES = {
    "pattern": ("string",),
    "minimum": ("integer", "number"),
    "maximum": ("integer", "number"),
}
PATTERN_SECONDS = 5.0
"""How long one recipe's patterns may be tried on its own values."""


class Rules:
    """The rules over one document."""

    def __init__(
        self,
        document: Node,
        checked: Checked,
        texts: Texts,
        params: Mapping[str, Declared],
        fence: Fence,
        schema: dict[str, Any],
    ) -> None:
        self.document = document
        self.checked = checked
        self.texts = texts
        self.params = params
        self.fence = fence
        self.schema = schema
        prompts = document.child("prompts")
        self.prompts: list[Node] = list(prompts.items or ()) if prompts else []
        self.ids = self._ids()

    def problems(self) -> Iterator[Problem]:
        """Every fault but what `unused` finds."""
        yield from self._duplicate_ids()
        yield from self._declarations()
        yield from self._retries()
        yield from self._output_schemas()
        for text in self.texts.all():
            yield from self._references(text)
            yield from self._shell(text)
        for leaf in self.checked.paths:
            yield from path_problems(leaf, self.fence)
        yield from self._refused()

    def _refused(self) -> Iterator[Problem]:
        name = self.document.text("backend") or self.document.text("backend", "type")
        backend = self.schema["x-backends"].get(name)
        for node, path, reason in refusals(self.document, backend) if backend else ():
            message = f"the backend `{name}` cannot do this: {reason}"
            hint = "`validate --backend all` shows which can"
            yield problem_at(node, message, hint=hint, path=path)

    def _ids(self) -> dict[str, int]:
        ids: dict[str, int] = {}
        for index, prompt in enumerate(self.prompts):
            name = prompt.text("id")
            if name is not None:
                ids.setdefault(name, index)
        return ids

    def _duplicate_ids(self) -> Iterator[Problem]:
        for index, prompt in enumerate(self.prompts):
            name = prompt.text("id")
            if name is not None and self.ids[name] != index:
                node = prompt.child("id")
                assert node is not None
                message = f"the id `{name}` is taken by prompts[{self.ids[name]}]"
                yield problem_at(node, message, path=("prompts", index, "id"))

    def _declarations(self) -> Iterator[Problem]:
        faulty = {p.path for p in self.checked.problems}
        self.deadline = time.process_time() + PATTERN_SECONDS
        for name, param in self.params.items():
            if not any(path.startswith(f"params.{name}") for path in faulty):
                yield from self._declaration(("params", name), param)

    def _declaration(self, base: nodes.Path, param: Declared) -> Iterator[Problem]:
        fault = self._late(param) or param.pattern_fault()
        if fault:
            yield self._at((*base, "pattern"), fault)
            return
        for rule, kinds in _RULES.items():
            if getattr(param, rule) is not None and param.type not in kinds:
                message = f"`{rule}` means nothing for the type {param.type}"
                yield self._at((*base, rule), message, "remove it, or change the type")
                return
        if None not in (param.minimum, param.maximum) and param.minimum > param.maximum:  # type: ignore[operator]
            yield self._at((*base, "minimum"), "the minimum is above the maximum")
            return
        for index, choice in enumerate(param.enum or ()):
            wrong = self._late(param) or param.fault(choice)
            if wrong:
                yield self._at((*base, "enum", index), f"the choice does not fit: {wrong}")
        if param.has_default:
            wrong = self._late(param) or param.fault(param.default)
            if wrong:
                yield self._at((*base, "default"), f"the default does not fit: {wrong}")
            elif param.required:
                message = "the default is never used: a value is required"
                yield self._at((*base, "default"), message, "remove one of the two", warning=True)

    def _late(self, param: Declared) -> str | None:
        late = param.pattern is not None and time.process_time() > self.deadline
        return "trying the patterns takes too long" if late else None

    def _at(
        self, path: nodes.Path, message: str, hint: str | None = None, *, warning: bool = False
    ) -> Problem:
        spot = self.document.nearest(path)
        return problem_at(spot, message, hint=hint, path=path, warning=warning)

    def _retries(self) -> Iterator[Problem]:
        for index, prompt in enumerate(self.prompts):
            retry = prompt.child("retry")
            checks = prompt.child("checks")
            wanted = isinstance(retry.value, int) and 0 < retry.value <= 20 if retry else False
            if not wanted or prompt.child("output"):
                continue
            if checks is None or checks.items == []:
                message = "`retry` does nothing without `checks` or `output`"
                path: nodes.Path = ("prompts", index, "retry")
                yield self._at(path, message, "add a check, or remove it", warning=True)

    def _output_schemas(self) -> Iterator[Problem]:
        templates = {leaf.path[:4] for leaf in self.checked.leaves if leaf.role == "literal"}
        for index in range(len(self.prompts)):
            path: nodes.Path = ("prompts", index, "output", "schema")
            node = self.document.find(path)
            if node is None or node.entries is None or node.broken or path in templates:
                continue
            yield from schema_problems(node, path)

    def unused(self) -> Iterator[Problem]:
        """A warning for each parameter that nothing uses; only true when nothing else is wrong."""
        used = {name for text in self.texts.all() for name in text.template.params}
        params = self.document.child("params")
        for name in self.params:
            if name not in used and params is not None and params.keys:
                message = f"the parameter `{name}` is never used"
                hint = "use it as `{{ params." + name + " }}`, or remove it"
                yield problem_at(
                    params.keys[name], message, hint=hint, path=("params", name), warning=True
                )

    def _references(self, text: Text) -> Iterator[Problem]:
        references = text.template.prompts
        if not references:
            return
        limit = self._visible(text.path)
        if limit is None:
            yield text.problem(
                "`prompts` is not known here yet",
                hint="later prompts, their checks, and the recipe's checks and artifacts know it",
                word="prompts",
                line=references[0].line,
            )
            return
        for reference in references:
            yield from self._reference(text, reference, limit)

    def _reference(self, text: Text, reference: Any, limit: int) -> Iterator[Problem]:
        which, count = reference.which, len(self.prompts)
        if isinstance(which, int):
            index, word = which, f"prompts[{which}]"
            if not 0 <= which < count:
                hint = f"there are {count}, counted from 0" if count > 1 else None
                yield text.problem(
                    f"there is no prompt {which}", hint=hint, word=word, line=reference.line
                )
                return
        else:
            word = str(which)
            if which not in self.ids:
                hint = did_you_mean(
                    word, self.ids, otherwise=None if self.ids else "no prompt has an `id`"
                )
                yield text.problem(
                    f"unknown prompt `{which}`", hint=hint, word=word, line=reference.line
                )
                return
            index = self.ids[which]
        if index >= limit:
            what = "itself" if index == limit else "a later prompt"
            yield text.problem(
                f"the template refers to {what}: `{which}`"
                if isinstance(which, str)
                else f"the template refers to {what}: prompts[{which}]",
                hint="only earlier prompts are known",
                word=word,
                line=reference.line,
            )
        elif (
            reference.part == "output" and self.document.find(("prompts", index, "output")) is None
        ):
            yield text.problem(
                f"the prompt `{which}` has no `output`"
                if isinstance(which, str)
                else f"prompts[{which}] has no `output`",
                hint="declare `output: {schema: …}` there, or use `final_message`",
                word=word,
                line=reference.line,
            )

    def _visible(self, path: nodes.Path) -> int | None:
        """How many prompts are known where the path stands; None where none can be."""
        if path[0] in ("checks", "artifacts"):
            return len(self.prompts)
        if path[0] == "prompts" and isinstance(path[1], int):
            inside = path[2:]
            if not inside or inside[0] in ("text", "checks", "file"):
                return path[1]
        return None

    def _shell(self, text: Text) -> Iterator[Problem]:
        if text.path not in self.checked.shells:
            return
        for name, line in text.template.unquoted:
            param = self.params.get(name.removeprefix("params."))
            if param is not None and param.type not in ("string", "list"):
                continue
            what = "a parameter" if param else "the agent's text"
            yield text.problem(
                f"{what} stands in shell text unquoted",
                hint="write `{{ " + (name if param else "…") + " | sh }}`",
                word=name,
                line=line,
                warning=True,
            )


def path_problems(leaf: Leaf, fence: Fence) -> Iterator[Problem]:
    """What is wrong with one literal path."""
    value = leaf.node.value
    assert isinstance(value, str)
    if leaf.role == "work":
        fault = leaves_workdir(value)
        if fault:
            yield problem_at(
                leaf.node, fault, hint="name it relative to the workdir", path=leaf.path
            )
        return
    path = leaf.node.source.path.parent / value
    if leaf.path == ("extends",):
        return  # read already
    if "\0" in value or not fence.holds(path):
        message = f"`{value[:60]}` lies outside the recipe's work tree"
        hint = "move it inside, or allow its folder with --allow-path"
        yield problem_at(leaf.node, message, hint=hint, path=leaf.path)
    elif not leaf.schema.get("x-text") and not _exists(path):
        yield problem_at(leaf.node, f"`{value[:60]}` does not exist", path=leaf.path)


def leaves_workdir(value: str) -> str | None:
    """What is wrong with a path that must stay in the workdir."""
    if value.startswith(("/", "~")):
        return f"`{value[:60]}` is not relative to the workdir"
    if posixpath.normpath(value).split("/")[0] == "..":
        return f"`{value[:60]}` leaves the workdir"
    if any(ord(char) < 32 for char in value):
        return "the path holds a control character"
    return None


def _exists(path: Any) -> bool:
    try:
        return bool(path.exists())
    except (OSError, ValueError):
        return False
