"""The wrapper around every tool call: approvals, the mask, and the sandbox that it is bound to."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.agent import ApprovalQuestion, open_session
from kaos_runner.agent.approvals import first_match, normalised, subject
from kaos_runner.recipe.model import Agent, ApprovalRule
from tests.unit.agent.upstream import Reply, call, scripted

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.unit.agent.conftest import Desk


def rules(*written: dict[str, str]) -> Agent:
    return Agent.model_validate({"approvals": list(written)})


def run(desk: Desk, replies: list[Reply], **given: Any) -> list[dict[str, Any]]:
    """One turn; what was sent to the model."""

    async def main() -> list[dict[str, Any]]:
        async with scripted(replies) as upstream:
            async with open_session(desk.spec(provider=upstream.provider, **given)) as session:
                await session.turn("go")
            return upstream.requests

    return asyncio.run(main())


def test_a_denial_is_a_tool_error_and_the_turn_goes_on(desk: Desk) -> None:
    agent = rules({"tool": "shell", "match": "rm *", "action": "deny"})
    calls = (call("Shell", command="rm -rf x"), call("Shell", command="echo ok > y"))
    (desk.root / "x").touch()
    requests = run(desk, [Reply(calls=calls), Reply(text="done")], agent=agent)
    assert (desk.root / "x").exists()
    assert (desk.root / "y").exists()
    assert desk.results()[1][0] is False
    assert "Denied by the approval rule `deny shell rm *`" in str(requests[1]["messages"])
    (approval,) = desk.of("approval")
    assert (approval.call, approval.tool, approval.decision, approval.by) == (
        1, "shell", "deny", "rule",
    )  # fmt: skip


def test_a_subagent_is_under_the_same_rules(desk: Desk) -> None:
    agent = rules({"action": "deny", "tool": "write"})
    task = call("Task", description="d", subagent_name="coder", prompt="p")
    write = call("WriteFile", path="a.txt", content="x")
    replies = [Reply(calls=(task,)), Reply(calls=(write,)), Reply(text="sub"), Reply(text="done")]
    run(desk, replies, agent=agent)
    assert list(desk.root.iterdir()) == []
    assert [e.decision for e in desk.of("approval")] == ["deny"]


def test_every_call_can_be_denied(desk: Desk) -> None:
    (desk.root / "a.txt").write_text("x")
    calls = (
        call("Shell", command="touch b"),
        call("ReadFile", path="a.txt"),
        call("WriteFile", path="b", content=""),
        call("StrReplaceFile", path="a.txt", edit={"old": "x", "new": "y"}),
        call("Glob", pattern="*"),
        call("Grep", pattern="x"),
        call("SetTodoList", todos=[]),
        call("Task", description="d", subagent_name="coder", prompt="p"),
    )

    async def main() -> None:
        async with scripted([Reply(calls=calls), Reply(text="done")]) as upstream:
            spec = desk.spec(provider=upstream.provider, agent=rules({"action": "deny"}))
            async with open_session(spec) as session:
                before = len(desk.transport.ran)
                await session.turn("go")
                assert len(desk.transport.ran) == before

    asyncio.run(main())
    assert [ok for ok, _ in desk.results().values()] == [False] * len(calls)


@pytest.mark.parametrize("answer", [True, False, None])
def test_a_person_is_asked_one_question_at_a_time(desk: Desk, answer: bool | None) -> None:
    asked: list[ApprovalQuestion] = []
    open_questions = 0

    async def ask(question: ApprovalQuestion) -> bool:
        nonlocal open_questions
        open_questions += 1
        assert open_questions == 1
        asked.append(question)
        await asyncio.sleep(0.01)
        open_questions -= 1
        return bool(answer)

    calls = (call("Shell", command="echo 1 > one"), call("Shell", command="echo 2 > two"))
    run(
        desk,
        [Reply(calls=calls), Reply(text="done")],
        agent=rules({"action": "ask", "tool": "shell"}),
        ask=None if answer is None else ask,
    )
    assert len(list(desk.root.iterdir())) == (2 if answer else 0)
    assert [q.subject for q in asked] == (
        [] if answer is None else ["echo 1 > one", "echo 2 > two"]
    )
    by = "no_terminal" if answer is None else "person"
    assert {e.by for e in desk.of("approval")} == {by}


@pytest.mark.parametrize(
    ("path", "denied"),
    [
        ("secrets/key", True),
        ("./a/../secrets/key", True),
        ("/w/secrets/key", True),
        ("/w/secrets/deep/key", True),
        ("secret", False),
        ("../elsewhere", True),
        ("/etc/passwd", True),
        ("//etc/passwd", True),
        ("//w/secrets/key", True),
        ("~/x", True),
        ("src/../../etc/passwd", True),
        ("src/main.py", False),
    ],
)
def test_paths_are_normalised_before_a_rule_sees_them(path: str, denied: bool) -> None:
    given = [
        ApprovalRule(tool="write", match="secrets/*", action="deny"),
        ApprovalRule(tool="write", match="/w/*", action="allow"),
        ApprovalRule(action="deny"),
    ]
    about = subject("write", {"path": path}, "/w", "/home/me")
    rule = first_match(given, "write", about, "/w")
    assert rule is not None
    assert (rule.action == "deny") is denied
    assert normalised("~", "/w", "/home/me") == "/home/me"


def test_what_no_rule_matches_is_allowed() -> None:
    rule = ApprovalRule(tool="shell", match="rm *", action="deny")
    assert first_match([rule], "shell", "ls\nrm x", "/w") is None
    assert first_match([rule], "shell", "rm x\nls", "/w") is rule
    assert first_match([rule], "write", "/w/rm x", "/w") is None


def test_a_result_is_masked_before_anyone_sees_it(desk: Desk) -> None:
    secret = "hunter22secret"
    (desk.root / "s.txt").write_text(f"a {secret} b\n" + "x" * 1975 + secret + "y" * 99 + "\n")
    calls = (
        call("Shell", command="cat s.txt; exit 3"),
        call("ReadFile", path="s.txt"),
        call("Grep", pattern="hunter", output_mode="content"),
        call("Shell", command=f"printf 'hunter22'; sleep 0.1; printf 'secret'; cat {secret}"),
        call("ReadFile", path=secret),
    )
    requests = run(
        desk,
        [Reply(calls=calls), Reply(text=["hunter22", "secret"])],
        mask=lambda text: re.sub(secret, "***", text),
    )
    results = [m for m in requests[1]["messages"] if m["role"] == "tool"]
    assert len(results) == 5
    assert secret not in str(results)
    assert "hunter22s" not in str(results)
    assert secret not in str(desk.of("tool_result"))
    assert "***" in desk.results()[1][1]


def test_text_that_comes_in_pieces_is_one_event(desk: Desk) -> None:
    run(desk, [Reply(text=["hun", "ter", "22"], think="a")])
    assert [e.text for e in desk.of("text")] == ["hunter22"]


def test_the_host_s_environment_never_reaches_the_sandbox(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUMMY_HOST_VALUE", "of-the-host")
    task = call("Task", description="d", subagent_name="coder", prompt="p")
    dump = call("Shell", command="env")
    replies = [
        Reply(calls=(dump, task)),
        Reply(calls=(dump,)),
        Reply(text="sub"),
        Reply(text="done"),
    ]
    run(desk, replies)
    outputs = [output for _, output in desk.results().values()]
    assert sum("HOME=" in output for output in outputs) == 2
    assert not any("of-the-host" in output for output in outputs)


def test_a_glob_stays_in_the_workdir(desk: Desk) -> None:
    (desk.home / "outside.txt").touch()
    calls = tuple(call("Glob", pattern=p) for p in ("../*", "x/../../*", "/etc/*", ""))
    run(desk, [Reply(calls=calls), Reply(text="done")])
    assert [ok for ok, _ in desk.results().values()] == [False] * 4
    assert "outside" not in str(desk.results())


def test_a_tool_without_a_session_cannot_be_made() -> None:
    from kaos_runner.agent.preload import preload
    from kaos_runner.errors import AgentError

    asyncio.run(preload())
    from kaos_runner.agent.tools import Shell

    with pytest.raises(AgentError, match="outside a session"):
        Shell()


def test_what_is_not_bound_reaches_nothing(desk: Desk) -> None:
    """The SDK itself, a tool that we forgot, anything: it sees a Kaos that refuses."""

    async def main() -> None:
        import kaos

        from kaos_runner.agent.closed import ClosedKaos, bound

        with bound(ClosedKaos(desk.kaos, str(desk.root))):
            with pytest.raises(PermissionError):
                await kaos.exec("touch", "x")
            operations: list[Awaitable[object]] = [
                kaos.readbytes("a"),
                kaos.readtext("a"),
                kaos.writebytes("a", b""),
                kaos.writetext("a", ""),
                kaos.mkdir("a"),
            ]
            for operation in operations:
                with pytest.raises(PermissionError):
                    await operation
            with pytest.raises(FileNotFoundError):
                await kaos.stat("/")
            with pytest.raises(PermissionError):
                _ = [line async for line in kaos.readlines("a")]
            assert [e async for e in kaos.iterdir("/")] == []
            assert [e async for e in kaos.glob("/", "*")] == []
            assert str(kaos.getcwd()) == str(desk.root)

    asyncio.run(main())
