"""YAML text to nodes with marks; every fault that YAML itself can have becomes a problem."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from kaos_runner.recipe.nodes import MAX_PROBLEMS, Key, Node, problem_at
from kaos_runner.recipe.scalars import ScalarError, resolve_plain, resolve_tagged
from kaos_runner.recipe.syntax import explain_syntax

if TYPE_CHECKING:
    from kaos_runner.errors import Problem
    from kaos_runner.recipe.source import Source

MAX_DEPTH = 48
MAX_WEIGHT = 4 << 20
"""Nodes and characters of the whole document once every alias is written out."""

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAP = "tag:yaml.org,2002:map"
_SEQ = "tag:yaml.org,2002:seq"


class _StopError(Exception):
    """The rest of the file makes no sense; the problems so far are all there is to say."""


def compose(source: Source) -> tuple[Node | None, list[Problem]]:
    """The document of a source, with the problems of its YAML: at least one without a document."""
    composer = _Composer(source)
    try:
        return composer.document(), composer.problems
    except _StopError:
        return None, composer.problems
    except yaml.YAMLError as error:
        composer.problems.append(explain_syntax(source, error))
        return None, composer.problems


class _Composer:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.anchors: dict[str, Node | None] = {}
        self.parser = _Parser(source.text)

    def document(self) -> Node | None:
        next_event = self.parser.get_event
        next_event()
        event = next_event()
        if isinstance(event, yaml.StreamEndEvent):
            self._fail_at(
                0, "the file is empty", hint="`kaos-runner init` writes a recipe to start from"
            )
        node = self._node(next_event(), 0)
        next_event()
        event = next_event()
        if not isinstance(event, yaml.StreamEndEvent):
            self._fail_at(
                event.start_mark.index,
                "a second YAML document begins here",
                hint="a recipe is one document: remove the `---`, or use a file for each",
            )
        return node

    def _next(self) -> Any:
        return self.parser.get_event()

    def _node(self, event: Any, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._fail_at(event.start_mark.index, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        anchor = event.anchor
        if anchor:
            self.anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(event, depth)
        else:
            node = self._sequence(event, depth)
        if anchor:
            self.anchors[anchor] = node
        if node.weight > MAX_WEIGHT:
            self._fail_at(
                node.start,
                "its aliases stand for more than 4 MiB",
                hint="an alias copies its whole anchor; write out less",
            )
        return node

    def _alias(self, event: Any) -> Node:
        start = event.start_mark.index
        if event.anchor not in self.anchors:
            self._fail_at(
                start,
                f"the alias `*{event.anchor}` names no anchor",
                hint="quote a text that begins with `*`",
            )
        node = self.anchors[event.anchor]
        if node is None:
            self._fail_at(start, f"the alias `*{event.anchor}` stands inside its own anchor")
        assert node is not None  # _fail_at does not return
        return node

    def _scalar(self, event: Any) -> Node:
        start, end, text = event.start_mark.index, event.end_mark.index, event.value
        node = Node(self.source, start, end, "scalar", text, event.style or None)
        node.weight = 1 + len(text)
        try:
            if event.implicit[0]:
                node.value = resolve_plain(text)
            elif event.tag is not None and event.tag != "!":
                node.value = resolve_tagged(event.tag, text)
        except ScalarError as error:
            node.broken = True
            self.problems.append(problem_at(node, str(error), hint="quote it if it is text"))
        except KeyError:
            self._unknown_tag(node, event.tag)
        return node

    def _sequence(self, event: Any, depth: int) -> Node:
        node = Node(self.source, event.start_mark.index, event.end_mark.index, "sequence", items=[])
        if event.tag not in (None, "!", _SEQ):
            self._unknown_tag(node, event.tag)
        assert node.items is not None
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            item = self._node(event, depth + 1)
            node.items.append(item)
            node.weight += item.weight
        node.end = max(_end(event), node.end)
        return node

    def _mapping(self, event: Any, depth: int) -> Node:
        node = Node(
            self.source,
            event.start_mark.index,
            event.end_mark.index,
            "mapping",
            entries={},
            keys={},
        )
        if event.tag not in (None, "!", _MAP):
            self._unknown_tag(node, event.tag)
        flow = event.flow_style
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(self._next(), depth + 1)
            self._enter(node, key, value, flow=flow)
        node.end = max(_end(event), node.end)
        return node

    def _enter(self, node: Node, key: Node, value: Node, *, flow: bool) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            raise _StopError
        assert node.entries is not None
        assert node.keys is not None
        name = key.value
        if key.kind != "scalar":
            node.broken = True
            self._complex_key(key, flow=flow)
        elif not isinstance(name, str):
            node.broken = True
            written = self.source.text[key.start : key.end] or "null"
            self.problems.append(
                problem_at(
                    key, f"the key `{written[:40]}` is {key.described}, not text", hint="quote it"
                )
            )
        elif name == "<<" and key.style is None:
            node.broken = True
            self.problems.append(
                problem_at(
                    key,
                    "merge keys belong to YAML 1.1; recipes follow YAML 1.2",
                    hint="write the keys out, or use `extends`",
                )
            )
        elif name in node.entries:
            first = self.source.line_column(node.keys[name].start)[0]
            message = f"the key `{name[:40]}` is already there, in line {first}"
            self.problems.append(problem_at(key, message, hint="keep one of the two"))
        else:
            node.entries[name] = value
            node.keys[name] = Key(self.source, key.start, key.end)
            node.weight += 1 + len(name) + value.weight

    def _complex_key(self, key: Node, *, flow: bool) -> None:
        if flow and self.source.text[key.start - 1 : key.start + 1] == "{{":
            # YAML reads `{{ x }}` as a mapping whose key is a mapping; say what it is, once.
            message = "a template that begins a value must be quoted"
            hint = 'YAML reads `{{` as a mapping; write "{{ … }}"'
            self.problems.append(
                problem_at(key, message, hint=hint, offset=key.start - 1, length=2)
            )
        else:
            self.problems.append(problem_at(key, f"a key must be text, not {key.described}"))

    def _unknown_tag(self, node: Node, tag: str) -> None:
        node.broken = True
        short = re.sub(r"^tag:yaml\.org,2002:", "!!", tag)
        message = f"the YAML tag `{short[:40]}` is not allowed in a recipe"
        self.problems.append(problem_at(node, message, hint="remove it"))

    def _fail_at(self, index: int, message: str, hint: str | None = None) -> None:
        spot = Key(self.source, index, index + 1)
        self.problems.append(problem_at(spot, message, hint=hint, length=1))
        raise _StopError


def _end(event: Any) -> int:
    index: int = event.end_mark.index
    return index
