"""The plan of a run: every value resolved, with its origin, before anything is started.

Precedence, highest first: flag (or `KAOS_RUNNER_<OPTION>`), recipe, provider variable, default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kaos_runner.agent import cassette
from kaos_runner.errors import PrerequisiteError, Problem, RecipeError, UsageError
from kaos_runner.recipe.load import LoadOptions, load
from kaos_runner.recipe.model import Model
from kaos_runner.recipe.params import gather
from kaos_runner.recipe.registry import backend_classes
from kaos_runner.recipe.render import RunContext
from kaos_runner.recipe.trust import Fence
from kaos_runner.secrets import MINIMUM, Mask, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kaos_runner.backends.base import Backend, Isolation
    from kaos_runner.recipe.load import Loaded
    from kaos_runner.recipe.model import Cleanup, Recipe
    from kaos_runner.recipe.render import Rendered


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says about a run."""

    recipe: Path
    params: Sequence[str] = ()
    params_file: Path | None = None
    env_file: Path | None = None
    backend: str | None = None
    model: str | None = None
    replay: Path | None = None
    record: Path | None = None
    cleanup: Cleanup | None = None
    isolation: Isolation | None = None
    untrusted: bool = False
    strict: bool = False
    allow_path: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Value:
    """One resolved value, and where it came from."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """Which model answers, how it is reached, and with which key."""

    provider: str
    name: str
    base_url: str | None
    api_key: str | None = field(repr=False)
    api_key_env: str
    max_context: int | None
    replay: Path | None
    """The cassette that plays the model."""
    shipped: bool = False
    """The cassette comes from the recipe's own work tree, and the recipe is trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a run needs, resolved and checked; nothing has been started."""

    run_id: str
    options: Options
    loaded: Loaded
    rendered: Rendered
    recipe: Recipe
    """Typed, with the backend's defaults and the flags applied."""
    backend: Backend
    sandbox_id: str | None
    """Connect to it instead of creating one."""
    model: ModelPlan
    cleanup: Cleanup
    secrets: Mapping[str, str] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    mask: Mask = field(repr=False)
    values: Sequence[Value]
    warnings: Sequence[Problem]
    missing: Sequence[Problem]
    """Keys, secrets, packages and devices that the run needs and this machine lacks."""

    def placed(self, problem: Problem) -> Problem:
        """The problem with the place that its path has in the recipe."""
        return placed(self.rendered, problem)

    def require(self) -> None:
        """Refuse to go on with something missing.

        Raises:
            PrerequisiteError: names everything that is missing.
        """
        if self.missing:
            first = self.missing[0]
            raise PrerequisiteError(first.message, hint=first.hint, problems=self.missing)


def make_plan(options: Options, environ: Mapping[str, str], run_id: str) -> Plan:
    """Load, validate and render the recipe, and resolve every value.

    Raises:
        RecipeError: the recipe is invalid, or the backend cannot do what it asks.
    """
    environ = with_env_file(environ, options.env_file)
    loaded = load_recipe(options)
    loaded.raise_for_problems(strict=options.strict)
    rendered = render(options, loaded, environ, run_id)
    return _Resolver(options, environ, run_id, loaded, rendered).plan()


def load_recipe(options: Options) -> Loaded:
    """The recipe with its problems, as the options ask for it."""
    return load(
        options.recipe,
        options=LoadOptions(
            backend=options.backend,
            allow_path=tuple(options.allow_path),
            untrusted=options.untrusted,
            strict=options.strict,
        ),
    )


def render(options: Options, loaded: Loaded, environ: Mapping[str, str], run_id: str) -> Rendered:
    """The recipe rendered with the parameters of the options."""
    params = gather(loaded.params, options.params, options.params_file, environ)
    return loaded.render(params=params, environ=environ, run=RunContext.now(run_id))


