"""The run directory: what a run leaves behind, whatever happens.

<run-dir>/.gitignore
<run-dir>/runs/<run id>/recipe.yaml      as written
                        rendered.yaml    masked
                        events.jsonl  transcript.md      (sinks/record.py)
                        result.json      written atomically, first as not finished
                        artifacts/
                        session/         0700: the agent's context, for `resume`; sensitive
"""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.errors import UsageError
from kaos_runner.result import Result, absorb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner.events import Record


def new_run_id() -> str:
    """A run id that sorts by time: `20261123-085959-4f3a2c`, in UTC."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One run's directory."""

    path: Path

    @property
    def run_id(self) -> str:
        """The name of the directory is the id of the run."""
        return self.path.name

    @property
    def artifacts(self) -> Path:
        """Where artifacts come home to."""
        return self.path / "artifacts"

    @property
    def session(self) -> Path:
        """The agent's context: sensitive, for `resume`."""
        return self.path / "session"

    @property
    def result_file(self) -> Path:
        """The run's `result.json`."""
        return self.path / "result.json"

    @classmethod
    def create(cls, folder: Path, run_id: str) -> RunDirectory:
        """Make the directory of a new run below `folder`, which git is told to ignore.

        Raises:
            UsageError: it cannot be made there.
        """
        made = cls(folder.resolve() / "runs" / run_id)
        try:
            made.path.parent.mkdir(parents=True, exist_ok=True)
            made.path.mkdir(mode=0o700)
            made.artifacts.mkdir()
            made.session.mkdir(mode=0o700)
            ignore = folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            msg = f"cannot make the run's directory {made.path}: {error.strerror}"
            raise UsageError(msg, hint="name a writable folder with --run-dir") from error
        return made

    @classmethod
    def find(cls, folder: Path, run: str) -> RunDirectory:
        """The recorded run with this id, a unique beginning of it, or `last`.

        Raises:
            UsageError: there is none, or more than one.
        """
        known = list(cls.all(folder))
        found = known[-1:] if run == "last" else [k for k in known if k.run_id.startswith(run)]
        if len(found) == 1:
            return found[0]
        what = "no recorded run" if not found else f"{len(found)} recorded runs"
        msg = f"{what} below {folder / 'runs'} for {run!r}"
        raise UsageError(msg, hint="see `kaos-runner runs`, and --run-dir")

    @classmethod
    def all(cls, folder: Path) -> Iterator[RunDirectory]:
        """Every recorded run, oldest first."""
        runs = folder / "runs"
        for path in sorted(runs.iterdir()) if runs.is_dir() else []:
            if path.is_dir():
                yield cls(path.resolve())

    def write(self, name: str, text: str) -> None:
        """Write one file of the record, atomically, readable by the user only."""
        handle, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}.")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(self.path / name)

    def records(self) -> Iterator[Record]:
        """The run's events as they were told; a line that is cut short ends them."""
        from kaos_runner.events import Record

        try:
            lines = (self.path / "events.jsonl").read_bytes().split(b"\n")
        except OSError:
            return
        for line in lines:
            try:
                yield Record.model_validate_json(line)
            except ValueError:
                return

    def result(self) -> Result:
        """The run's result.

        Raises:
            UsageError: it is missing or damaged.
        """
        try:
            return Result.model_validate_json(self.result_file.read_bytes())
        except (OSError, ValueError) as error:
            msg = f"the record of run {self.run_id} has no readable result.json"
            raise UsageError(msg) from error


class ResultSink:
    """Keeps `result.json` true: written at the start as not finished, then at the end."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self.result = Result(run_id=directory.run_id)

    def handle(self, record: Record) -> None:
        """Take a record in, and write at the turning points."""
        absorb(self.result, record)
        if record.event.type in {"run_started", "sandbox_ready", "sandbox_ended", "run_finished"}:
            self.close()

    def close(self) -> None:
        """Write what is known."""
        self._directory.write("result.json", self.result.model_dump_json(by_alias=True, indent=2))
