"""What the SDK raises, as errors of ours with a next step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kimi_cli.soul import LLMNotSet, LLMNotSupported, RunCancelled
from kosong.chat_provider import (
    APIConnectionError,
    APIEmptyResponseError,
    APIStatusError,
    APITimeoutError,
    ChatProviderError,
)

from kaos_runner.agent.stream import CarriedError
from kaos_runner.errors import AgentError, KaosRunnerError

if TYPE_CHECKING:
    from kaos_runner.agent.spec import Provider


def translated(error: BaseException, provider: Provider) -> BaseException:
    """The error that the runner should see; one that we do not know is a bug, and stays."""
    match error:
        case CarriedError():
            return error.error
        case APIStatusError():
            return _refused(error, provider)
        case APIEmptyResponseError():
            return AgentError("the model gave an empty answer", hint="run it again")
        case APITimeoutError():
            return AgentError("the provider did not answer in time", hint="run it again")
        case APIConnectionError():
            return AgentError(
                f"the provider cannot be reached at {provider.url}",
                hint="check `base_url` and the network of this machine",
            )
        case ChatProviderError():
            return AgentError(
                f"the provider's answer broke off: {error}",
                hint="run it again; a proxy on the way may close long answers",
            )
        case LLMNotSet():
            return AgentError(
                "no model is set", hint="set `agent.model` in the recipe, or KIMI_MODEL_NAME"
            )
        case LLMNotSupported():
            return AgentError(str(error), hint="choose a model that can do it")
        case RunCancelled():
            return AgentError("the turn was cancelled")
    return error


def _refused(error: APIStatusError, provider: Provider) -> KaosRunnerError:
    status = error.status_code
    message = f"the provider refused ({status}): {_short(str(error))}"
    return AgentError(message, hint=_hint(status, provider))


def _hint(status: int, provider: Provider) -> str | None:
    if status in (401, 403):
        return f"check the key in {provider.api_key_env}, and that it belongs to {provider.url}"
    if status == 402:
        return "the account has no credit left"
    if status == 404:
        return f"does the provider know the model `{provider.model}`? Is `base_url` right?"
    if status in (413, 400):
        return f"check the model's name (`{provider.model}`) and `max_context`"
    if status == 429:
        return "the account's rate or quota is used up: wait, or use another key"
    return "the provider has trouble: run it again later" if status >= 500 else None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:299] + "…"
