"""Canaries: secrets of every kind go through a whole run, and show where they may and nowhere
else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.unit.agent.upstream import Reply, Upstream, call, scripted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import CommandLine, Done

DECLARED = "canary-declared/7f3a+q=="
PROVIDER = "sk-canary-provider-91bd"
AMBIENT = "canary-ambient-host-55aa"
BACKEND = "e2b_canary_backend_key_0c1d"
PARAM = "canary-param-is-no-secret"

SPREAD = (
    'echo "$DEPLOY_KEY"; echo "$DEPLOY_KEY" >&2; printf %s "$DEPLOY_KEY" | base64; '
    'printf "x%s" "$DEPLOY_KEY" | base64; printf %s "$DEPLOY_KEY" | od -An -tx1 | tr -d " \\n"; '
    'printf %s "$DEPLOY_KEY" | sha256sum; env; cat /proc/*/environ 2>/dev/null | tr "\\0" "\\n"; '
    'echo "$DEPLOY_KEY" > leak.txt; echo fine > report.txt; '
    'printf %s "$DEPLOY_KEY" | base64 > coded.txt'
)


def forms(value: str) -> Iterator[str]:
    """Every form under which a canary would be a leak."""
    raw = value.encode()
    yield value
    yield quote(value, safe="")
    yield json.dumps(value)[1:-1]
    yield raw.hex()
    yield base64.b64encode(raw).decode().rstrip("=")[:-1]
    yield base64.b64encode(b"x" + raw).decode()[2:-4]


def leaks(text: str, *values: str) -> list[str]:
    return [form for value in values for form in forms(value) if form in text]


def everything_below(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes().decode("utf-8", "replace")


async def run_with_model(cli: CommandLine, *arguments: str) -> tuple[Done, Upstream, str]:
    """Run the recipe against a scripted provider; also gives what the host's process list
    showed."""
    from tests.cli.conftest import Done

    replies = [
        Reply(text="I look around.", calls=(call("Shell", command=SPREAD),)),
        Reply(text=["I know it: ", DECLARED[:9], DECLARED[9:], " and I say it."]),
        Reply(text=f"In full: {DECLARED} {quote(DECLARED, safe='')}"),
    ]
    async with scripted(replies) as upstream:
        environ = {
            **cli.environ,
            "KIMI_API_KEY": PROVIDER,
            "KIMI_BASE_URL": upstream.url,
            "DEPLOY_KEY": DECLARED,
            "SOME_HOST_TOKEN": AMBIENT,
            "E2B_API_KEY": BACKEND,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kaos_runner", "recipe.yaml", *arguments,
            cwd=cli.folder, env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        watching = asyncio.ensure_future(asyncio.to_thread(_command_lines, process.pid))
        out, err = await process.communicate()
        assert process.returncode is not None
        seen = await watching
        return Done(process.returncode, out.decode(), err.decode(), cli.folder), upstream, seen


def _command_lines(pid: int) -> str:
    """Every command line that the host shows while the process lives."""
    seen = set()
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.add(path.read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue
    return "\n".join(seen)


@pytest.fixture
def recipe(cli: CommandLine) -> CommandLine:
    digest = hashlib.sha256(DECLARED.encode()).hexdigest()
    cli.recipe(
        None,
        params={"note": {"type": "string"}},
        secrets=["DEPLOY_KEY"],
        agent={"model": "scripted"},
        prompts=[
            "Look. {{ params.note }}",
            {
                "text": "Say it again.",
                "checks": [
                    # Proves that the sandbox has it, without saying it.
                    {"run": f'test "$(printf %s "$DEPLOY_KEY" | sha256sum)" = "{digest}  -"'},
                    {"run": 'test -z "$KIMI_API_KEY$SOME_HOST_TOKEN$E2B_API_KEY"'},
                ],
            },
        ],
        checks=[{"run": 'echo "$DEPLOY_KEY"; exit 3', "name": "tells the secret"}],
        artifacts=[{"path": "report.txt"}, {"path": "leak.txt"}, {"path": "coded.txt"}],
    )
    return cli


@pytest.mark.parametrize("output", ["text", "json", "stream-json", "github"])
def test_canaries_show_where_they_may_and_nowhere_else(recipe: CommandLine, output: str) -> None:
    done, upstream, command_lines = asyncio.run(
        run_with_model(
            recipe, "-p", f"note={PARAM}", "--record", "tape.yaml", "--output", output, "-vv"
        )
    )

    assert done.code == 1, done.err
    failed = [check["name"] for check in done.result["checks"] if not check["ok"]]
    assert failed == ["tells the secret"], done.result["checks"]
    kept_in = (DECLARED, PROVIDER, AMBIENT, BACKEND)
    assert leaks(done.out + done.err, *kept_in) == []
    for path, text in everything_below(recipe.folder):
        if path.name == "context.jsonl":  # the conversation, private: what the model itself said
            text = "".join(line for line in text.splitlines() if '"role":"assistant"' not in line)
        assert leaks(text, *kept_in) == [], path
    assert leaks(command_lines, *kept_in) == []
    # The model never saw it in a tool's result; what it said itself comes back to it as it said it.
    tool_results = [
        str(message["content"])
        for request in upstream.requests
        for message in request["messages"]
        if message["role"] == "tool"
    ]
    assert tool_results
    assert leaks("".join(tool_results), *kept_in) == []
    assert all(h["Authorization"] == f"Bearer {PROVIDER}" for h in upstream.headers)
    assert PARAM in (done.run_dir / "events.jsonl").read_text()


def test_an_artifact_with_a_secret_is_withheld(recipe: CommandLine) -> None:
    done, _, _ = asyncio.run(run_with_model(recipe, "-p", f"note={PARAM}"))

    artifacts = {a["name"]: a for a in done.result["artifacts"]}
    assert artifacts["report.txt"]["ok"]
    assert not artifacts["leak.txt"]["ok"]
    assert not artifacts["coded.txt"]["ok"]
    assert [p.name for p in (done.run_dir / "artifacts").iterdir()] == ["report.txt"]
