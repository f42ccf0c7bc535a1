"""The entry point: `kaos-runner` and `python -m kaos_runner`."""

from __future__ import annotations

import sys

from kaos_runner.cli import run_command_line


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
