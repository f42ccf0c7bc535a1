"""The one tool that acts from the host's network: there when it is chosen, and under the rules."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from kaos_runner.recipe.model import Agent
from tests.unit.agent.upstream import Reply, call

if TYPE_CHECKING:
    from tests.unit.agent.conftest import Desk


def test_it_fetches_masks_and_obeys(desk: Desk) -> None:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="the page of hunter22", content_type="text/plain")

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/{name}", page)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        calls = tuple(
            call("FetchURL", url=f"http://{host}:{port}/{name}") for name in ("open", "closed")
        )
        agent = Agent.model_validate(
            {
                "tools": ["fetch"],
                "approvals": [{"tool": "fetch", "match": "*/closed", "action": "deny"}],
            }
        )
        given = {"agent": agent, "mask": lambda text: text.replace("hunter22", "***")}
        async with desk.opened([Reply(calls=calls), Reply(text="ok")], **given) as (_, session):
            await session.turn("go")
        await runner.cleanup()

    asyncio.run(main())
    assert desk.results()[1] == (True, "the page of ***")
    assert desk.results()[2][0] is False
