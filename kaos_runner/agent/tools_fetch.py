"""The one tool that acts from the host's network; opt-in. Its import costs a quarter of a second.

The SDK fills `__init__` by its annotations, so these stay real objects.
"""

from kimi_cli.config import Config
from kimi_cli.soul.agent import Runtime
from kimi_cli.tools.web.fetch import FetchURL as SdkFetchURL

from kaos_runner.agent.tools import Wrapped


class FetchURL(Wrapped, SdkFetchURL):
    """Fetches a page from the host's network."""

    recipe_name = "fetch"

    def __init__(self, config: Config, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        self.bind()
