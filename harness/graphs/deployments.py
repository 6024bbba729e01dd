"""The deployments of Dynamo's fault tolerance suite, by the suite's names, as variants of the reference graph.

`agg-tp-2-dp-4` has four workers that prefill and decode, each with an engine of two ranks. `disagg-p-tp-1-dp-2-d-tp-4-dp-1` has two prefill
workers with one rank each, and one decode worker with four ranks. On a machine with GPUs, each worker gets one GPU for each of its ranks.
Without GPUs, the processes are the same and compute on the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

# The deployments that the suite has. Other numbers in these names work, too: a tp of 1, 2 or 4, and a dp of 1 to 99.
DEPLOYMENTS: Final = (
    "agg-tp-1-dp-1",
    "agg-tp-1-dp-4",
    "agg-tp-1-dp-8",
    "agg-tp-2-dp-1",
    "agg-tp-2-dp-2",
    "agg-tp-2-dp-4",
    "disagg-p-tp-1-dp-1-d-tp-1-dp-1",
    "disagg-p-tp-1-dp-1-d-tp-2-dp-1",
    "disagg-p-tp-1-dp-2-d-tp-2-dp-1",
    "disagg-p-tp-1-dp-4-d-tp-4-dp-1",
    "disagg-p-tp-2-dp-1-d-tp-4-dp-1",
    "disagg-p-tp-2-dp-2-d-tp-4-dp-1",
)
_WORKERS: Final = r"tp-([124])-dp-([1-9]\d?)"
_AGG: Final = re.compile(rf"agg-{_WORKERS}\Z")
_DISAGG: Final = re.compile(rf"disagg-p-{_WORKERS}-d-{_WORKERS}\Z")


def is_deployment(name: str) -> bool:
    """True if `name` has the form of a deployment's name, such as `agg-tp-2-dp-4`."""
    return bool(_AGG.match(name) or _DISAGG.match(name))


def deployment(name: str, reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return the graph file of a deployment, in its parsed form.

    Args:
        name: the name of the deployment. `is_deployment(name)` is true.
        reference: the parsed file of the reference graph.
    """
    if found := _AGG.match(name):
        workers = {"worker": ("agg", int(found[1]), int(found[2]))}
    else:
        found = _DISAGG.match(name)
        assert found is not None
        workers = {
            "prefill": ("prefill", int(found[1]), int(found[2])),
            "decode": ("decode", int(found[3]), int(found[4])),
        }
    of_all = {
        key: role for key, role in reference["roles"].items() if key not in ("prefill", "decode")
    }
    modes = "|".join(mode for mode, _, _ in workers.values())
    listed = of_all["frontend"]["listed"] | {"item": f'"role": "({modes})"', "roles": [*workers]}
    of_all["frontend"] = of_all["frontend"] | {"listed": listed}
    like = reference["roles"]["prefill"]
    for role, (mode, tp, replicas) in workers.items():
        command = like["command"].replace(
            "--mode prefill", f"--mode {mode} --tp {tp} --backend auto"
        )
        of_all[role] = like | {
            "command": command,
            "replicas": replicas,
            "gpus": tp,
            "cpu_ok": True,
            "preload": ["torch"],
        }
    serves = " and ".join(["frontend", "processor", *workers])
    return {**reference, "graph": name, "serves": serves, "roles": of_all}
