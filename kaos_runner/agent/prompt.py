"""The system prompt: it tells the truth about where the agent works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos_runner.agent.facts import MAX_ENTRIES

if TYPE_CHECKING:
    from kaos_runner.agent.facts import Facts
    from kaos_runner.agent.spec import SessionSpec

_SUBAGENT = (
    "You are a subagent. The user's messages come from the main agent, which sees nothing of your "
    "work but your last message. Say in it everything that it must know: what you did, what you "
    "learned, which files you changed."
)
_PLACES = {
    "boxlite": "a micro-VM (BoxLite)",
    "e2b": "a cloud sandbox (E2B)",
    "sprites": "a cloud machine (Sprites)",
}


def arguments(spec: SessionSpec, facts: Facts, *, subagent: bool) -> dict[str, str]:
    """The values of the template's own names; none of them is a template itself."""
    return {
        "ROLE": _SUBAGENT if subagent else "",
        "PLACE": place(spec, facts),
        "WORKDIR": spec.workdir,
        "LISTING": spec.mask(_listing(facts)),
        "PROJECT": spec.mask(_project(facts)),
    }


def place(spec: SessionSpec, facts: Facts) -> str:
    """What the sandbox is, and how far it keeps the agent from the user's machine."""
    system = f"{facts.system} on {facts.machine}; its shell is `{facts.shell}`"
    if spec.isolation == "none":
        return (
            f"This sandbox is a directory on the user's own machine ({system}). NOTHING ISOLATES "
            "IT: a command that you run acts on that machine at once. Never read, write or execute "
            "anything outside the working directory unless the user's message says so."
        )
    if spec.isolation is not None:
        return (
            f"This is a sandbox on the user's machine ({system}), isolated by {spec.isolation}. "
            "What you do stays in it."
        )
    where = _PLACES.get(spec.backend, f"a sandbox of the backend {spec.backend}")
    return (
        f"This sandbox is {where}: {system}. It is not the user's machine: what you do here does "
        "not reach it, and the user gets only the files that they asked for."
    )


def _listing(facts: Facts) -> str:
    shown = list(facts.entries[:MAX_ENTRIES])
    if len(facts.entries) > MAX_ENTRIES:
        shown.append("... (more)")
    return "\n".join(shown) or "(nothing)"


def _project(facts: Facts) -> str:
    if not facts.agents_md:
        return ""
    return (
        "# The project\n\nIts `AGENTS.md` says the following. Follow it where the user's message "
        "does not say otherwise, and keep it true when your changes make it wrong.\n\n"
        "`````markdown\n"
        f"{facts.agents_md}\n`````"
    )