def with_env_file(environ: Mapping[str, str], env_file: Path | None) -> dict[str, str]:
    """The host's variables, and below them those of an env file.

    Raises:
        UsageError: the file cannot be read.
    """
    if env_file is None:
        return dict(environ)
    from dotenv import dotenv_values

    try:
        with env_file.open(encoding="utf-8") as lines:
            found = dotenv_values(stream=lines, interpolate=False)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        msg = f"cannot read --env-file {env_file}: {reason}"
        raise UsageError(msg) from error
    return {**{k: v for k, v in found.items() if v is not None}, **environ}


def placed(rendered: Rendered, problem: Problem) -> Problem:
    """A problem that names a path such as `files[0].from`, with its file, line and column."""
    keys = tuple(
        int(index) if index else key
        for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", problem.path)
    )
    file, line, column = rendered.place(keys)
    return replace(problem, file=file, line=line, column=column)


class _Resolver:
    """Resolves one recipe's values, noting where each came from."""

    def __init__(
        self,
        options: Options,
        environ: Mapping[str, str],
        run_id: str,
        loaded: Loaded,
        rendered: Rendered,
    ) -> None:
        self.options = options
        self.environ = environ
        self.run_id = run_id
        self.loaded = loaded
        self.rendered = rendered
        self.values: list[Value] = []
        self.warnings: list[Problem] = [p for p in loaded.problems if p.severity == "warning"]

    def plan(self) -> Plan:
        """Resolve everything, and gather all that is missing."""
        written = self.rendered.recipe
        backend: Backend = backend_classes()[written.backend.type]()
        origin = "--backend" if self.options.backend else "recipe"
        self._note("backend", written.backend.type, origin)
        sandbox_id = backend.sandbox_id(written, self.environ)
        recipe = self._with_defaults(written, backend)
        cleanup = self._cleanup(recipe, backend, sandbox_id)
        model = self._model(recipe)
        secrets, missing = resolve(recipe.secrets, self.environ)
        missing = [*self._of_machine(backend, recipe), *self._of_model(model), *missing]
        return Plan(
            run_id=self.run_id,
            options=self.options,
            loaded=self.loaded,
            rendered=self.rendered,
            recipe=recipe,
            backend=backend,
            sandbox_id=sandbox_id,
            model=model,
            cleanup=cleanup,
            secrets=secrets,
            environ=self.environ,
            mask=make_mask(recipe, self.environ),
            values=tuple(self.values),
            warnings=tuple(self.warnings),
            missing=tuple(missing),
        )

    def _note(self, name: str, value: Any, origin: str) -> Any:
        self.values.append(Value(name, str(value), origin))
        return value

    def _first(self, name: str, *candidates: tuple[Any, str]) -> Any:
        """The first candidate that is set; its origin is noted."""
        for value, origin in candidates:
            if value is not None:
                return self._note(name, value, origin)
        return None

    def _with_defaults(self, recipe: Recipe, backend: Backend) -> Recipe:
        defaults = backend.defaults
        image = self._first(
            "image",
            (recipe.image, "recipe"),
            (self.environ.get(defaults.image_env or "") or None, f"${defaults.image_env}"),
            (defaults.image, "default"),
        )
        # A directory of the provider's machines means nothing where the backend makes one itself.
        variable = self.environ.get("KIMI_WORK_DIR") or None if defaults.workdir else None
        workdir = self._first(
            "workdir",
            (recipe.workdir, "recipe"),
            (variable, "$KIMI_WORK_DIR"),
            (defaults.workdir, "default"),
        )
        return recipe.model_copy(update={"image": image, "workdir": workdir})

    def _cleanup(self, recipe: Recipe, backend: Backend, sandbox_id: str | None) -> Cleanup:
        defaults = backend.defaults
        variable, policy = defaults.cleanup_env or ("", None)
        asked = policy if self.environ.get(variable) == "1" else None
        chosen: Cleanup = self._first(
            "cleanup",
            (self.options.cleanup, "--cleanup"),
            (recipe.cleanup, "recipe"),
            (asked, f"${variable}"),
            (defaults.cleanup, "default"),
        )
        if sandbox_id and chosen == "always":
            warning = Problem(
                message=f"cleanup: {chosen} does nothing to a sandbox that was connected to",
                hint="what a run did not create it never deletes",
                path="cleanup",
                severity="warning",
            )
            self.warnings.append(placed(self.rendered, warning))
        return chosen

    def _model(self, recipe: Recipe) -> ModelPlan:
        flag = self.options.model
        # A model that is asked for by name is meant for real: the recipe's cassette is dropped.
        written = Model(name=flag) if flag else recipe.agent.settings
        origin = "--model" if flag else "recipe"
        name = self._first(
            "model",
            (written.name, origin),
            (self.environ.get("KIMI_MODEL_NAME"), "$KIMI_MODEL_NAME"),
        )
        kimi = written.provider == "kimi"
        base_url = self._first(
            "model.base_url",
            (written.base_url, origin),
            (self.environ.get("KIMI_BASE_URL") if kimi else None, "$KIMI_BASE_URL"),
        )
        replay = self._replay(written)
        return ModelPlan(
            provider=written.provider,
            name=name or ("cassette" if replay else ""),
            base_url=base_url,
            api_key=self.environ.get(written.api_key_env) or None,
            api_key_env=written.api_key_env,
            max_context=written.max_context,
            replay=replay,
            shipped=self._ships(replay),
        )

    def _ships(self, replay: Path | None) -> bool:
        """Whether a cassette is as much to be trusted as a recipe that is trusted."""
        if replay is None or self.options.replay is not None or self.options.untrusted:
            return False
        return Fence.around(self.options.recipe).holds(replay)

    def _replay(self, written: Model) -> Path | None:
        own = self.rendered.dir / written.replay if written.replay else None
        return self._first(  # type: ignore[no-any-return]
            "model.replay", (self.options.replay, "--replay"), (own, "recipe")
        )

    def _of_machine(self, backend: Backend, recipe: Recipe) -> list[Problem]:
        """What the machine lacks for this backend.

        Raises:
            RecipeError: the backend cannot do what the recipe asks.
        """
        found = backend.problems(recipe, self.environ)
        of_recipe = [placed(self.rendered, p) for p in found if p.path]
        self.warnings += [p for p in of_recipe if p.severity == "warning"]
        if any(p.severity == "error" for p in of_recipe):
            raise RecipeError(of_recipe)
        return [p for p in found if not p.path and p.severity == "error"]

    def _of_model(self, model: ModelPlan) -> list[Problem]:
        """What the model lacks.

        Raises:
            RecipeError: its cassette is none.
        """
        if model.replay:
            if model.replay.is_file():
                cassette.load(model.replay, str(model.replay))
                return []
            return [Problem(message=f"the cassette {model.replay} does not exist")]
        missing = []
        if not model.name:
            missing.append(
                Problem(
                    message="no model is named",
                    hint="set `agent.model` in the recipe, KIMI_MODEL_NAME, or --model",
                )
            )
        if not model.api_key:
            missing.append(
                Problem(
                    message=f"the model's key is missing: {model.api_key_env} is not set",
                    hint=f"export {model.api_key_env}, or play a cassette with --replay",
                )
            )
        return missing


PROVIDER_KEYS = ("KIMI_API_KEY", "E2B_API_KEY", "SPRITE_TOKEN", "BOXLITE_API_KEY")


def make_mask(recipe: Recipe, environ: Mapping[str, str]) -> Mask:
    """A mask for declared secrets and for every key that this process may use."""
    named = {*recipe.secrets, *PROVIDER_KEYS, *_env_names(recipe.model_dump())}
    values = (environ.get(name, "") for name in named)
    return Mask(value for value in values if len(value) >= MINIMUM)


def _env_names(document: Any) -> set[str]:
    """Every host variable that a `*_env` field names."""
    if isinstance(document, dict):
        own = {v for k, v in document.items() if k.endswith("_env") and isinstance(v, str)}
        return own.union(*(_env_names(v) for v in document.values()))
    if isinstance(document, list | tuple):
        return set().union(*(_env_names(v) for v in document))
    return set()
