"""The entry point: `kaos-runner` and `python -m kaos_runner`."""

from __future__ import annotations

import os
import sys

from kaos_runner.cli import run_command_line


def main() -> None:
    """Run the command line and exit with its code."""
    _fill_closed_streams()
    code = run_command_line(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # Nobody reads it: the interpreter's own flush must not change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _fill_closed_streams() -> None:
    """Give a caller's closed standard streams a place, or the next file opened would take it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


if __name__ == "__main__":
    main()
