"""The ledger: which sandboxes this machine's runs asked for, written before they are.

A row is written as an intent before create, so that a run that is killed at any moment leaves a
trace that `reap`
finds. It is a SQLite file in the user's state directory
(`$XDG_STATE_HOME/kaos-runner/ledger.sqlite3`), shared by all
processes of the user.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kaos_runner.backends.base import Labels

State = Literal["intent", "live", "kept", "left", "deleted", "failed"]
"""`intent`: create was asked for. `live`: in use. The others say how the run left it."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS sandboxes (
    run_id TEXT PRIMARY KEY,
    recipe TEXT NOT NULL,
    digest TEXT NOT NULL,
    backend TEXT NOT NULL,
    sandbox_id TEXT,
    state TEXT NOT NULL CHECK (state IN ({", ".join(repr(s) for s in get_args(State))})),
    process TEXT NOT NULL,
    run_dir TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What the ledger knows about one run's sandbox."""

    run_id: str
    recipe: str
    digest: str
    backend: str
    sandbox_id: str | None
    state: State
    process: str
    run_dir: Path
    created_at: datetime
    updated_at: datetime

    @property
    def alive(self) -> bool:
        """Whether the process that wrote the row still runs (a reused pid does not count)."""
        pid, _, _start = self.process.partition("@")
        return self.process == _process(int(pid))


def state_dir(environ: Mapping[str, str]) -> Path:
    """The user's state directory for us: `$XDG_STATE_HOME/kaos-runner` or
    `~/.local/state/kaos-runner`."""
    base = environ.get("XDG_STATE_HOME")
    home = Path(environ.get("HOME") or Path.home())
    return (Path(base) if base else home / ".local" / "state") / "kaos-runner"


class Ledger:
    """The rows of one state directory; every write is committed before it returns."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ledger.sqlite3"

    def intend(self, labels: Labels, backend: str, run_dir: Path) -> None:
        """Write down that a sandbox is about to be asked for."""
        now = _now()
        row = (labels.run_id, labels.recipe, labels.digest, backend, None, "intent")
        self._write(
            "INSERT INTO sandboxes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, _process(os.getpid()), str(run_dir), now, now),
        )

    def live(self, run_id: str, sandbox_id: str) -> None:
        """Write down the id that the provider gave."""
        self._write(
            "UPDATE sandboxes SET sandbox_id = ?, state = 'live', updated_at = ? WHERE run_id = ?",
            (sandbox_id, _now(), run_id),
        )

    def ended(self, run_id: str, state: State) -> None:
        """Write down how the run left its sandbox."""
        self._write(
            "UPDATE sandboxes SET state = ?, updated_at = ? WHERE run_id = ?",
            (state, _now(), run_id),
        )

    def rows(self) -> Iterator[Row]:
        """Every row, oldest first; none where there is no ledger yet."""
        if not self._path.exists():
            return
        with closing(self._connect()) as db:
            for row in db.execute("SELECT * FROM sandboxes ORDER BY created_at"):
                values: list[Any] = list(row)
                values[7] = Path(values[7])
                values[8:] = [datetime.fromisoformat(text) for text in values[8:]]
                yield Row(*values)

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with closing(self._connect()) as db, db:
            db.execute(statement, values)

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        db = sqlite3.connect(self._path, timeout=30)
        db.execute(_SCHEMA)
        return db


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _process(pid: int) -> str:
    """`pid@start`: the start time tells a process from a later one with the same pid; empty when it
    is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else _process_without_proc(pid)
    return f"{pid}@{stat.rpartition(')')[2].split()[19]}"


def _process_without_proc(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return f"{pid}@"
