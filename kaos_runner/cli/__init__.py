"""The command line: one file per verb.

Only here do words meet the terminal, and only here is there an exit code. Each verb's module has
`register(app)`; only the module of the verb in use is imported, since start-up time is felt.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.errors import ExitCode, KaosRunnerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

VERBS = (
    "run",
    "validate",
    "explain",
    "render",
    "doctor",
    "init",
    "schema",
    "runs",
    "show",
    "report",
)


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command line, and give its exit code; every error becomes words here."""
    import click
    import typer.main

    from kaos_runner.cli.problems import tell, tell_bug

    try:
        arguments = _with_verb(arguments)
        command = typer.main.get_command(_application(arguments))
        code = command.main(list(arguments), prog_name="kaos-runner", standalone_mode=False)
    except KaosRunnerError as error:
        return tell(error)
    except click.ClickException as error:
        error.show()
        return int(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        return int(ExitCode.SIGINT)
    except BrokenPipeError:
        return int(ExitCode.OK)
    except Exception as error:
        return tell_bug(error)
    return int(code or 0)


def _with_verb(arguments: Sequence[str]) -> Sequence[str]:
    """`RECIPE …` means `run RECIPE …`; a verb's name wins, and `./validate` is a file."""
    if not arguments or arguments[0] in {*VERBS, "--help", "-h", "--version"}:
        return arguments
    first = arguments[0]
    close = difflib.get_close_matches(first, VERBS, n=1)
    if close and not Path(first).exists():
        msg = f"{first!r} is neither a command nor a file"
        raise UsageError(msg, hint=f"did you mean `kaos-runner {close[0]}`?")
    return ["run", *arguments]


def _application(arguments: Sequence[str]) -> typer.Typer:
    import typer

    from kaos_runner.cli.options import version_callback

    app = typer.Typer(
        name="kaos-runner",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(version_callback)
    verb = arguments[0] if arguments and arguments[0] in VERBS else None
    for name in VERBS if verb is None else [verb]:
        importlib.import_module(f"kaos_runner.cli.{name}").register(app)
    return app
