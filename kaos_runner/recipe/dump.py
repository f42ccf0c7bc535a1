"""Plain data as YAML that reads back the same under YAML 1.2."""

from __future__ import annotations

from typing import Any

import yaml

from kaos_runner.recipe.scalars import ScalarError, resolve_plain


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = None
    if "\n" in value:
        style = "|"
    else:
        try:
            if resolve_plain(value) != value:
                style = "'"
        except ScalarError:
            style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(document: Any) -> str:
    """A YAML document in block style, keys in their own order."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
