"""Find the kinds of steps that are not possible for a launched graph on this machine, and the reasons.

Each check is a function that returns the reason, or an empty text if the step is possible. If it is cheap, the check tries the step itself:
versions and file names say little about the rights of a container or a user.
"""

from __future__ import annotations

import os
import shlex
import shutil

from graphquake.harness.processes.network.client import network_lacks
from graphquake.harness.processes.squeezes.disks import disks_lack
from graphquake.harness.processes.squeezes.gpu_hogs import hogs_lack
from graphquake.harness.spec.faults import LINK_FAULTS
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.steps.own.own_table import OwnStep
from graphquake.harness.spec.templates.words import words_in


def lacking(spec: GraphSpec) -> dict[str, str]:
    """Return the kinds of steps that are not possible, by title, each with the reason. Steps of the user's own count as kinds."""
    found = {name: _own_lacks(spec, one) for name, one in spec.own_steps.items()}
    if any(role.disk_mib for role in spec.roles):
        found["squeeze disk"] = disks_lack()
    if any(role.gpus for role in spec.roles):
        found["hog gpu memory"] = found["hog gpu compute"] = hogs_lack()
    if spec.network == "namespaces":
        found |= dict.fromkeys(LINK_FAULTS, network_lacks())
    return {title: reason for title, reason in found.items() if reason}


def _own_lacks(spec: GraphSpec, one: OwnStep) -> str:
    """Return the program that a step of the user's own needs and that is not there."""
    if "PATH" in spec.env or any("PATH" in role.env for role in spec.roles):
        return ""  # the graph file decides where programs are looked for
    for key, template in one.commands().items():
        program = shlex.split(template)[0]
        if words_in(program):
            continue
        where = str(spec.path.parent / program) if "/" in program else program
        if shutil.which(where, mode=os.F_OK | os.X_OK) is None:
            return f'{spec.path.name}: steps.{one.name}.{key}: "{program}" is not a program on this machine'
    return ""
