"""Options that several verbs share; each also reads `KAOS_RUNNER_<OPTION>`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kaos_runner import __version__
from kaos_runner.backends.base import Isolation
from kaos_runner.recipe.names import Cleanup


class Output(StrEnum):
    """How a command speaks."""

    TEXT = "text"
    JSON = "json"
    STREAM_JSON = "stream-json"
    GITHUB = "github"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kaos-runner {__version__}")
        raise typer.Exit


def version_callback(
    _version_: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Run AI agents in sandboxes, each from one YAML file.

    `kaos-runner RECIPE` runs a recipe: the same as `kaos-runner run RECIPE`.

    \b
    Exit codes:
      0   everything that the recipe demands holds
      1   a check, an output schema or a required artifact failed
      2   wrong usage or an invalid recipe
      3   something needed is missing: a key, a secret, a package, a server
      4   the sandbox failed
      5   the agent failed
      6   a limit of the recipe was reached
      7   all went well, but the sandbox could not be cleaned up
      70  a bug of ours
      124 wall limit    130 Ctrl-C    143 SIGTERM; with cleanup done
    """


def _env(name: str) -> str:
    return f"KAOS_RUNNER_{name}"


RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe's YAML file.")]
ParamOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        help="Set a parameter; NAME=@FILE reads it from a file. May be repeated.",
    ),
]
ParamsFileOption = Annotated[
    Path | None,
    typer.Option(
        "--params-file",
        envvar=_env("PARAMS_FILE"),
        metavar="FILE",
        help="Parameters as YAML or JSON.",
    ),
]
EnvFileOption = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        envvar=_env("ENV_FILE"),
        metavar="FILE",
        help="Host variables as NAME=VALUE lines; what is already set wins.",
    ),
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        envvar=_env("BACKEND"),
        metavar="NAME",
        help="Run on another backend, such as `local` to rehearse.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", envvar=_env("MODEL"), metavar="NAME", help="Use another model."),
]
ReplayOption = Annotated[
    Path | None,
    typer.Option(
        "--replay", envvar=_env("REPLAY"), metavar="FILE", help="Play the model from a cassette."
    ),
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        "--record", envvar=_env("RECORD"), metavar="FILE", help="Record the model into a cassette."
    ),
]
CleanupOption = Annotated[
    Cleanup | None,
    typer.Option("--cleanup", envvar=_env("CLEANUP"), help="Instead of the recipe's policy."),
]
IsolationOption = Annotated[
    Isolation | None,
    typer.Option(
        "--isolation",
        envvar=_env("ISOLATION"),
        help="local only: `none` runs commands as you, with nothing between.",
    ),
]
RunDirOption = Annotated[
    Path,
    typer.Option(
        "--run-dir", envvar=_env("RUN_DIR"), metavar="DIR", help="The folder that holds `runs/`."
    ),
]
RUN_DIR = Path(".kaos-runner")
UntrustedOption = Annotated[
    bool,
    typer.Option(
        "--untrusted",
        envvar=_env("UNTRUSTED"),
        help="Refuse secrets, named keys, other servers and whatever acts on this machine.",
    ),
]
AllowPathOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow-path",
        envvar=_env("ALLOW_PATH"),
        metavar="DIR",
        help="Let the recipe read below DIR too. May be repeated.",
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", envvar=_env("STRICT"), help="Warnings are errors.")
]
OutputOption = Annotated[
    Output, typer.Option("--output", envvar=_env("OUTPUT"), help="How to speak.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", envvar=_env("QUIET"), help="Say the outcome only.")
]
VerboseOption = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Say more; -vv more still.")
]
