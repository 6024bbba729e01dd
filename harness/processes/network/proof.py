"""The proofs of network faults in words: packets that met a rule, connections that ended, and measured round trips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphquake.harness.spec.steps.actions import NetworkFault


def missed_text(edges: Sequence[Sequence[str]], within_s: float) -> str:
    """Return the reason why a fault did not land: the graph sent no packet there."""
    where = f"{len(edges)} edges" if len(edges) > 1 else "this edge"
    return f"no packet was sent on {where} within {within_s:g} s"


def landed_text(
    fault: NetworkFault, waited_s: float, before_s: Sequence[float], after_s: Sequence[float]
) -> str:
    """Return the proof that a fault acts.

    Args:
        fault: the fault.
        waited_s: the time until the first packet met the rule.
        before_s, after_s: the round trips of the same edges before and after the start of the fault. Empty if none were measured.
    """
    text = f"first packet {_WORDS[fault.kind]} after {waited_s * 1e3:.1f} ms"
    if before_s:
        text += f", round trip {_longest(before_s)} before, {_longest(after_s)} now"
    return text


def ended_text(
    fault: NetworkFault, counts: Mapping[str, float], round_trips_s: Sequence[float]
) -> tuple[bool, str]:
    """Return whether a fault had an effect until its end, and the proof.

    Args:
        fault: the fault.
        counts: the counters of its rule, see `Rule`.
        round_trips_s: the round trips after its end.
    """
    packets, octets = int(counts["packets"]), int(counts["octets"])
    dropped, dropped_octets = int(counts["dropped"]), int(counts["dropped_octets"])
    healed = f"; round trip {_longest(round_trips_s)} again" if round_trips_s else ""
    if round_trips_s and max(round_trips_s) < 0:
        return False, "the edge did not heal: no round trip in time"
    match fault.kind:
        case "cut":
            return True, f"dropped {dropped:,} packets, {dropped_octets:,} bytes{healed}"
        case "reset":
            resets = int(counts["resets"])
            return True, f"answered {dropped:,} packets with {resets:,} RST{healed}"
        case "lose":
            text = f"dropped {dropped:,} of {packets:,} packets"
            return dropped > 0, (text if dropped else f"{text}: none was lost") + healed
        case _:
            mean_ms = counts["held_s"] / max(1, packets - dropped) * 1e3
            lost = f", {dropped:,} dropped" if dropped else ""
            text = (
                f"held back {packets:,} packets, {octets:,} bytes, by {mean_ms:.1f} ms on average"
            )
            return True, f"{text}{lost}{healed}"


_WORDS = {
    "cut": "dropped",
    "reset": "answered with RST",
    "lose": "met it",
    "slow": "held back",
    "delay": "held back",
}


def _longest(round_trips_s: Sequence[float]) -> str:
    if min(round_trips_s) < 0:
        return "too long"
    return f"{max(round_trips_s) * 1e3:.2f} ms"
