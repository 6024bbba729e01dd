"""Tell which victims of faults had served nothing before the fault.

The death of a replica proves nothing if no request uses it. A router may still consider a replica down, although the replica's own probe
says ready. So each run records the work of each victim before the fault (`Traffic`). A victim is idle if its work is far less than an
equal share of the work of its role. The share is not judged if the victim was the only ready replica of its role, or if nothing could be
measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from graphquake.harness.history.events import StepDone, Traffic
from graphquake.harness.history.history import History

# A replica is idle if its work is less than this part of an equal share. One
# health check a second, by HAProxy at a backup server, was 1% of an equal share at 20 requests/s.
IDLE_PART_MAX: Final = 0.1


def is_idle(traffic: Traffic) -> bool:
    """True if the replica has served nothing, or next to nothing, in the interval."""
    if traffic.means == "none" or traffic.replicas < 2:  # noqa: PLR2004
        return False
    return traffic.amount * traffic.replicas < IDLE_PART_MAX * traffic.of_role


def share_text(traffic: Traffic) -> str:
    """Return the share of a replica in the work of its role, e.g. `48% of the traffic of decode`, or the reason why it is not known."""
    role = traffic.replica.role
    if traffic.means == "none":
        return f"its share of the traffic of {role} is not known"
    if traffic.replicas < 2:  # noqa: PLR2004
        return f"the only ready {role}"
    what = "traffic" if traffic.means == "bytes" else "CPU time"
    return f"{traffic.amount / traffic.of_role:.0%} of the {what} of {role}"


def idle_faults(history: History) -> set[int]:
    """Return the numbers of the faults that landed and hit only idle victims."""
    return {fault.number for fault in history.faults() if _hit_idle(history, fault)}


def idle_reason(history: History) -> str | None:
    """Return the reason why the run is weak, in words, if each of its faults hit an idle victim. Otherwise return None."""
    faults = history.faults()
    idle = idle_faults(history)
    if not faults or any(fault.number not in idle for fault in faults):
        return None
    shares = dict.fromkeys(
        f"{one.replica} had {share_text(one)}"
        for fault in faults
        for one in _before(history, fault)
    )
    return f"each fault hit an idle replica: {', '.join(shares)}"


def unserved(history: History) -> list[Traffic]:
    """Return the work of each replica that had served nothing when the baseline ended."""
    return [one for one in history.of(Traffic) if one.number < 0 and is_idle(one)]


def unserved_texts(history: History) -> list[str]:
    """Describe each replica that had served nothing when the baseline ended, in words."""
    return [
        f"{one.replica} was ready, but idle: it had {share_text(one)}" for one in unserved(history)
    ]


def _hit_idle(history: History, fault: StepDone) -> bool:
    before = list(_before(history, fault))
    return bool(before) and len(before) == len(fault.step.aims) and all(map(is_idle, before))


def _before(history: History, fault: StepDone) -> Iterator[Traffic]:
    return (one for one in history.of(Traffic) if one.number == fault.number)
