"""Checks before a search: the environment variables and GPUs of this machine, and the user's code."""

from __future__ import annotations

from graphquake.harness.clients.answers import find_oracle
from graphquake.harness.errors import InputError
from graphquake.harness.processes.resources.gpus import visible_gpus
from graphquake.harness.promises.builtin import promises_of
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.templates.environment import check_environment
from graphquake.machines.reports.finding_text import counted
from graphquake.machines.runners.on_ray.cluster import check_room
from graphquake.machines.runners.on_ray.option import OnRay


def check_machine(spec: GraphSpec, graphs: int = 1) -> None:
    """Check that this machine has the environment variables and GPUs that a graph asks for.

    Args:
        spec: the graph.
        graphs: how many of this graph run side by side.

    Raises:
        InputError: if a variable is not set, or there are too few GPUs. The message names it.
    """
    check_environment(spec)
    check_gpus(spec, graphs)


def check_room_of(spec: GraphSpec, on_ray: OnRay | None, graphs: int) -> None:
    """Check that the graphs of a search have enough resources: on this machine, or on the nodes of a Ray cluster.

    Args:
        spec: the graph.
        on_ray: the slots on a Ray cluster, or None for this machine.
        graphs: how many graphs run side by side.

    Raises:
        InputError: if something is missing. The message names it.
    """
    if on_ray is None:
        check_machine(spec, graphs)
    else:
        check_room(spec, on_ray)


def check_alone(spec: GraphSpec, slots: int | None, shard: int) -> None:
    """Check that runs do not go on side by side on a graph that they share.

    Args:
        spec: the graph.
        slots: the number of slots that the user asked for, or None.
        shard: the part of the search that this process does, from 0.

    Raises:
        InputError: if they would.
    """
    if not spec.is_shared:
        return
    why = f"all runs use the one graph that {spec.path.name} names"
    if (slots or 1) > 1:
        raise InputError(f"--chaos-slots: found {slots}, expected 1: {why}")
    if shard:
        raise InputError(f"pytest -n: expected one process: {why}")


def check_functions(spec: GraphSpec) -> None:
    """Check that the user's own promises and oracle can be imported and called.

    Raises:
        InputError: if one of them can't be.
    """
    promises_of(spec)
    find_oracle(spec)


def check_gpus(spec: GraphSpec, graphs: int = 1) -> None:
    """Check that this machine has the GPUs that a graph asks for.

    Args:
        spec: the graph. On a machine without GPUs, its roles with `cpu_ok` need none.
        graphs: how many of this graph run side by side.

    Raises:
        InputError: if there are too few. The message says how many there are, how many are needed, and which option needs fewer.
    """
    there = len(visible_gpus())
    roles = [role for role in spec.roles if role.gpus and not (role.cpu_ok and not there)]
    shared = max((role.gpus for role in roles), default=0)
    apart = graphs * sum(role.gpus * role.replicas for role in roles)
    needed = shared if spec.share_gpus else apart
    if needed <= there:
        return
    what = f"{spec.name} needs" if graphs == 1 else f"{graphs} of {spec.name} side by side need"
    hint = ""
    if not spec.share_gpus and shared <= there:
        hint = " Use --share-gpus (pytest: --chaos-share-gpus) to share them."
    raise InputError(
        f"{what} {counted(needed, 'GPU')}, but CUDA_VISIBLE_DEVICES or /dev shows {there}.{hint}"
    )
