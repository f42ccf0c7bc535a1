"""The SDK's errors in our words."""

from __future__ import annotations

from kaos_runner.backends.boxlite_config import ELSEWHERE
from kaos_runner.errors import KaosRunnerError, PrerequisiteError, SandboxError

_UNREACHABLE = frozenset({"network_unavailable", "upstream_unavailable"})
_PULL = ("failed to pull", "images error", "manifest", "registry")


def mapped(error: BaseException, doing: str) -> KaosRunnerError:
    """What a failure of the SDK means to the user; `doing` begins the sentence: `start the box`.

    Facts of the errors: measured with SDK 0.10.8. All of its classes carry a `code`.
    """
    text = " ".join(str(error).split())
    code, lower = getattr(error, "code", ""), text.lower()
    for found in (_of_machine(code, lower, text), _of_server(code, lower, text)):
        if found is not None:
            return found
    if isinstance(error, TimeoutError):
        hint = "look at the server, or allow more with `backend.start_timeout`"
        return SandboxError(f"could not {doing}: BoxLite did not answer in time", hint=hint)
    if code == "image_pull_failed" or any(word in lower for word in _PULL):
        hint = (
            "check the image's name and the network; `backend.registries` names other registries, "
            "`backend.rootfs` takes an image from a directory"
        )
        return SandboxError(f"the image cannot be pulled: {_brief(text)}", hint=hint)
    if code == "not_found":
        return SandboxError(f"could not {doing}: there is no such box (any more)")
    if code == "resource_exhausted":
        hint = "remove boxes that nobody needs (`kaos-runner reap`), or ask for less"
        return SandboxError(f"could not {doing}: {_brief(text)}", hint=hint)
    return SandboxError(f"could not {doing}: {_brief(text) or type(error).__name__}")


def refused(status: int, body: object) -> KaosRunnerError:
    """What a server's own answer means."""
    error = body.get("error") if isinstance(body, dict) else None
    facts = error if isinstance(error, dict) else {}
    code, text = str(facts.get("code", "")), str(facts.get("message", f"status {status}"))
    return _of_server(code, "", text) or SandboxError(f"the BoxLite server says: {_brief(text)}")


def unreachable(text: str) -> PrerequisiteError:
    """The server is not there."""
    hint = "check `backend.url` (or BOXLITE_REST_URL), and whether the server runs"
    return PrerequisiteError(f"the BoxLite server cannot be reached: {_brief(text)}", hint=hint)


def _of_machine(code: str, lower: str, text: str) -> KaosRunnerError | None:
    """What this machine lacks for boxes of its own."""
    if code == "unsupported" and "kvm" in lower:
        return PrerequisiteError(f"no micro-VM can start here: {_brief(text)}", hint=ELSEWHERE)
    if "another boxliteruntime" in lower:
        home = text.rpartition("using directory: ")[2].partition(" ")[0]
        hint = "wait for the other process, or give this one a home with `backend.home`"
        return PrerequisiteError(f"the BoxLite home {home} is used by another process", hint=hint)
    if code == "engine_unavailable" and "failed to start" in lower:
        return SandboxError(
            "the micro-VM did not start: /dev/kvm opens, yet no VM boots here, as in a virtual "
            "machine without nested virtualisation",
            hint=ELSEWHERE,
        )
    return None


def _of_server(code: str, lower: str, text: str) -> KaosRunnerError | None:
    """A server that refuses us, or is not there."""
    if code == "unauthenticated" or "auth:" in lower:
        hint = "check the key, and which variable `backend.api_key_env` names"
        return PrerequisiteError("the BoxLite server refuses the key", hint=hint)
    if code == "permission_denied":
        hint = "the key may not do this; check its scopes and `backend.path_prefix`"
        return PrerequisiteError(f"the BoxLite server refuses: {_brief(text)}", hint=hint)
    return unreachable(text) if code in _UNREACHABLE else None


def _brief(text: str) -> str:
    return text if len(text) <= 400 else text[:399] + "…"
