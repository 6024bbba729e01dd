"""The scenarios of Dynamo's fault tolerance suite, as plans: the process to kill, the time, and the number of victims.

A scenario names a component, and each graph has its own role for it. `decode_worker` is the role `decode` of a disaggregated graph, and
the worker of an aggregated one. A graph file may define more scenarios, as whole plans under `[scenarios]`. A scenario in the file
replaces the built-in one of the same name.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from graphquake.harness.errors import InputError
from graphquake.harness.run.execute import BASELINE_S
from graphquake.harness.spec.graph import GraphSpec, read_graph
from graphquake.harness.spec.plan import TREE, Child, Heal, Kill, Plan, Scope, Wait
from graphquake.harness.spec.roles.role import RoleSpec
from graphquake.harness.spec.table import did_you_mean

NONE: Final = "none"
# The names of roles that may stand for a component of the suite. The first name that is a role of the graph counts.
_ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "decode_worker": ("decode", "decode_worker", "worker", "backend", "engine"),
    "prefill_worker": ("prefill", "prefill_worker"),
    "processor": ("processor", "router"),
}
# The scenario that kills the engine of a worker. The engine is a child process. The worker itself gets no signal.
ENGINE: Final = "vllm_worker"
SCENARIOS: Final = ("decode_worker", "prefill_worker", "frontend", "processor", ENGINE, NONE)


class NotThereError(Exception):
    """The graph lacks a role, a replica or a setting that the scenario needs. The text of the error names it."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of the suite, which are a closed loop. Each field has the name of an option of the suite.

    Attributes:
        clients: the number of clients.
        requests_per_client: the number of requests of each client.
        input_token_length, output_token_length: the lengths of each prompt and answer, in tokens.
        max_retries: the number of attempts for a request, including the first one.
        deadline_s: the time after which a client gives up a request, in seconds.
    """

    clients: int = 10
    requests_per_client: int = 100
    input_token_length: int = 100
    output_token_length: int = 100
    max_retries: int = 1
    deadline_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Strike:
    """The time and the victims of a scenario's kills.

    Attributes:
        after_s: seconds from the first request to the kills.
        victims: the number of replicas to kill. None means all replicas of the role.
        first: the index of the first victim. None means that it is drawn from `seed`.
        respawn: true if the supervisor restarts dead replicas.
        seed: decides which index is drawn.
    """

    after_s: float = 30.0
    victims: int | None = 1
    first: int | None = 0
    respawn: bool = False
    seed: int = 0


def scenario_graph(
    spec: GraphSpec, clients: Clients | None, *, respawn: bool, max_num_seqs: int | None = None
) -> GraphSpec:
    """Return a graph with the load of the suite's clients, and with the suite's options for restarts and for the capacity of workers.

    Args:
        spec: the graph as its file describes it.
        clients: the clients of the closed loop. None keeps the load of the file.
        respawn: true if the supervisor restarts dead replicas.
        max_num_seqs: the number of requests that a worker may serve at once. None keeps the value in the file.

    Raises:
        NotThereError: if `max_num_seqs` is given, and no command in the graph file contains `{capacity}`.
    """
    load = dict(spec.document.get("load", {}))
    if clients is not None:
        load |= {
            "clients": clients.clients,
            "requests_per_client": clients.requests_per_client,
            "prompt_tokens": clients.input_token_length,
            "max_tokens": clients.output_token_length,
            "max_retries": clients.max_retries,
            "deadline_s": clients.deadline_s,
        }
    document: dict[str, Any] = {**spec.document, "load": load}
    document["restart"] = "always" if respawn else "never"
    if max_num_seqs is not None:
        document["roles"] = _with_capacity(spec, max_num_seqs)
    found = read_graph(spec.name, document, Path(spec.path))
    return replace(found, share_gpus=spec.share_gpus)


def _with_capacity(spec: GraphSpec, capacity: int) -> dict[str, Any]:
    takers = {role.name for role in spec.roles if "{capacity}" in role.command}
    if not takers:
        raise NotThereError(
            f"--max-num-seqs: no command of {spec.name} contains {{capacity}}, so this option cannot set it"
        )
    tables = spec.document["roles"]
    return {
        name: {**table, "capacity": capacity} if name in takers else table
        for name, table in tables.items()
    }


def scenario_names(spec: GraphSpec) -> list[str]:
    """The names of the suite's scenarios, and of those that the graph file defines."""
    return list(dict.fromkeys([*SCENARIOS, *spec.scenarios]))


def scenario_plan(spec: GraphSpec, name: str, strike: Strike) -> Plan:
    """The plan of a scenario for one graph.

    Raises:
        NotThereError: if the graph has no role for the component, or fewer replicas of it than `strike` asks for.
        InputError: if the scenario does not exist.
    """
    heal: Heal = "all" if strike.respawn else "release"
    if name in spec.scenarios:
        own = spec.scenarios[name]
        return own if own.heal != "all" else replace(own, heal=heal)
    if name not in SCENARIOS:
        known = scenario_names(spec)
        raise InputError(f'{spec.name}: has no scenario "{name}"{did_you_mean(name, known)}')
    if name == NONE:
        return Plan((), heal)
    role, scope = _aim(spec, name)
    wait = Wait(round(max(0.0, strike.after_s - BASELINE_S), 2))
    kills = (Kill(role.name, index, scope) for index in _victims(spec, name, role, strike))
    return Plan((wait, *kills), heal)


def _aim(spec: GraphSpec, name: str) -> tuple[RoleSpec, Scope]:
    if name == "frontend":
        return spec.entry_role, TREE
    if name == ENGINE:
        for role in (_role(spec, "decode_worker"), _role(spec, "prefill_worker")):
            if role is not None and role.children:
                return role, Child(next(iter(role.children)))
        raise NotThereError(f"no worker of {spec.name} has an engine as a child process")
    found = _role(spec, name)
    if found is None:
        raise NotThereError(f"{spec.name} has no {name.replace('_', ' ')}")
    return found, TREE


def _role(spec: GraphSpec, component: str) -> RoleSpec | None:
    roles = {role.name: role for role in spec.roles}
    return next((roles[name] for name in _ROLES[component] if name in roles), None)


def _victims(spec: GraphSpec, name: str, role: RoleSpec, strike: Strike) -> list[int]:
    count = role.replicas if strike.victims is None else strike.victims
    if not 1 <= count <= role.replicas:
        raise NotThereError(f"{spec.name} has {role.replicas} of {role.name}, not {count}")
    if strike.first is None:
        draw = random.Random(f"{strike.seed}/{spec.name}/{name}")
        return sorted(draw.sample(range(role.replicas), count))
    if strike.first >= role.replicas:
        raise NotThereError(f"{spec.name} has no {role.name} {strike.first}")
    return sorted((strike.first + turn) % role.replicas for turn in range(count))
