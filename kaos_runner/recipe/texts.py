"""The templates of a document: every leaf that holds one, and every text that lies in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.recipe.leaves import is_template
from kaos_runner.recipe.nodes import MAX_PROBLEMS, Key, Node, problem_at
from kaos_runner.recipe.source import Source, UnreadableError, read_source
from kaos_runner.recipe.template import Template, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kaos_runner.errors import Problem
    from kaos_runner.recipe import nodes
    from kaos_runner.recipe.check import Checked
    from kaos_runner.recipe.leaves import Leaf
    from kaos_runner.recipe.params import Declared
    from kaos_runner.recipe.trust import Fence


@dataclass(slots=True)
class Text:
    """One templated text with where it is written."""

    path: nodes.Path
    node: Node
    template: Template
    typed: bool
    """It must be one whole expression, and keeps its type."""
    external: bool = False
    """It lies in a file of its own."""

    def problem(
        self,
        message: str,
        *,
        hint: str | None = None,
        line: int = 1,
        word: str | None = None,
        warning: bool = False,
    ) -> Problem:
        """A problem in the template, at a word in one of its lines."""
        source = self.node.source
        offset, length = _locate(self, line, word)
        spot = Key(source, self.node.start, self.node.end)
        return problem_at(
            spot, message, hint=hint, path=self.path, warning=warning, offset=offset, length=length
        )


def _locate(text: Text, line: int, word: str | None) -> tuple[int, int]:
    """Where a word of a template's line stands in the file, and how long it is."""
    source, start, end = text.node.source, text.node.start, text.node.end
    written = source.text
    begin = start
    if text.external or text.node.style in ("|", ">"):
        skip = line - 1 if text.external else line
        for _ in range(skip):
            found = written.find("\n", begin, end)
            if found < 0:
                break
            begin = found + 1
    for target in (word, "{{", "{%"):
        if target:
            found = written.find(target, begin, end)
            if found >= 0:
                return found, len(target)
    return begin, 1


class Texts:
    """Parses every template of a document once."""

    def __init__(
        self, document: Node, checked: Checked, params: Mapping[str, Declared], fence: Fence
    ) -> None:
        self.document = document
        self.params = params
        self.fence = fence
        self.problems: list[Problem] = []
        self.sources: list[Source] = []
        self.by_path: dict[nodes.Path, Text] = {}
        self.files: dict[nodes.Path, Text] = {}
        """Texts of `{file: …}`, by the path of that mapping."""
        for leaf in checked.leaves:
            self._leaf(leaf)
        for leaf in checked.paths:
            if leaf.schema.get("x-text"):
                self._file(leaf)

    def all(self) -> list[Text]:
        """Every text."""
        return [*self.by_path.values(), *self.files.values()]

    def _leaf(self, leaf: Leaf) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            return
        assert isinstance(leaf.node.value, str)
        if leaf.role == "literal":
            hint = (
                "use `--backend` to run elsewhere"
                if leaf.path[0] == "backend"
                else "write the value itself"
            )
            message = "a template has no place here: this value is literal"
            self.problems.append(problem_at(leaf.node, message, hint=hint, path=leaf.path))
            return
        template = parse(leaf.node.value, self.params)
        text = Text(leaf.path, leaf.node, template, leaf.role == "typed")
        self.by_path[leaf.path] = text
        self._flaws(text)
        if text.typed and not template.flaws and template.expression is None:
            self.problems.append(
                text.problem(
                    "the value must be one whole expression",
                    hint='write "{{ … }}" and nothing around it',
                )
            )

    def _file(self, leaf: Leaf) -> None:
        spot = leaf.node
        assert isinstance(spot.value, str)
        path = spot.source.path.parent / spot.value
        if not self.fence.holds(path):
            return  # the rules say so
        label = str(Path(spot.source.label).parent / spot.value)
        try:
            source = read_source(path, label, quotable=False)
        except UnreadableError as error:
            self.problems.append(
                problem_at(spot, f"`{spot.value}` {error.message}", hint=error.hint, path=leaf.path)
            )
            return
        self.sources.append(source)
        node = Node(source, 0, len(source.text), "scalar", source.text)
        template = (
            parse(source.text, self.params) if is_template(source.text) else Template(source.text)
        )
        text = Text(leaf.path, node, template, typed=False, external=True)
        self.files[leaf.path[:-1]] = text
        self._flaws(text)

    def _flaws(self, text: Text) -> None:
        for flaw in text.template.flaws[:MAX_PROBLEMS]:
            # What lies in a file that is no recipe is not quoted, not even a name in it.
            message = flaw.message if not text.external else flaw.message.split("`")[0].rstrip(": ")
            self.problems.append(
                text.problem(
                    message,
                    hint=None if text.external else flaw.hint,
                    line=flaw.line,
                    word=flaw.word,
                )
            )
