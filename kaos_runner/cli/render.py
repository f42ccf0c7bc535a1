"""`kaos-runner render RECIPE`: the rendered recipe as YAML."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kaos_runner.cli import options as o

if TYPE_CHECKING:
    import typer


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("render")(render)


def render(
    recipe: o.RecipeArgument,
    param: o.ParamOption = None,
    params_file: o.ParamsFileOption = None,
    env_file: o.EnvFileOption = None,
    backend: o.BackendOption = None,
    untrusted: o.UntrustedOption = False,
    allow_path: o.AllowPathOption = None,
    strict: o.StrictOption = False,
) -> int:
    """Print the rendered recipe as YAML; what only the run can know stays a template."""
    from kaos_runner.plan import Options, load_recipe, make_mask, render, with_env_file

    options = Options(
        recipe=recipe,
        params=tuple(param or ()),
        params_file=params_file,
        backend=backend,
        untrusted=untrusted,
        allow_path=tuple(allow_path or ()),
    )
    environ = with_env_file(os.environ, env_file)
    loaded = load_recipe(options)
    loaded.raise_for_problems(strict=strict)
    rendered = render(options, loaded, environ, "render")
    print(rendered.to_yaml(make_mask(rendered.recipe, environ)), end="")
    return 0
