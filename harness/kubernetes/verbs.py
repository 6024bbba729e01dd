"""The faults of a graph in a cluster, as far as the API server alone can do them, each with its proof.

A signal is sent by a command in the container. The kernel drops a signal to the first process of a PID namespace if that process does not
handle it and the sender is inside. So the command first reads which signals the process handles. A process that has just begun may need a
moment until it handles one. A signal that it does not handle then has not landed.

SIGKILL and SIGSTOP can't be handled, so they never reach it from inside: they need a process on the node.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable
from typing import Final

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import PODS
from graphquake.harness.kubernetes.api.shell import run
from graphquake.harness.kubernetes.pods import SIGNALLED, Pod
from graphquake.harness.processes.replicas import Incarnation
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Landed

# The time limit for the API server to show a delete in its watch, and for a command in a container.
SHOWN_WITHIN_S: Final = 10.0
EXEC_WITHIN_S: Final = 10.0
POLL_S: Final = 0.01
NEEDS_NODE: Final = "a container can't kill, stop or squeeze its own first process, so this needs a process on the node"
OWN_STEPS: Final = "steps of your own act on processes of this machine"
# Wait for up to two seconds until the first process handles a signal, and then send it. Print the mask of handled signals. Its last four
# digits stand for the signals 1 to 16. Some shells can't calculate with the whole mask.
_SEND: Final = """
left=40
while :; do
    while read -r key mask; do [ "$key" = SigCgt: ] && break; done < /proc/1/status
    [ $((0x0${{mask#????????????}} >> {number} - 1 & 1)) = 1 ] && break
    left=$((left - 1)); [ $left = 0 ] && {{ echo "$mask"; exit 0; }}; sleep 0.05
done
echo "$mask"; kill -{number} 1
"""


def not_landed(proof: str) -> Landed:
    """Return the result of a fault that did not take effect, with the reason in words."""
    return Landed(ok=False, proof=proof, at_s=time.monotonic())


class NoOwnSteps:
    """The actions of the user's own steps. Such steps are left out for a cluster, so none of these actions is asked for."""

    async def signal(self, replica: Replica, name: str, *, is_fault: bool) -> Landed:
        """See `OwnActions.signal`."""
        del is_fault
        return not_landed(f"{name} to {replica}: {OWN_STEPS}")

    async def command(self, key: str, part: str, aim: Replica | None) -> Landed:
        """See `OwnActions.command`."""
        del aim
        return not_landed(f"{part} of {key}: {OWN_STEPS}")

    async def end_commands(self, key: str) -> None:
        """See `OwnActions.end_commands`."""


async def delete_pod(
    client: Client, pod: Pod, life: Incarnation, grace_s: int | None, seen: Callable[[], bool]
) -> Landed:
    """Delete a pod, and wait until the watch shows it.

    Args:
        client: the API server.
        pod: the pod.
        life: the incarnation that runs in it.
        grace_s: the grace, or None for that of the pod's spec.
        seen: true as soon as the watch shows the pod as deleted or gone.
    """
    begun_s = time.monotonic()
    life.aimed = True
    try:
        if not await client.delete(PODS, pod.item, grace_s=grace_s):
            return not_landed(f"pod {pod.name} was gone already")
    except ApiError as error:
        return not_landed(str(error))
    life.terminating = life.runs
    while not seen():
        if time.monotonic() > begun_s + SHOWN_WITHIN_S:
            return not_landed(f"the API server does not show the delete of pod {pod.name} within {SHOWN_WITHIN_S:g} s")  # fmt: skip
        await asyncio.sleep(POLL_S)
    at_s = time.monotonic()
    own = pod.item["spec"].get("terminationGracePeriodSeconds", 30)
    how = f"SIGTERM, and SIGKILL after {own if grace_s is None else grace_s} s"
    if grace_s == 0:
        how = "by force: gone from the API, SIGTERM, and SIGKILL 2 s later"
    took_ms = (at_s - begun_s) * 1e3
    return Landed(ok=True, proof=f"pod {pod.name} deleted ({how}), shown after {took_ms:.0f} ms", at_s=at_s)  # fmt: skip


async def send(client: Client, pod: Pod, number: signal.Signals) -> Landed:
    """Send a signal to the first process of a pod's container, and prove that the process handles it.

    Args:
        client: the API server.
        pod: the pod.
        number: the signal. SIGKILL and SIGSTOP never land.
    """
    if pod.shares_pids:
        return not_landed(f"pod {pod.name} shares its PID namespace, so its first process is not the container's")  # fmt: skip
    argv = ["sh", "-c", _SEND.format(number=int(number))]
    try:
        ran = await run(client, pod.namespace, pod.name, pod.container, argv, EXEC_WITHIN_S)
    except ApiError as error:
        return not_landed(str(error))
    at_s = time.monotonic()
    mask = re.match(r"[0-9a-f]+", ran.out)
    # The first process may end so soon that the command, whose PID namespace then ends, is killed with it.
    if ran.status == SIGNALLED + signal.SIGKILL and not mask:
        return not_landed(
            f"the first process of its container ended before it handled {number.name}"
        )
    if ran.status not in (0, SIGNALLED + signal.SIGKILL) or not mask:
        return not_landed(f"the command in pod {pod.name} failed: {(ran.err or ran.out).strip()}")
    if not int(mask[0], 16) >> (number - 1) & 1:
        return not_landed(f"the first process of its container does not handle {number.name}, so the kernel drops it")  # fmt: skip
    return Landed(ok=True, proof=f"{number.name} to the first process of pod {pod.name}, which handles it", at_s=at_s)  # fmt: skip
