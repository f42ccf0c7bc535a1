"""What this machine has for running recipes: Python, packages, keys, and what backends need."""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from kaos_runner.backends.base import Diagnosis
from kaos_runner.recipe.registry import backend_classes, broken_backends

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES = ("kaos-runner", "kimi-agent-sdk", "kimi-cli", "pykaos")
TIMEOUT = 20.0
"""Seconds that one backend may take to answer."""
ONLINE_TIMEOUT = 120.0
"""Seconds that it may take where it may try things out: a micro-VM that does not boot takes 40."""


def diagnose(
    environ: Mapping[str, str], *, only: str | None, online: bool
) -> dict[str, list[Diagnosis]]:
    """What holds on this machine, by part: `machine`, `model`, then each backend or only one."""
    found = {"machine": _machine(), "model": _model(environ)}
    backends = asyncio.run(_backends(environ, only=only, online=online))
    return {**found, **backends}


def _machine() -> list[Diagnosis]:
    right = sys.version_info[:2] == (3, 13)
    python = Diagnosis(
        subject="python",
        ok=right,
        detail=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        hint=None if right else "the agent's SDK needs Python 3.13",
    )
    git = shutil.which("git")
    return [
        python,
        *(_package(name) for name in PACKAGES),
        Diagnosis(
            subject="git",
            ok=git is not None,
            detail=git or "not found",
            hint=None if git else "install git: `files: {git: …}` and patches need it",
        ),
    ]


def _package(name: str) -> Diagnosis:
    try:
        return Diagnosis(subject=name, ok=True, detail=version(name))
    except PackageNotFoundError:
        return Diagnosis(
            subject=name, ok=False, detail="not installed", hint="install kaos-runner anew"
        )


def _model(environ: Mapping[str, str]) -> list[Diagnosis]:
    """The variables that name the model and its key; a value that is no secret is shown."""
    key = Diagnosis(
        subject="KIMI_API_KEY",
        ok=None if not environ.get("KIMI_API_KEY") else True,
        detail="set" if environ.get("KIMI_API_KEY") else "not set",
        hint="a recipe without a cassette needs a key",
    )
    name = environ.get("KIMI_MODEL_NAME")
    return [
        key,
        Diagnosis(subject="KIMI_MODEL_NAME", ok=True if name else None, detail=name or "not set"),
        Diagnosis(
            subject="KIMI_BASE_URL",
            ok=True if environ.get("KIMI_BASE_URL") else None,
            detail="set" if environ.get("KIMI_BASE_URL") else "not set",
        ),
    ]


async def _backends(
    environ: Mapping[str, str], *, only: str | None, online: bool
) -> dict[str, list[Diagnosis]]:
    wanted = {n: b for n, b in backend_classes().items() if only in (None, n)}
    answers = await asyncio.gather(
        *(_backend(backend, environ, online=online) for backend in wanted.values())
    )
    found = {f"backend {name}": each for name, each in zip(wanted, answers, strict=True)}
    for name, reason in broken_backends().items():
        if only in (None, name):
            lost = Diagnosis(subject=name, ok=False, detail=f"cannot be loaded: {reason}")
            found[f"backend {name}"] = [lost]
    return found


async def _backend(backend: type, environ: Mapping[str, str], *, online: bool) -> list[Diagnosis]:
    """One backend's own answer; whatever goes wrong in it is an answer too."""
    seconds = ONLINE_TIMEOUT if online else TIMEOUT
    try:
        async with asyncio.timeout(seconds):
            found: list[Diagnosis] = await backend().diagnose(environ, online=online)
            return found
    except TimeoutError:
        detail = f"no answer within {seconds:g} s"
    except Exception as error:  # a third party's backend must not stop the others
        detail = f"{type(error).__name__}: {error}"
    return [Diagnosis(subject="diagnosis", ok=False, detail=detail)]
