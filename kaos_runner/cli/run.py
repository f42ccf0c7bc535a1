"""`kaos-runner run RECIPE`, the same as `kaos-runner RECIPE`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kaos_runner.cli import options as o

if TYPE_CHECKING:
    from kaos_runner.cli.presentation import Presentation
    from kaos_runner.plan import Plan
    from kaos_runner.runner import Run


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("run")(run)


def run(
    recipe: o.RecipeArgument,
    param: o.ParamOption = None,
    params_file: o.ParamsFileOption = None,
    env_file: o.EnvFileOption = None,
    backend: o.BackendOption = None,
    model: o.ModelOption = None,
    replay: o.ReplayOption = None,
    record: o.RecordOption = None,
    cleanup: o.CleanupOption = None,
    isolation: o.IsolationOption = None,
    run_dir: o.RunDirOption = o.RUN_DIR,
    untrusted: o.UntrustedOption = False,
    allow_path: o.AllowPathOption = None,
    strict: o.StrictOption = False,
    output: o.OutputOption = o.Output.TEXT,
    junit: Annotated[
        Path | None,
        typer.Option(envvar="KAOS_RUNNER_JUNIT", metavar="FILE", help="Write a JUnit report too."),
    ] = None,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = 0,
) -> int:
    """Run a recipe (the same as `kaos-runner RECIPE`).

    The exit code tells the outcome; see `kaos-runner --help`.
    """
    from kaos_runner.agent.environment import claim
    from kaos_runner.cli.presentation import Presentation
    from kaos_runner.errors import KaosRunnerError
    from kaos_runner.plan import Options, make_plan
    from kaos_runner.record import new_run_id

    environ = dict(os.environ)
    claim(os.environ)
    options = Options(
        recipe=recipe,
        params=tuple(param or ()),
        params_file=params_file,
        env_file=env_file,
        backend=backend,
        model=model,
        replay=replay,
        record=record,
        cleanup=cleanup,
        isolation=isolation,
        untrusted=untrusted,
        strict=strict,
        allow_path=tuple(allow_path or ()),
    )
    shown = Presentation(output=output, junit=junit, verbosity=-1 if quiet else verbose)
    run_id = new_run_id()
    try:
        plan = make_plan(options, environ, run_id)
        plan.require()
    except KaosRunnerError as error:
        return shown.refuse(error, run_id, environ)
    return perform(plan, run_dir, shown)


def perform(plan: Plan, folder: Path, shown: Presentation) -> int:
    """Run a plan, with its record below `folder`."""
    from kaos_runner.cli.approve import approver
    from kaos_runner.cli.options import Output
    from kaos_runner.cli.presentation import print_result
    from kaos_runner.events import Bus
    from kaos_runner.ledger import Ledger, state_dir
    from kaos_runner.record import RunDirectory
    from kaos_runner.runner import Run

    directory = RunDirectory.create(folder, plan.run_id)
    directory.write("recipe.yaml", plan.mask(plan.loaded.text))
    directory.write("rendered.yaml", plan.rendered.to_yaml(plan.mask))
    bus = Bus(plan.run_id, plan.mask)
    result = shown.attach(bus, directory, plan.environ)
    ledger = Ledger(state_dir(plan.environ))
    try:
        ask = approver(plan.environ, shown.paused)
        return asyncio.run(_supervised(Run(plan, bus, directory, ledger, ask)))
    finally:
        bus.close()
        shown.tell_losses()
        if shown.output is Output.JSON:
            print_result(result)


async def _supervised(run: Run) -> int:
    with run.stop.on_signals():
        return await run.perform()
