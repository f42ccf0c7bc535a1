"""The recipe that `init` writes: short, with what one reaches for next in comments."""

from __future__ import annotations

_STARTER = """\
# yaml-language-server: $schema={schema}
# Check it:      kaos-runner validate {file}
# See the plan:  kaos-runner explain {file}
# Run it:        KIMI_API_KEY=... kaos-runner {file} -p goal="Mend the failing test."
version: 1
name: {name}
description: Work on this project in a sandbox, prove the result, and bring it home as a patch.

# Typed inputs: -p NAME=VALUE, -p NAME=@FILE, --params-file, or KAOS_RUNNER_PARAM_NAME.
params:
  goal:
    type: string
    default: Find one bug in this project and mend it.
    description: What the agent is asked to do.

# Where the sandbox runs: local, e2b, sprites or boxlite. `--backend NAME` runs it elsewhere.
backend: local
# image: python:3.12-slim              # boxlite and e2b: what the sandbox is made from
# network: {{default: deny, allow: [pypi.org]}}
# env: {{PYTHONDONTWRITEBYTECODE: "1"}}
# secrets: [MY_TOKEN]                   # names of host variables, masked everywhere

# What is brought into the sandbox, and what is run there before the agent begins.
# files:
#   - {{git: ., to: .}}                   # this work tree, without ignored files
#   - {{from: fixtures/data, to: data}}   # a file or folder beside this recipe
# setup:
#   - python3 -m pip install -q pytest

agent:
  model: kimi-k2-thinking-turbo         # or a mapping: name, provider, base_url, api_key_env
limits: {{wall: 30m, steps: 80, tokens: 400k}}

prompts:
  - id: work
    text: |
      {{{{ params.goal }}}}
      When you are done, write what you did to SUMMARY.md.
    checks:
      - {{file: SUMMARY.md}}
      # - {{run: python3 -m unittest -q, name: tests}}
      # - {{changed: "**/*.py"}}
    retry: 1                            # a failing check goes back to the agent, once

# What must hold in the end, and what comes home.
# checks:
#   - {{file: SUMMARY.md}}
artifacts:
  - {{path: SUMMARY.md}}
  - {{patch: ., to: change.patch, optional: true}}

cleanup: always                         # always | on_success | never
"""


def starter(name: str, schema: str, file: str = "recipe.yaml") -> str:
    """The starter recipe under a name, pointing to its schema."""
    return _STARTER.format(name=name, schema=schema, file=file)
