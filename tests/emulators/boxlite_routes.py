"""The routes of the BoxLite emulator."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from tests.emulators.boxlite_answers import Refused, check_create, described
from tests.emulators.boxlite_box import Box
from tests.emulators.boxlite_execution import SIGNALS, Execution
from tests.emulators.boxlite_files import Archive, archive, extract

if TYPE_CHECKING:
    from tests.emulators.boxlite import Emulator


class Routes:
    """The handlers, over the state of one emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator

    def install(self, router: web.UrlDispatcher) -> None:
        """Register every route, box-scoped ones behind the prefix."""
        prefix = f"/v1/{self.emulator.prefix}" if self.emulator.prefix else "/v1"
        box, execution = "/boxes/{box}", "/boxes/{box}/executions/{execution}"
        get = functools.partial(router.add_get, allow_head=False)
        get("/v1/config", self.config)
        get("/v1/me", self.me)
        get(f"{prefix}/metrics", self.runtime_metrics)
        router.add_post(f"{prefix}/boxes", self.create)
        get(f"{prefix}/boxes", self.list_boxes)
        get(f"{prefix}{box}", self.get)
        router.add_head(f"{prefix}{box}", self.exists)
        router.add_delete(f"{prefix}{box}", self.remove)
        router.add_post(f"{prefix}{box}/start", self.start)
        router.add_post(f"{prefix}{box}/stop", self.stop)
        get(f"{prefix}{box}/metrics", self.metrics)
        router.add_put(f"{prefix}{box}/files", self.upload)
        router.add_put(f"{prefix}{box}/network/outbound", self.restrict)
        get(f"{prefix}{box}/files", self.download)
        router.add_post(f"{prefix}{box}/snapshots", self.snapshot)
        get(f"{prefix}{box}/snapshots", self.list_snapshots)
        get(f"{prefix}{box}/snapshots/{{name}}", self.get_snapshot)
        router.add_delete(f"{prefix}{box}/snapshots/{{name}}", self.remove_snapshot)
        router.add_post(f"{prefix}{box}/snapshots/{{name}}/restore", self.restore)
        router.add_post(f"{prefix}{box}/exec", self.execute)
        get(f"{prefix}{execution}", self.execution)
        router.add_delete(f"{prefix}{execution}", self.kill)
        get(f"{prefix}{execution}/attach", self.attach)
        router.add_post(f"{prefix}{execution}/signal", self.signal)
        router.add_post(f"{prefix}{execution}/resize", self.resize)

    # What the server is

    async def config(self, _request: web.Request) -> web.Response:
        capabilities = {"max_cpus": 32, "max_memory_mib": 16384, "snapshots_enabled": True}
        return web.json_response({"defaults": {"cpus": 2}, "capabilities": capabilities})

    async def me(self, _request: web.Request) -> web.Response:
        prefix = self.emulator.prefix or None
        who = {"sub": "emulated", "principal_type": "service_account", "path_prefix": prefix}
        return web.json_response({**who, "scopes": ["boxes:read", "boxes:write"]})

    async def runtime_metrics(self, _request: web.Request) -> web.Response:
        running = sum(box.status == "running" for box in self.emulator.boxes.values())
        return web.json_response({**self.emulator.counters, "num_running_boxes": running})

    # Boxes

    def _box(self, request: web.Request) -> Box:
        wanted = request.match_info["box"]
        for box in self.emulator.boxes.values():
            if wanted in (box.id, box.name):
                return box
        raise Refused(404, "not_found", f"box not found: {wanted}")

    async def _running(self, request: web.Request) -> Box:
        box = self._box(request)
        await box.start()
        return box

    async def create(self, request: web.Request) -> web.Response:
        spec = await request.json()
        check_create(spec)
        name = spec.get("name")
        if name is not None and any(box.name == name for box in self.emulator.boxes.values()):
            raise Refused(409, "already_exists", f"a box named {name} exists")
        box_id = secrets.token_hex(6)
        directory = self.emulator.directory / box_id
        box = Box(box_id, name, spec, directory, self.emulator.userland)
        self.emulator.boxes[box_id] = box
        self.emulator.counters["boxes_created_total"] += 1
        location = f"{request.path}/{box_id}"
        return web.json_response(described(box), status=201, headers={"Location": location})

    async def list_boxes(self, request: web.Request) -> web.Response:
        boxes = list(self.emulator.boxes.values())
        if status := request.query.get("status"):
            boxes = [box for box in boxes if box.status == status]
        size = min(int(request.query.get("pageSize", 100)), self.emulator.page_size)
        start = int(request.query.get("pageToken") or 0)
        end = start + size
        token = str(end) if end < len(boxes) else None
        page = [described(box) for box in boxes[start:end]]
        return web.json_response({"boxes": page, "next_page_token": token})

    async def get(self, request: web.Request) -> web.Response:
        return web.json_response(described(self._box(request)))

    async def exists(self, request: web.Request) -> web.Response:
        self._box(request)
        return web.Response(status=204)

    async def remove(self, request: web.Request) -> web.Response:
        box = self._box(request)
        if box.status == "running" and request.query.get("force") != "true":
            raise Refused(409, "invalid_state", "invalid state: box is running")
        del self.emulator.boxes[box.id]
        await box.remove()
        return web.Response(status=204)

    async def start(self, request: web.Request) -> web.Response:
        return web.json_response(described(await self._running(request)))

    async def stop(self, request: web.Request) -> web.Response:
        box = self._box(request)
        await box.stop()
        self.emulator.counters["boxes_stopped_total"] += 1
        return web.json_response(described(box))

    async def metrics(self, request: web.Request) -> web.Response:
        box = self._box(request)
        none = {"cpu_percent": None, "memory_bytes": None}
        return web.json_response({**none, **box.metrics, "boot_timing": {"total_create_ms": 1}})

    # Snapshots

    def _stopped(self, request: web.Request) -> Box:
        box = self._box(request)
        if box.status == "running":
            raise Refused(409, "invalid_state", "invalid state: box is running")
        return box

    def _snapshot(self, request: web.Request) -> tuple[Box, dict[str, object]]:
        box = self._box(request)
        name = request.match_info["name"]
        try:
            return box, self.emulator.snapshots[box.id, name]
        except KeyError:
            raise Refused(404, "not_found", f"snapshot not found: {name}") from None

    async def snapshot(self, request: web.Request) -> web.Response:
        box = self._stopped(request)
        name = str((await request.json())["name"])
        if (box.id, name) in self.emulator.snapshots:
            raise Refused(409, "already_exists", f"a snapshot named {name} exists")
        copy = box.directory / "snapshots" / name
        await asyncio.to_thread(shutil.copytree, box.root, copy, symlinks=True)
        facts: dict[str, object] = {"id": secrets.token_hex(6), "box_id": box.id, "name": name}
        facts |= {"created_at": int(datetime.now(UTC).timestamp()), "guest_disk_bytes": 0}
        facts |= {"container_disk_bytes": 0, "size_bytes": 0}
        self.emulator.snapshots[box.id, name] = facts
        return web.json_response(facts, status=201)

    async def list_snapshots(self, request: web.Request) -> web.Response:
        box = self._box(request)
        mine = [facts for (owner, _), facts in self.emulator.snapshots.items() if owner == box.id]
        return web.json_response({"snapshots": mine})

    async def get_snapshot(self, request: web.Request) -> web.Response:
        return web.json_response(self._snapshot(request)[1])

    async def remove_snapshot(self, request: web.Request) -> web.Response:
        box, facts = self._snapshot(request)
        name = str(facts["name"])
        del self.emulator.snapshots[box.id, name]
        await asyncio.to_thread(shutil.rmtree, box.directory / "snapshots" / name)
        return web.Response(status=204)

    async def restore(self, request: web.Request) -> web.Response:
        box = self._stopped(request)
        _, facts = self._snapshot(request)
        copy = box.directory / "snapshots" / str(facts["name"])
        await asyncio.to_thread(shutil.rmtree, box.root)
        await asyncio.to_thread(shutil.copytree, copy, box.root, symlinks=True)
        return web.Response(status=204)

    async def restrict(self, request: web.Request) -> web.Response:
        """Remember a network policy; the emulator enforces it from the box's next start."""
        self._box(request).spec["network"] = await request.json()
        return web.Response(status=204)

    # Files

    async def upload(self, request: web.Request) -> web.Response:
        box = await self._running(request)
        path, is_dir = request.query["path"], request.query.get("source_is_dir") != "false"
        tar = Archive(await request.read())
        await asyncio.to_thread(extract, box.root, path, tar, source_is_dir=is_dir)
        return web.Response(status=204)

    async def download(self, request: web.Request) -> web.Response:
        box = await self._running(request)
        follow = request.query.get("follow_symlinks") == "true"
        try:
            tar = await asyncio.to_thread(archive, box.root, request.query["path"], follow=follow)
        except FileNotFoundError as error:
            raise Refused(404, "not_found", f"no such path: {request.query['path']}") from error
        return web.Response(body=tar, content_type="application/x-tar")

    # Executions

    async def execute(self, request: web.Request) -> web.Response:
        box = await self._running(request)
        wish = await request.json()
        if wish.get("tty"):
            raise Refused(400, "unsupported", "the emulator has no terminals")
        argv = [str(wish["command"]), *(wish.get("args") or ())]
        env = {str(key): str(value) for key, value in (wish.get("env") or {}).items()}
        process = await box.spawn(argv, cwd=wish.get("working_dir"), env=env)
        execution = Execution(box, process)
        if seconds := wish.get("timeout_seconds"):
            asyncio.get_running_loop().call_later(float(seconds), execution.kill)
        self.emulator.executions[execution.id] = execution
        box.metrics["commands_executed_total"] = box.metrics.get("commands_executed_total", 0) + 1
        self.emulator.counters["total_commands_executed"] += 1
        return web.json_response({"execution_id": execution.id}, status=201)

    def _execution(self, request: web.Request) -> Execution:
        wanted = request.match_info["execution"]
        self._box(request)
        try:
            return self.emulator.executions[wanted]
        except KeyError:
            raise Refused(404, "not_found", f"execution not found: {wanted}") from None

    async def execution(self, request: web.Request) -> web.Response:
        return web.json_response(self._execution(request).info())

    async def kill(self, request: web.Request) -> web.Response:
        execution = self._execution(request)
        execution.kill()
        del self.emulator.executions[execution.id]
        return web.Response(status=204)

    async def attach(self, request: web.Request) -> web.StreamResponse:
        execution = self._execution(request)
        if execution.attached:
            raise Refused(409, "invalid_state", "another client is already attached")
        with contextlib.suppress(ConnectionError):
            return await execution.attach(request)
        return web.Response(status=500)

    async def signal(self, request: web.Request) -> web.Response:
        execution = self._execution(request)
        number = (await request.json())["signal"]
        if number not in SIGNALS:
            raise Refused(400, "invalid_argument", f"signal {number} is not allowed")
        execution.signal(number)
        return web.Response(status=204)

    async def resize(self, request: web.Request) -> web.Response:
        self._execution(request)
        raise Refused(409, "invalid_state", "the execution has no terminal")
