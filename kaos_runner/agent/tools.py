"""The SDK's own tools, each call in our wrapper.

The SDK makes them from the agent file and fills `__init__` by the annotations of the class itself,
so these stay real objects (no postponed evaluation here).
"""

import codecs
from collections.abc import Callable
from typing import Any, ClassVar

from kaos.path import KaosPath
from kimi_cli.soul.agent import BuiltinSystemPromptArgs, Runtime
from kimi_cli.soul.approval import Approval
from kimi_cli.tools.file.glob import Glob as SdkGlob
from kimi_cli.tools.file.read import ReadFile as SdkReadFile
from kimi_cli.tools.file.replace import StrReplaceFile as SdkStrReplaceFile
from kimi_cli.tools.file.write import WriteFile as SdkWriteFile
from kimi_cli.tools.shell import Params as ShellParams
from kimi_cli.tools.shell import Shell as SdkShell
from kimi_cli.tools.todo import SetTodoList as SdkSetTodoList
from kimi_cli.tools.utils import ToolResultBuilder
from kimi_cli.utils.environment import Environment
from kosong.tooling import CallableTool2, ToolError, ToolReturnValue
from kosong.utils.typing import JsonType

from kaos_runner.agent import processes
from kaos_runner.agent.binding import stays_inside, taken


class Wrapped(CallableTool2[Any]):
    """Puts the session's wrapper around `call`, validation of the arguments included."""

    recipe_name: ClassVar[str]

    def bind(self) -> None:
        """Take the binding of the session that is being made."""
        self.binding = taken()

    async def call(self, arguments: JsonType) -> ToolReturnValue:
        """Run inside the wrapper."""
        return await self.binding.run(self.recipe_name, arguments, super().call)


class Shell(Wrapped, SdkShell):
    """Runs a command in the sandbox's shell, with an empty stdin."""

    recipe_name = "shell"

    def __init__(self) -> None:
        self.bind()
        facts = self.binding.facts
        shell = Environment(
            os_kind=facts.system,
            os_arch=facts.machine,
            os_version="",
            shell_name="bash" if facts.shell_name == "bash" else "sh",
            shell_path=KaosPath(facts.shell),
        )
        super().__init__(Approval(yolo=True), shell)

    async def __call__(self, params: ShellParams) -> ToolReturnValue:
        """Run the command; its two streams come interleaved by line."""
        if not params.command:
            return ToolError(message="Command cannot be empty.", brief="Empty command")
        builder = ToolResultBuilder()
        mask = self.binding.spec.mask
        # Masked before the builder cuts long lines: half a secret would pass.
        streams = [_Lines(builder, mask), _Lines(builder, mask)]
        argv = (self.binding.facts.shell, "-c", params.command)
        try:
            code = await processes.stream(
                self.binding.kaos, argv, streams[0].feed, streams[1].feed, timeout=params.timeout
            )
        except TimeoutError:
            _close(streams)
            message = f"Command killed by timeout ({params.timeout}s)"
            return builder.error(message, brief=message)
        _close(streams)
        if code == 0:
            return builder.ok("Command executed successfully.")
        message = f"Command failed with exit code: {code}."
        return builder.error(message, brief=f"Failed with exit code: {code}")


class _Lines:
    """Bytes in, masked lines out."""

    def __init__(self, builder: ToolResultBuilder, mask: Callable[[str], str]) -> None:
        self._builder = builder
        self._mask = mask
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def feed(self, chunk: bytes, *, final: bool = False) -> None:
        text = self._rest + self._decode(chunk, final)
        end = len(text) if final else text.rfind("\n") + 1
        self._rest = text[end:]
        if end:
            self._builder.write(self._mask(text[:end]))


def _close(streams: list[_Lines]) -> None:
    for lines in streams:
        lines.feed(b"", final=True)


class ReadFile(Wrapped, SdkReadFile):
    """Reads a text file of the sandbox."""

    recipe_name = "read"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.bind()


class WriteFile(Wrapped, SdkWriteFile):
    """Writes a file of the sandbox."""

    recipe_name = "write"

    def __init__(self, builtin_args: BuiltinSystemPromptArgs) -> None:
        super().__init__(builtin_args, Approval(yolo=True))
        self.bind()


class StrReplaceFile(Wrapped, SdkStrReplaceFile):
    """Edits a file of the sandbox."""

    recipe_name = "edit"

    def __init__(self, builtin_args: BuiltinSystemPromptArgs) -> None:
        super().__init__(builtin_args, Approval(yolo=True))
        self.bind()


class Glob(Wrapped, SdkGlob):
    """Finds files in the workdir."""

    recipe_name = "glob"

    def __init__(self, builtin_args: BuiltinSystemPromptArgs) -> None:
        super().__init__(builtin_args)
        self.bind()

    async def _validate_pattern(self, pattern: str) -> ToolError | None:
        # The SDK checks the directory only, and so lets `../../*` out of the workdir.
        if not stays_inside(pattern):
            return ToolError(
                message=f"Pattern `{pattern}` leaves the working directory.",
                brief="Pattern outside working directory",
            )
        return await super()._validate_pattern(pattern)


class SetTodoList(Wrapped, SdkSetTodoList):
    """Keeps the agent's list of things to do."""

    recipe_name = "todo"

    def __init__(self) -> None:
        super().__init__()
        self.bind()
