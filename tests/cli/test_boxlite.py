"""Runs in BoxLite from the command line: against the emulated server, and on this machine."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.backends.boxlite_config import kvm_fault
from kaos_runner.backends.boxlite_layout import write_layout
from tests.cli.conftest import ROOT, CommandLine, says, shell
from tests.debian import need
from tests.emulators.boxlite import Emulator, Fault
from tests.emulators.boxlite_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Done

RECIPE = ROOT / "recipes/boxlite-quickstart.yaml"
PATIENCE = 60.0


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A BoxLite server."""
    need(missing_packages("gnu"))
    with Emulator(key="key-of-the-test") as emulator:
        yield emulator


@pytest.fixture
def boxlite(cli: CommandLine, emulator: Emulator) -> CommandLine:
    """A command line that finds it."""
    found = {"BOXLITE_REST_URL": emulator.url, "BOXLITE_API_KEY": "key-of-the-test"}
    return replace(cli, environ={**cli.environ, **found})


def recipe(cli: CommandLine, turns: list[dict[str, Any]], **fields: Any) -> Path:
    return cli.recipe(turns, **{"backend": "boxlite", **fields})


def until(condition: Callable[[], object]) -> None:
    """Wait for something that a process brings about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_quickstart(boxlite: CommandLine, emulator: Emulator) -> None:
    done = boxlite.run(RECIPE)
    assert done.code == 0, done.err
    report = json.loads((done.run_dir / "artifacts/report.json").read_text())
    assert report["system"] == "Linux"
    asked = dict(emulator.bodies)["POST /boxes"]
    assert isinstance(asked, dict)
    assert asked["image"] == "python:3.12-slim"
    assert (asked["cpus"], asked["memory_mib"]) == (1, 512)
    assert asked["network"]["mode"] == "disabled"
    assert asked["name"].startswith(f"kaos-runner.{done.run_dir.name}.")
    assert emulator.boxes == {}


def test_what_a_run_costs(boxlite: CommandLine, emulator: Emulator) -> None:
    """The floor: one operation for a shell command; what is asked of the server is counted."""
    path = recipe(boxlite, [shell("true"), says("Done.")])
    before = boxlite.run(recipe(boxlite, [says("Done.")], name="none.yaml"))
    spent = emulator.requests["POST /boxes/{box}/exec"]
    assert before.code == 0, before.err
    boxlite.write("cassette.yaml", {"cassette": 1, "turns": [shell("true"), says("Done.")]})
    assert boxlite.run(path).code == 0
    assert emulator.requests["POST /boxes/{box}/exec"] - spent == spent + 1
    assert emulator.requests["POST /boxes"] == 2
    assert emulator.requests["DELETE /boxes/{box}"] == 2


def test_the_image_of_the_environment(boxlite: CommandLine, emulator: Emulator) -> None:
    path = recipe(boxlite, [says("Done.")])
    assert boxlite.run(path, BOXLITE_IMAGE="ghcr.io/owner/tool:1").code == 0
    asked = dict(emulator.bodies)["POST /boxes"]
    assert isinstance(asked, dict)
    assert asked["image"] == "ghcr.io/owner/tool:1"


def test_a_box_that_is_kept_and_taken_up_again(boxlite: CommandLine, emulator: Emulator) -> None:
    path = recipe(boxlite, [shell("echo kept > f"), says("Done.")], cleanup="never")
    assert boxlite.run(path).code == 0
    (box,) = emulator.boxes.values()
    assert box.status == "stopped"
    again = recipe(
        boxlite,
        [shell("cat f", expect={"ok": True, "contains": "kept"}), says("Done.")],
        backend={"type": "boxlite", "box": box.name},
        name="again.yaml",
    )
    assert boxlite.run(again).code == 0
    assert list(emulator.boxes.values()) == [box]


def test_a_prefix_and_a_key_of_another_name(cli: CommandLine) -> None:
    need(missing_packages("gnu"))
    with Emulator(key="other", prefix="team/one") as emulator:
        backend = {"type": "boxlite", "url": emulator.url, "path_prefix": "team/one"}
        path = recipe(cli, [says("Done.")], backend={**backend, "api_key_env": "BOX_KEY"})
        done = cli.run(path, BOX_KEY="other")
        assert done.code == 0, done.err
        missing = cli.run(path)
        assert missing.code == 3
        assert "BOX_KEY is not set" in missing.err


def test_a_key_that_is_refused(boxlite: CommandLine, emulator: Emulator) -> None:
    done = boxlite.run(recipe(boxlite, [says("Done.")]), BOXLITE_API_KEY="wrong-key-here")
    assert done.code == 3
    assert "refuses the key" in done.err
    assert "wrong-key-here" not in done.err
    assert emulator.boxes == {}


def test_a_server_that_is_down(boxlite: CommandLine, emulator: Emulator) -> None:
    emulator.run(emulator.die)
    done = boxlite.run(recipe(boxlite, [says("Done.")]))
    assert done.code == 3
    assert "cannot be reached" in done.err
    assert "backend.url" in done.err


def test_a_server_that_dies_in_the_middle(boxlite: CommandLine, emulator: Emulator) -> None:
    path = recipe(boxlite, [shell("touch here; sleep 300"), says("Done.")])
    with boxlite.start(path) as process:
        until(lambda: list(emulator.directory.glob("*/root/root/kimi-workdir/here")))
        emulator.run(emulator.die)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, err
    assert "is gone" in err


def test_a_box_that_vanishes_in_the_middle(boxlite: CommandLine, emulator: Emulator) -> None:
    path = recipe(boxlite, [shell("touch here; sleep 300"), says("Done.")])
    with boxlite.start(path) as process:
        until(lambda: list(emulator.directory.glob("*/root/root/kimi-workdir/here")))
        (box,) = emulator.boxes
        emulator.run(lambda: emulator.lose(box))
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, err


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("POST .*/start", status=500, code="engine_unavailable"), "start the box"),
        (Fault("POST .*/start", status=422, code="image_pull_failed"), "cannot be pulled"),
        (Fault("POST .*/boxes$", status=429, code="resource_exhausted"), "create the box"),
        (Fault("POST .*/boxes$", kind="reset", times=9), "reached"),
    ],
)
def test_starts_that_fail(
    boxlite: CommandLine, emulator: Emulator, fault: Fault, words: str
) -> None:
    emulator.faults.append(replace(fault))
    done = boxlite.run(recipe(boxlite, [says("Done.")]))
    assert done.code in (3, 4), done.err
    assert words in done.err
    assert emulator.boxes == {}


def test_secrets_do_not_travel_in_clear(cli: CommandLine) -> None:
    backend = {"type": "boxlite", "url": "http://boxlite.example"}
    done = cli.run(recipe(cli, [says("Done.")], backend=backend), BOXLITE_API_KEY="k" * 12)
    assert done.code == 2
    assert "in clear" in done.err
    assert "use https" in done.err


# -- on this machine


def _local(cli: CommandLine, home: Path, backend: dict[str, Any], **fields: Any) -> Done:
    """Run on this machine's own runtime, in a user's home of its own."""
    path = recipe(cli, [says("Done.")], backend={"type": "boxlite", **backend}, **fields)
    return cli.run(path, HOME=str(home), XDG_DATA_HOME=str(home / "share"))


def _processes(word: str) -> list[str]:
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = line.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in command:
            found.append(command)
    return found


def test_a_start_on_this_machine(cli: CommandLine, tmp_path: Path) -> None:
    """For real: where no micro-VM boots, the reason, the next step, and nothing left behind."""
    home = tmp_path / "home"
    home.mkdir()
    write_layout(cli.folder / "image", {"etc/hostname": b"box\n"})
    done = _local(cli, home, {"rootfs": "image", "memory": "256MiB", "cpus": 1})
    if kvm_fault():
        assert done.code == 3
    else:
        assert done.code == 4, done.err  # where one boots, the image has no shell
    assert "--backend local" in done.err or "the image has no" in done.err
    assert list(home.iterdir()) == []
    assert _processes(str(home)) == []


def test_a_home_that_is_in_use(cli: CommandLine, tmp_path: Path) -> None:
    if fault := kvm_fault():
        pytest.skip(f"the SDK's local runtime does not open: {fault[0]}")
    import boxlite  # type: ignore[import-untyped]

    home = tmp_path / "boxes"
    other = boxlite.Boxlite(boxlite.Options(home_dir=str(home)))
    done = _local(cli, tmp_path, {"home": str(home)})
    assert done.code == 3, done.err
    assert f"the BoxLite home {home} is used by another process" in done.err
    assert "backend.home" in done.err
    assert home.exists()
    del other


class _Registry(BaseHTTPRequestHandler):
    """A registry that knows no image, and notes who asks for what."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization", "")))
        if "Authorization" not in self.headers:
            self._answer(401, ("WWW-Authenticate", 'Basic realm="test"'))
        elif self.path.rstrip("/") == "/v2":
            self._answer(200)
        else:
            self._answer(404)

    do_HEAD = do_GET

    def _answer(self, status: int, *headers: tuple[str, str]) -> None:
        body = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry() -> Iterator[Any]:
    """A registry on loopback, in plain HTTP."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Registry) as server:
        noting: Any = server
        noting.asked = []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield noting
        server.shutdown()
        thread.join()


def test_image_and_credentials_reach_the_pull(
    cli: CommandLine, tmp_path: Path, registry: Any
) -> None:
    if fault := kvm_fault():
        pytest.skip(f"the SDK's local runtime does not open: {fault[0]}")
    host = f"127.0.0.1:{registry.server_address[1]}"
    credentials = {"username": "puller", "password_env": "PULL_PASSWORD"}
    cli.environ["PULL_PASSWORD"] = "open-sesame-42"
    done = _local(
        cli,
        tmp_path / "home",
        {"registries": [{"host": host, "plain_http": True, **credentials}]},
        image=f"{host}/team/tool:1.2",
    )
    assert done.code == 4, done.err
    assert "the image cannot be pulled" in done.err
    assert "backend.rootfs" in done.err
    assert "open-sesame-42" not in done.err
    expected = "Basic " + base64.b64encode(b"puller:open-sesame-42").decode()
    assert ("/v2/team/tool/manifests/1.2", expected) in registry.asked
    assert not (tmp_path / "home/.boxlite").exists()
