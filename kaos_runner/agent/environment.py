"""Which variables steer the SDK; none of them may, because the recipe does.

The SDK lets its variables override the Config that it is given, and writes the override into it
(`kimi_cli.llm.augment_provider_with_env_vars`); the clients beneath it read variables of their own.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

PREFIXES = (
    "KIMI_",  # kimi_cli.llm, .share, .auth
    "OPENAI_",  # openai._client: organisation, project, base URL, log
    "AZURE_OPENAI_",
    "ANTHROPIC_",
    "GOOGLE_",  # google.genai: keys, Vertex AI
    "GEMINI_",
    "VERTEXAI_",
    "CHAOS_",  # kosong.chat_provider.chaos
    "FASTMCP_",
)
SHARE_DIR = "KIMI_SHARE_DIR"

_share: str | None = None


def claim(environ: MutableMapping[str, str]) -> None:
    """Remove every variable that steers the SDK, and give it a directory of this process.

    Call it with `os.environ` before the SDK is imported. Idempotent. Proxies stay: a provider may
    only be reachable through one, and the cassette's own client ignores them.
    """
    for name in list(steering(environ)):
        del environ[name]
    environ[SHARE_DIR] = _share_dir()


def steering(environ: MutableMapping[str, str]) -> Iterator[str]:
    """The names of the variables that `claim` removes."""
    return (name for name in environ if name.startswith(PREFIXES))


def _share_dir() -> str:
    """One directory per process, and gone with it: the SDK does not lock its files there."""
    global _share
    if _share is None:
        _share = tempfile.mkdtemp(prefix="kaos-runner-sdk-")
        atexit.register(shutil.rmtree, _share, ignore_errors=True)
    return _share
