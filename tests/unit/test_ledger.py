"""The ledger's rows, and whether their process lives."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kaos_runner.backends.base import Labels
from kaos_runner.ledger import Ledger, state_dir


def labels(run_id: str) -> Labels:
    return Labels(run_id=run_id, recipe="r", digest="d", version="0")


def test_a_row_is_there_before_the_sandbox_is(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.intend(labels("one"), "local", tmp_path / "runs" / "one")

    (row,) = ledger.rows()

    assert (row.run_id, row.state, row.sandbox_id) == ("one", "intent", None)
    assert row.alive


def test_a_row_follows_its_sandbox(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.intend(labels("one"), "local", tmp_path)
    ledger.live("one", "sb-1")
    ledger.ended("one", "kept")

    (row,) = Ledger(tmp_path).rows()

    assert (row.state, row.sandbox_id) == ("kept", "sb-1")
    assert row.updated_at >= row.created_at


def test_a_row_of_a_killed_process_is_not_alive(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from kaos_runner.backends.base import Labels; from kaos_runner.ledger import Ledger\n"
        "Ledger(Path(sys.argv[1])).intend("
        "Labels(run_id='x', recipe='r', digest='d', version='0'), 'local', Path('.'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9

    (row,) = Ledger(tmp_path).rows()

    assert not row.alive


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: Ledger(tmp_path).intend(labels(f"run-{n}"), "local", tmp_path), range(40)
            )
        )
    assert len(list(Ledger(tmp_path).rows())) == 40


def test_no_ledger_has_no_rows(tmp_path: Path) -> None:
    assert list(Ledger(tmp_path / "absent").rows()) == []


def test_state_directory_follows_the_standard() -> None:
    assert state_dir({"XDG_STATE_HOME": "/s"}) == Path("/s/kaos-runner")
    assert state_dir({"HOME": "/h"}) == Path("/h/.local/state/kaos-runner")
