"""Check, before a graph is launched, that each environment variable in its graph file is set. A graph file writes one as `${NAME}`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from graphquake.harness.errors import InputError
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.roles.role import RoleSpec
from graphquake.harness.spec.templates.words import environment_names


def check_environment(spec: GraphSpec) -> None:
    """Check that each environment variable that a graph file names as `${NAME}` is set.

    A launch calls this function, and the reader of the file does not: an old run can be judged where the variables are not set.

    Raises:
        InputError: for the first variable that is not set. The error names the file and the key.
    """
    for key, template in _templates(spec):
        for name in environment_names(template):
            if name not in os.environ:
                raise InputError(
                    f"{spec.path.name}: {key}: asks for ${{{name}}}, which is not set in your environment"
                )


def _templates(spec: GraphSpec) -> Iterator[tuple[str, str]]:
    """Yield each template of a graph file, as (dotted key, template)."""
    yield from ((f"env.{name}", text) for name, text in spec.env.items())
    yield from ((f"versions.{name}", text) for name, text in spec.versions.items())
    for step in spec.own_steps.values():
        yield from ((f"steps.{step.name}.{key}", text) for key, text in step.commands().items())
    for role in spec.roles:
        yield from ((f"roles.{role.name}.{key}", text) for key, text in templates_of(role))


def templates_of(role: RoleSpec) -> Iterator[tuple[str, str]]:
    """Yield each template of a role, as (dotted key within the role, template). Files are left out: in them, `${NAME}` has no meaning."""
    yield from (("command", role.command), ("entry", role.entry), ("metrics", role.metrics))
    yield from ((f"env.{name}", text) for name, text in role.env.items())
    yield from ((f"variants.{name}.command", text) for name, text in role.variants.items())
    if role.ready:
        yield "ready.get", role.ready.get
    if role.listed:
        yield "listed.get", role.listed.get
