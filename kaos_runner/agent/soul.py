"""The SDK's agent loop, with prompts taken literally, and the subagents that it starts.

The SDK makes the tool from the agent file and fills `__init__` by its annotations, so these stay
real objects.
"""

import asyncio

from kimi_cli.soul import run_soul, wire_send
from kimi_cli.soul.agent import Agent, Runtime
from kimi_cli.soul.context import Context
from kimi_cli.soul.kimisoul import KimiSoul
from kimi_cli.soul.toolset import get_current_tool_call_or_none
from kimi_cli.tools.multiagent.task import Task as SdkTask
from kimi_cli.wire import Wire
from kimi_cli.wire.types import ContentPart, TurnBegin, TurnEnd
from kosong.message import Message
from kosong.tooling import ToolError, ToolOk, ToolReturnValue

from kaos_runner.agent.journal import conversation
from kaos_runner.agent.processes import settled
from kaos_runner.agent.tools import Wrapped


class LiteralSoul(KimiSoul):
    """Runs a turn for any text: the SDK takes one that begins with `/` for a command of its own."""

    async def run(self, user_input: str | list[ContentPart]) -> None:
        """Give the text to the model as it is."""
        wire_send(TurnBegin(user_input=user_input))
        await self._turn(Message(role="user", content=user_input))
        wire_send(TurnEnd())


class Task(Wrapped, SdkTask):
    """Has a subagent do a task; one prompt, one answer.

    The SDK's own orphans the subagent when it is cancelled, and asks again when the answer is
    short.
    """

    recipe_name = "task"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.bind()

    async def _run_subagent(self, agent: Agent, prompt: str) -> ToolReturnValue:
        context = Context(file_backend=await self._get_subagent_context_file())
        stop = asyncio.Event()
        current = get_current_tool_call_or_none()
        assert current is not None  # the toolset sets it around every call
        conversation.set(current.id)  # in this call's own task
        soul = LiteralSoul(agent, context=context)
        running = asyncio.create_task(run_soul(soul, prompt, _unwatched, stop))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await settled(running)
            raise
        except Exception as error:
            # The SDK would make it a tool error, and the agent go on with a provider that is gone.
            self.binding.failed(error)
            raise
        last = context.history[-1] if context.history else None
        if last is None or last.role != "assistant":
            return ToolError(message="The subagent gave no answer.", brief="No answer")
        return ToolOk(output=last.extract_text("\n") or "(the subagent said nothing)")


async def _unwatched(_wire: Wire) -> None:
    """Nobody reads a subagent's wire: its events come from the model and from the tools."""
