"""No variable of the host steers the SDK: the recipe does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.agent import claim, open_session
from kaos_runner.agent.environment import SHARE_DIR
from tests.unit.agent.upstream import Reply, scripted

if TYPE_CHECKING:
    import pytest

    from tests.unit.agent.conftest import Desk

STEERING = {
    "KIMI_BASE_URL": "http://127.0.0.1:1/of-the-host",
    "KIMI_API_KEY": "key-of-the-host",
    "KIMI_MODEL_NAME": "model-of-the-host",
    "KIMI_MODEL_MAX_CONTEXT_SIZE": "10",
    "KIMI_MODEL_CAPABILITIES": "thinking,image_in",
    "KIMI_MODEL_TEMPERATURE": "0.123",
    "KIMI_MODEL_TOP_P": "0.456",
    "KIMI_MODEL_MAX_TOKENS": "77",
    "KIMI_SHARE_DIR": "/nonexistent/share",
    "OPENAI_BASE_URL": "http://127.0.0.1:1/of-the-host",
    "OPENAI_API_KEY": "openai-of-the-host",
    "OPENAI_ORG_ID": "org-of-the-host",
    "OPENAI_PROJECT_ID": "project-of-the-host",
    "ANTHROPIC_API_KEY": "anthropic-of-the-host",
    "ANTHROPIC_CUSTOM_HEADERS": "X-Of-The-Host: yes",
    "GOOGLE_API_KEY": "google-of-the-host",
}


def test_the_recipe_wins_over_every_variable(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STEERING.items():
        monkeypatch.setenv(name, value)

    async def main() -> None:
        async with scripted([Reply(text="ok")]) as upstream:
            claim(os.environ)
            async with open_session(desk.spec(provider=upstream.provider)) as session:
                await session.turn("go")
            (body,), (headers,) = upstream.requests, upstream.headers
            assert body["model"] == "scripted"
            assert headers["Authorization"] == "Bearer key-of-the-recipe"
            assert not {"temperature", "top_p"} & set(body)
            assert body["max_tokens"] != 77
            assert "of-the-host" not in str(body) + str(headers)
            assert "X-Kaos-Runner-Conversation" not in headers

    asyncio.run(main())
    assert not [name for name in STEERING if name in os.environ and name != SHARE_DIR]


def test_the_share_directory_is_the_process_s_own() -> None:
    environ = {"KIMI_SHARE_DIR": "/somebody/else", "HOME": "/h", "HTTPS_PROXY": "http://p"}
    claim(environ)
    again = dict(environ)
    claim(again)
    assert environ == again
    assert set(environ) == {"KIMI_SHARE_DIR", "HOME", "HTTPS_PROXY"}
    share = Path(environ["KIMI_SHARE_DIR"])
    assert share.is_dir()
    assert share.stat().st_mode & 0o077 == 0
    assert ".kimi" not in share.parts


def test_importing_the_agent_imports_no_sdk() -> None:
    code = (
        "import sys, kaos_runner.agent\n"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('kimi_cli', 'kimi_agent_sdk', 'kosong', 'kaos', 'openai', 'httpx')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_home_directory_stays_untouched(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    home = desk.home / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))

    async def main() -> None:
        async with desk.opened([Reply(text="ok")]) as (_, session):
            await session.turn("go")

    asyncio.run(main())
    assert list(home.iterdir()) == []
