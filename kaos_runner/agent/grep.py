"""Grep inside the sandbox. The SDK's own runs ripgrep on the host, and is never made.

The SDK fills `__init__` by its annotations, so these stay real objects.
"""

import itertools
import re
import shlex
from typing import Literal

from kimi_cli.tools.utils import ToolResultBuilder
from kosong.tooling import CallableTool2, ToolError, ToolReturnValue
from pydantic import BaseModel, ConfigDict, Field

from kaos_runner.agent import processes
from kaos_runner.agent.approvals import normalised
from kaos_runner.agent.tools import Wrapped

TIMEOUT = 60.0
_TYPES = {
    "c": ("*.c", "*.h"),
    "cpp": ("*.cpp", "*.cc", "*.cxx", "*.hpp", "*.hh", "*.h"),
    "css": ("*.css", "*.scss"),
    "go": ("*.go",),
    "html": ("*.htm", "*.html"),
    "java": ("*.java",),
    "js": ("*.js", "*.jsx", "*.mjs", "*.cjs"),
    "json": ("*.json",),
    "md": ("*.md", "*.markdown"),
    "py": ("*.py", "*.pyi"),
    "rust": ("*.rs",),
    "sh": ("*.sh", "*.bash"),
    "toml": ("*.toml",),
    "ts": ("*.ts", "*.tsx", "*.mts", "*.cts"),
    "yaml": ("*.yaml", "*.yml"),
}
"""File types where there is no ripgrep that knows them."""


class Params(BaseModel):
    """The same names and meanings as the SDK's Grep, which models know."""

    model_config = ConfigDict(populate_by_name=True)

    pattern: str = Field(description="The regular expression to search for in file contents.")
    path: str = Field(
        default=".",
        description="File or directory to search in. Defaults to the working directory.",
    )
    glob: str | None = Field(
        default=None, description="Only files of this name, e.g. `*.js` or `*.{ts,tsx}`."
    )
    output_mode: Literal["content", "files_with_matches", "count_matches"] = Field(
        default="files_with_matches",
        description=(
            "`content`: matching lines (supports `-B`, `-A`, `-C`, `-n`); `files_with_matches`: "
            "file paths; `count_matches`: the number of matching lines of each file."
        ),
    )
    before_context: int | None = Field(
        default=None, alias="-B", ge=0, description="Lines to show before each match (`content`)."
    )
    after_context: int | None = Field(
        default=None, alias="-A", ge=0, description="Lines to show after each match (`content`)."
    )
    context: int | None = Field(
        default=None, alias="-C", ge=0, description="Lines to show around each match (`content`)."
    )
    line_number: bool = Field(
        default=False, alias="-n", description="Show line numbers (`content`)."
    )
    ignore_case: bool = Field(default=False, alias="-i", description="Ignore case.")
    type: str | None = Field(
        default=None, description="Only files of this type: py, rust, js, ts, go, java, md, …"
    )
    head_limit: int | None = Field(
        default=None, ge=1, description="Only the first N lines of output. No limit by default."
    )
    multiline: bool = Field(
        default=False, description="Let `.` match line ends and patterns span lines."
    )


class Grep(Wrapped, CallableTool2[Params]):
    """Searches file contents in the sandbox: ripgrep where it is installed, else find and grep."""

    recipe_name = "grep"
    name: str = "Grep"
    description: str = (
        "Search file contents with a regular expression. Prefer it to grep or find in the shell: "
        "it skips hidden files, and its output is bounded."
    )
    params: type[Params] = Params

    def __init__(self) -> None:
        super().__init__()
        self.bind()

    async def __call__(self, params: Params) -> ToolReturnValue:
        """Search in one operation."""
        spec = self.binding.spec
        path = normalised(params.path, spec.workdir, str(self.binding.kaos.gethome()))
        try:
            output = await processes.run(
                self.binding.kaos, "/bin/sh", "-c", script(params, path), timeout=TIMEOUT
            )
        except TimeoutError:
            return ToolError(message="Grep took longer than 60 s.", brief="Killed by timeout")
        return _result(params, output, spec.workdir.rstrip("/") + "/")


