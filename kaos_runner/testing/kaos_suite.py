"""The conformance suite for a Kaos: what pykaos' protocol promises, and what agents rely on."""

from __future__ import annotations

from kaos_runner.testing.kaos_directories import Directories, Paths, Stats
from kaos_runner.testing.kaos_files import Files
from kaos_runner.testing.kaos_globs import Globs
from kaos_runner.testing.kaos_processes import Ends, Processes, Streams
from kaos_runner.testing.kaos_text import Text


class KaosConformance(Paths, Stats, Directories, Files, Text, Globs, Processes, Streams, Ends):
    """Subclass it with a `kaos` method that gives a fresh Kaos; pytest finds the cases.

    `known_failures` names cases that must fail, with the reason.
    """
