"""The emulator's answers against the server's published description, where a copy is at hand.

The description is not part of this repository: `BOXLITE_OPENAPI` names a copy, or one lies in
`../shared/specs` beside the checkout.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.debian import need
from tests.emulators.boxlite import Emulator
from tests.emulators.boxlite_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

BESIDE = Path(__file__).parents[2].parent / "shared/specs/boxlite.openapi.yaml"
UNDESCRIBED = {
    "GET /boxes/{box}/executions/{execution}/attach",
    "PUT /boxes/{box}/network/outbound",
}
"""The upgrade to a WebSocket, which has no body, and what SDK 0.10.8 asks for besides."""


@pytest.fixture(scope="module")
def description() -> Any:
    path = Path(os.environ.get("BOXLITE_OPENAPI") or BESIDE)
    if not path.is_file():
        pytest.skip(f"no copy of the published description: BOXLITE_OPENAPI is unset, no {path}")
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """An emulator that has answered every route, some with errors."""
    need(missing_packages("gnu"))
    with Emulator(key="k", prefix="team/one", page_size=1) as emulator:
        asyncio.run(_visit(emulator))
        yield emulator


async def _visit(emulator: Emulator) -> None:
    base = f"{emulator.url}/v1"
    headers = {"Authorization": "Bearer k"}
    async with aiohttp.ClientSession(headers=headers, trust_env=False) as session:

        async def ask(method: str, path: str, prefix: str = "/team/one", **sent: Any) -> Any:
            async with session.request(method, f"{base}{prefix}{path}", **sent) as answer:
                is_json = answer.content_type == "application/json"
                return await answer.json() if is_json else await answer.read()

        await ask("GET", "/config", "")
        await ask("GET", "/me", "")
        box = (await ask("POST", "/boxes", json={"name": "one", "image": "a:1"}))["box_id"]
        await ask("POST", "/boxes", json={"name": "one"})
        await ask("POST", "/boxes", json={"cpu": 1})
        await ask("POST", "/boxes", json={"image": "nonexistent"})
        await ask("POST", "/boxes", json={})
        page = await ask("GET", "/boxes")
        await ask("GET", f"/boxes?pageToken={page['next_page_token']}")
        at = f"/boxes/{box}"
        for method, path in (
            ("GET", at),
            ("HEAD", at),
            ("GET", "/boxes/no"),
            ("HEAD", "/boxes/no"),
        ):
            await ask(method, path)
        await ask("POST", f"{at}/start")
        await _visit_executions(ask, at, session, f"{base}/team/one")
        tar = await ask("GET", f"{at}/files?path=/etc/passwd")
        await ask("PUT", f"{at}/files?path=/tmp/copy", data=tar)
        await ask("GET", f"{at}/files?path=/nowhere")
        await ask("DELETE", at)
        await ask("GET", f"{at}/metrics")
        await ask("GET", "/metrics")
        await ask("PUT", f"{at}/network/outbound", json={"mode": "enabled"})
        await ask("POST", f"{at}/stop", json={})
        for method, path in (
            ("POST", "snapshots"),
            ("POST", "snapshots"),
            ("GET", "snapshots"),
            ("GET", "snapshots/s"),
            ("POST", "snapshots/s/restore"),
            ("DELETE", "snapshots/s"),
            ("GET", "snapshots/s"),
        ):
            sent: Any = {"json": {"name": "s"}} if (method, path) == ("POST", "snapshots") else {}
            await ask(method, f"{at}/{path}", **sent)
        await ask("DELETE", f"{at}?force=true")


async def _visit_executions(ask: Any, at: str, session: aiohttp.ClientSession, base: str) -> None:
    command = {"command": "sh", "args": ["-c", "echo out; exit 3"]}
    done = (await ask("POST", f"{at}/exec", json=command))["execution_id"]
    async with session.ws_connect(f"{base}{at}/executions/{done}/attach") as socket:
        frames = [message.data async for message in socket]
    assert frames[0] == b"\x01out\n"
    assert "exit_code" in frames[-1]
    await ask("GET", f"{at}/executions/{done}")
    await ask("GET", f"{at}/executions/nothing")
    await ask("POST", f"{at}/exec", json={"command": "true", "tty": True})
    slow = (await ask("POST", f"{at}/exec", json={"command": "sleep", "args": ["60"]}))[
        "execution_id"
    ]
    await ask("GET", f"{at}/executions/{slow}")
    await ask("POST", f"{at}/executions/{slow}/signal", json={"signal": 15})
    await ask("POST", f"{at}/executions/{slow}/signal", json={"signal": 9})
    await ask("POST", f"{at}/executions/{slow}/resize", json={"cols": 80, "rows": 24})
    await ask("DELETE", f"{at}/executions/{slow}")


def test_every_route_was_visited(emulator: Emulator) -> None:
    missing = {
        f"{route.method} {route.resource.canonical}".replace("/v1", "").replace("/team/one", "")
        for route in emulator.routes()
        if route.resource is not None and route.method != "OPTIONS"
    } - {route for route, _, _ in emulator.answers}
    assert missing == set()


def test_answers_are_as_described(emulator: Emulator, description: Any) -> None:
    document = _with_null(description)
    faults = []
    for route, status, body in emulator.answers:
        if route in UNDESCRIBED and status < 400:
            continue
        described = _operation(document, route)
        if status < 400 and str(status) not in described["responses"]:
            faults.append(f"{route}: {status} is not described")
        schema = _schema(document, described, status)
        if schema is not None:
            checker = Draft202012Validator({**schema, "components": document["components"]})
            faults += [f"{route} {status}: {fault.message}" for fault in checker.iter_errors(body)]
    assert faults == []


def _operation(document: Any, route: str) -> Any:
    method, path = route.split(" ")
    names = {"{box}": "{box_id}", "{execution}": "{exec_id}", "{name}": "{snapshot_name}"}
    for ours, theirs in names.items():
        path = path.replace(ours, theirs)
    return (document["paths"].get(path) or document["paths"]["/{prefix}" + path])[method.lower()]


def _schema(document: Any, operation: Any, status: int) -> Any:
    answer = operation["responses"].get(str(status))
    if answer is None:
        return (
            {"$ref": "#/components/schemas/ErrorResponse"} if operation_has_body(status) else None
        )
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return answer.get("content", {}).get("application/json", {}).get("schema")


def operation_has_body(status: int) -> bool:
    """Errors have one whatever the route."""
    return status >= 400


def _with_null(node: Any) -> Any:
    """The description in JSON schema's words: `nullable` is OpenAPI 3.0's."""
    if isinstance(node, list):
        return [_with_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _with_null(value) for key, value in node.items() if key != "nullable"}
    if node.get("nullable") is True and "type" in plain:
        plain["type"] = [plain["type"], "null"]
    return plain