def _result(params: Params, output: processes.Output, workdir: str) -> ToolReturnValue:
    said = output.stderr.decode("utf-8", "replace").strip()
    lines = output.stdout.decode("utf-8", "replace").splitlines()
    if params.output_mode == "count_matches":
        lines = [line for line in lines if not line.endswith(":0")]
    if not lines:
        if said:
            return ToolError(
                message=f"Failed to grep. Error: {said[:2000]}", brief="Failed to grep"
            )
        return ToolResultBuilder().ok("No matches found")
    lines = [line.removeprefix(workdir) for line in lines]
    builder, message = ToolResultBuilder(), ""
    if params.head_limit is not None and len(lines) > params.head_limit:
        message = f"Results truncated to first {params.head_limit} lines"
        lines = lines[: params.head_limit]
    builder.write("\n".join(lines) + "\n")
    return builder.ok(message)


def script(params: Params, path: str) -> str:
    """The search as one script for POSIX sh; `path` is absolute."""
    ripgrep = shlex.join(["rg", *_ripgrep(params), "--", path])
    absent = shlex.quote(f"{path}: no such file or directory")
    return f"""
if command -v rg >/dev/null 2>&1; then exec {ripgrep}; fi
if [ ! -e {shlex.quote(path)} ]; then echo {absent} >&2; exit 2; fi
{_fallback(params, path)}
"""


def _ripgrep(params: Params) -> list[str]:
    words = ["--color=never", "--no-config", "--no-heading", "--with-filename", "--sort=path"]
    words += ["--ignore-case"] if params.ignore_case else []
    words += ["--multiline", "--multiline-dotall"] if params.multiline else []
    words += [f"--glob={params.glob}"] if params.glob else []
    words += [f"--type={params.type}"] if params.type else []
    if params.output_mode == "content":
        words.append("--line-number" if params.line_number else "--no-line-number")
        words += _around(params)
    elif params.output_mode == "count_matches":
        words.append("--count")
    else:
        words.append("--files-with-matches")
    return [*words, f"--regexp={params.pattern}"]


def _around(params: Params) -> list[str]:
    pairs = (("-B", params.before_context), ("-A", params.after_context), ("-C", params.context))
    return [word for flag, n in pairs if n is not None for word in (flag, str(n))]


def _fallback(params: Params, path: str) -> str:
    if params.multiline:
        return "echo 'multiline needs ripgrep, which this sandbox does not have' >&2; exit 2"
    words = ["grep", "-H", "-E", *(["-i"] if params.ignore_case else [])]
    if params.output_mode == "content":
        words += [*(["-n"] if params.line_number else []), *_around(params)]
    else:
        words.append("-c" if params.output_mode == "count_matches" else "-l")
    words += ["-e", _extended(params.pattern)]
    hidden = path.rpartition("/")[2].startswith(".")
    prune = [] if hidden else ["(", "-name", ".?*", "-prune", ")", "-o"]
    find = ["find", path, *prune, "-type", "f", *_names(params), "-exec", *words, "{}", "+"]
    return shlex.join(find) + " | sort -s -t : -k 1,1" * (params.output_mode != "content")


def _names(params: Params) -> list[str]:
    groups = [_expanded(params.glob)] if params.glob else []
    if params.type:
        groups.append(list(_TYPES.get(params.type, (f"*.{params.type}",))))
    words: list[str] = []
    for patterns in groups:
        tests = [["-name", pattern.rpartition("/")[2]] for pattern in patterns]
        joined = itertools.chain.from_iterable(
            (["-o"] if i else []) + t for i, t in enumerate(tests)
        )
        words += ["(", *joined, ")"]
    return words


def _expanded(glob: str) -> list[str]:
    """`*.{ts,tsx}` as two globs; find knows no braces."""
    match = re.fullmatch(r"([^{}]*)\{([^{}]*)\}([^{}]*)", glob)
    if match is None:
        return [glob]
    before, inside, after = match.groups()
    return [before + part + after for part in inside.split(",")]


def _extended(pattern: str) -> str:
    """A pattern for grep -E: the few escapes of newer dialects that models use most."""
    classes = {"d": "[0-9]", "D": "[^0-9]", "s": "[[:space:]]", "S": "[^[:space:]]"}
    return re.sub(
        r"\\(.)", lambda m: classes.get(m[1], m[0]), pattern.replace("(?:", "("), flags=re.DOTALL
    )
