"""The emulator's answers against E2B's published description.

The description is not part of this repository. It is looked for in the folder that `OPENAPI_SPECS`
names, or in `../shared/specs`; without it these tests skip, and say so.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.debian import need
from tests.emulators.e2b import API_KEY, Emulator, running
from tests.emulators.e2b_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(os.environ.get("OPENAPI_SPECS") or Path(__file__).parents[3] / "shared/specs")


@functools.cache
def published(name: str) -> dict[str, Any]:
    """A description, as JSON schemas have it: `nullable` written out."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not in {FOLDER}; set OPENAPI_SPECS to its folder")
    loaded: dict[str, Any] = _modern(yaml.safe_load(path.read_text()))
    return loaded


def _modern(node: Any) -> Any:
    if isinstance(node, list):
        return [_modern(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _modern(value) for key, value in node.items()}
    if found.pop("nullable", False) is True:
        return {"anyOf": [found, {"type": "null"}]}
    return found


def check(spec: dict[str, Any], path: str, answer: httpx.Response) -> None:
    """Hold an answer against what is published for its path, method and status."""
    operation = spec["paths"][path][answer.request.method.lower()]
    assert str(answer.status_code) in operation["responses"], (path, answer.text)
    response = operation["responses"][str(answer.status_code)]
    while "$ref" in response:
        response = functools.reduce(dict.__getitem__, response["$ref"][2:].split("/"), spec)
    content = response.get("content")
    if content is None:
        assert answer.content == b""
        return
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in content
    if kind == "application/json":
        schema = {**content[kind]["schema"], "components": spec["components"]}
        errors = list(Draft202012Validator(schema).iter_errors(answer.json()))
        assert errors == [], (path, answer.text)


def check_error(spec: dict[str, Any], answer: httpx.Response) -> None:
    """Hold an error whose status is not published for its call against the published shape."""
    schema = {"$ref": "#/components/schemas/Error", "components": spec["components"]}
    assert list(Draft202012Validator(schema).iter_errors(answer.json())) == []


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A server in which two sandboxes may run."""
    need(missing_packages())
    with running(limit=2) as server:
        yield server


@pytest.fixture
def api(emulator: Emulator) -> Iterator[httpx.Client]:
    """A client of the control plane, with the key."""
    headers = {"X-API-KEY": API_KEY}
    with httpx.Client(base_url=emulator.url, headers=headers, trust_env=False) as client:
        yield client


CREATE = {
    "templateID": "base",
    "timeout": 60,
    "metadata": {"a": "b"},
    "network": {"allowOut": ["pypi.org"], "denyOut": ["0.0.0.0/0"]},
}


def test_the_control_plane(api: httpx.Client) -> None:
    spec = published("e2b.openapi.yaml")
    made = api.post("/v2/sandboxes", json=CREATE)
    check(spec, "/sandboxes", made)
    one, path = f"/sandboxes/{made.json()['sandboxID']}", "/sandboxes/{sandboxID}"
    check(spec, path, api.get(one))
    check(spec, "/v2/sandboxes", api.get("/v2/sandboxes", params={"metadata": "a=b"}))
    check(spec, f"{path}/metrics", api.get(f"{one}/metrics"))
    check(spec, f"{path}/timeout", api.post(f"{one}/timeout", json={"timeout": 90}))
    check(spec, f"{path}/network", api.put(f"{one}/network", json={"denyOut": ["10.0.0.0/8"]}))
    check(spec, f"{path}/connect", api.post(f"/v2{one}/connect", json={"timeout": 90}))
    check(spec, f"{path}/pause", api.post(f"{one}/pause", json={}))
    paused = api.post(f"{one}/pause", json={})
    assert paused.status_code == 409
    check(spec, f"{path}/pause", paused)
    check(spec, path, api.get(one))
    resumed = api.post(f"{one}/connect", json={"timeout": 90})
    assert resumed.status_code == 201
    check(spec, f"{path}/connect", resumed)
    check(spec, path, api.delete(one))
    for gone in (api.get(one), api.delete(one)):
        assert gone.status_code == 404
        check(spec, path, gone)


def test_what_the_control_plane_refuses(api: httpx.Client) -> None:
    spec = published("e2b.openapi.yaml")
    wrong = api.get("/v2/sandboxes", headers={"X-API-KEY": "e2b_wrong"})
    assert wrong.status_code == 401
    check(spec, "/v2/sandboxes", wrong)
    for body in ({}, {"templateID": "base", "timeout": 10**6}):
        refused = api.post("/v2/sandboxes", json=body)
        assert refused.status_code == 400
        check(spec, "/sandboxes", refused)
    check_error(spec, api.post("/v2/sandboxes", json={"templateID": "none"}))
    for _ in range(2):
        api.post("/v2/sandboxes", json=CREATE)
    limited = api.post("/v2/sandboxes", json=CREATE)
    assert limited.status_code == 429
    check_error(spec, limited)


def test_envd(emulator: Emulator, api: httpx.Client) -> None:
    spec = published("e2b-envd.openapi.yaml")
    made = api.post("/v2/sandboxes", json=CREATE).json()
    headers = {
        "E2b-Sandbox-Id": made["sandboxID"],
        "E2b-Sandbox-Port": "49983",
        "X-Access-Token": made["envdAccessToken"],
    }
    with httpx.Client(base_url=emulator.url, headers=headers, trust_env=False) as envd:
        check(spec, "/health", envd.get("/health"))
        files = [("file", ("one", b"1")), ("file", ("two", b"2"))]
        check(spec, "/files", envd.post("/files", files=files))
        octets = {"Content-Type": "application/octet-stream"}
        written = envd.post("/files?path=three", content=b"3", headers=octets)
        assert written.json() == [{"path": "/home/user/three", "name": "three", "type": "file"}]
        check(spec, "/files", written)
        check(spec, "/files", envd.get("/files?path=two"))
        for query, status in (
            ("path=none", 404),
            ("path=/tmp", 400),
            ("path=two&username=nobody", 401),
        ):
            refused = envd.get(f"/files?{query}")
            assert refused.status_code == status
            check(spec, "/files", refused)
