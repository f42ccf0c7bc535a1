"""Options and ground rules of the whole suite."""

from __future__ import annotations

import os

import hypothesis
import pytest

# How long an example takes says more about the machine than about us.
hypothesis.settings.register_profile("kaos-runner", deadline=None)
hypothesis.settings.load_profile("kaos-runner")

# What a developer has set must not steer the tests.
STEERING = ("KIMI_", "E2B_", "SPRITE", "BOXLITE_", "KAOS_RUNNER_", "OPENAI_", "GITHUB_", "GIT_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--live",
        action="store_true",
        help="also run against the real providers, with the keys of the environment",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "live: needs a real provider and its key; see --live")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    live = [item for item in items if item.get_closest_marker("live")]
    if live and not config.getoption("--live"):
        config.hook.pytest_deselected(items=live)
        items[:] = [item for item in items if item not in set(live)]


@pytest.fixture(autouse=True)
def _plain_environment(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Every test starts without variables that steer us, and with a state directory of its own."""
    if not request.node.get_closest_marker("live"):
        for name in list(os.environ):
            if name.startswith(STEERING):
                monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
