"""`kaos-runner explain RECIPE`: the plan, without a network and without starting anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kaos_runner.cli import options as o

if TYPE_CHECKING:
    import typer

    from kaos_runner.plan import Plan


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("explain")(explain)


def explain(
    recipe: o.RecipeArgument,
    param: o.ParamOption = None,
    params_file: o.ParamsFileOption = None,
    env_file: o.EnvFileOption = None,
    backend: o.BackendOption = None,
    model: o.ModelOption = None,
    replay: o.ReplayOption = None,
    cleanup: o.CleanupOption = None,
    isolation: o.IsolationOption = None,
    untrusted: o.UntrustedOption = False,
    allow_path: o.AllowPathOption = None,
    strict: o.StrictOption = False,
    output: o.OutputOption = o.Output.TEXT,
) -> int:
    """Show the plan: sandbox, values and their origin, limits, powers, cleanup."""
    import json

    from kaos_runner.cli.options import Output
    from kaos_runner.plan import Options, make_plan

    options = Options(
        recipe=recipe,
        params=tuple(param or ()),
        params_file=params_file,
        env_file=env_file,
        backend=backend,
        model=model,
        replay=replay,
        cleanup=cleanup,
        isolation=isolation,
        untrusted=untrusted,
        strict=strict,
        allow_path=tuple(allow_path or ()),
    )
    plan = make_plan(options, os.environ, "explain")
    told = describe(plan)
    if output is Output.TEXT:
        print("\n".join(_lines(told)))
    else:
        print(json.dumps(told, indent=2, ensure_ascii=False))
    return 0


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as plain data; every string is masked."""
    from kaos_runner.events import masked
    from kaos_runner.recipe.trust import powers

    recipe, model = plan.recipe, plan.model
    plain: dict[str, Any] = masked(
        {
            "recipe": {
                "name": recipe.name,
                "file": str(plan.options.recipe),
                "digest": plan.loaded.digest,
                "description": recipe.description,
            },
            "sandbox": {
                "backend": plan.backend.name,
                "action": f"connect to {plan.sandbox_id}" if plan.sandbox_id else "create",
                **recipe.backend.model_dump(exclude={"type"}, exclude_none=True),
                **({"isolation": _isolation(plan)} if plan.options.isolation else {}),
                "image": recipe.image,
                "workdir": recipe.workdir or "a fresh directory",
                "network": recipe.network.model_dump(exclude_defaults=True) or "allowed",
                "env": dict(recipe.env),
                "secrets": list(recipe.secrets),
            },
            "dropped": [str(dropped) for dropped in plan.loaded.dropped],
            "params": {v.name: {"value": v.value, "from": v.origin} for v in plan.rendered.params},
            "values": {v.name: {"value": v.value, "from": v.origin} for v in plan.values},
            "model": {
                "provider": model.provider,
                "name": model.name,
                "plays": str(model.replay) if model.replay else None,
                "key": f"${model.api_key_env}" if not model.replay else "none needed",
            },
            "limits": {
                k: f"{v:g} s" if k == "wall" else v
                for k, v in recipe.limits.model_dump().items()
                if v is not None
            },
            "steps": _steps(plan),
            "powers": [str(power) for power in powers(plan.rendered)],
            "cleanup": _cleanup(plan),
            "warnings": [str(warning) for warning in plan.warnings],
            "missing": [str(problem) for problem in plan.missing],
        },
        plan.mask,
    )
    return plain


def _isolation(plan: Plan) -> str:
    chosen = plan.options.isolation or "auto"
    if chosen == "none":
        return "none: NOTHING IS ISOLATED, commands run as you on this machine"
    return chosen


def _steps(plan: Plan) -> list[str]:
    recipe = plan.recipe
    steps = [f"files: {f.model_dump(by_alias=True)}" for f in recipe.files]
    steps += [f"setup: {command}" for command in recipe.setup]
    for index, prompt in enumerate(recipe.prompts):
        text = str(prompt.text).strip().partition("\n")[0]
        steps.append(f"prompt {prompt.id or index}: {text}")
        if prompt.checks or prompt.output:
            demands = [_demand(check) for check in prompt.checks]
            demands += ["output schema"] if prompt.output else []
            times = "retry" if prompt.retry == 1 else "retries"
            again = f", up to {prompt.retry} {times}" if prompt.retry else ""
            steps.append(f"  then: {'; '.join(demands)}{again}")
    steps += [f"check: {_demand(check)}" for check in recipe.checks]
    steps += [
        f"artifact: {getattr(a, 'path', None) or 'patch of ' + getattr(a, 'patch', '')}"
        + (f" -> {a.to}" if a.to else "")
        + (" (optional)" if a.optional else "")
        for a in recipe.artifacts
    ]
    return steps


def _demand(check: Any) -> str:
    kind = next(kind for kind in ("run", "file", "changed") if hasattr(check, kind))
    return f"{kind} {getattr(check, kind)}"


def _cleanup(plan: Plan) -> str:
    if plan.sandbox_id:
        return "the sandbox is left as it is: the run does not create it"
    told = plan.backend.features.get("cleanup")
    if plan.cleanup == "never" and told is not None:
        return f"the sandbox is kept: {told.reason}"
    return {
        "always": "the sandbox is deleted",
        "on_success": "the sandbox is deleted after success, kept after a failure",
        "never": "the sandbox is kept, and may go on costing money until it is deleted",
    }[plan.cleanup]


def _lines(told: dict[str, Any]) -> list[str]:
    """The description for a person: a heading each, then what it holds."""
    lines: list[str] = []
    for heading, content in told.items():
        if content in ({}, [], None, ""):
            continue
        if isinstance(content, str):
            lines.append(f"{heading}: {content}")
            continue
        lines.append(f"{heading}:")
        rows = content.items() if isinstance(content, dict) else ((None, c) for c in content)
        for name, value in rows:
            if value in ({}, [], None, ""):
                continue
            if isinstance(value, dict) and set(value) == {"value", "from"}:
                value = f"{value['value']}  (from {value['from']})"
            lines.append(f"  {name}: {value}" if name else f"  {value}")
    from kaos_runner.sinks.safe import visible

    return [visible(line) for line in lines]
