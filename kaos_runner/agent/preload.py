"""Loads the SDK while something else waits for the network."""

from __future__ import annotations

import asyncio
import importlib
import warnings

_MODULES = (
    "kaos_runner.agent.sdk",
    "kaos_runner.agent.grep",
    "kaos_runner.agent.failures",
    "kosong.chat_provider.kimi",
    "openai.resources.chat.completions",
    "openai.types.chat",
)


async def preload() -> None:
    """Import the SDK, its tools and the client in a thread; the second time costs nothing.

    Import a provider's SDK before this: two imports at once wait for each other, and the loop
    with them.
    """
    await asyncio.to_thread(_load)


def _load() -> None:
    # Its dependencies deprecate each other while they load; one of them sets a filter that insists.
    with warnings.catch_warnings(record=True):
        for name in _MODULES:
            importlib.import_module(name)
