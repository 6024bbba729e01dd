"""Find one plan within another.

A plan M embeds in a plan P if the steps of M are a subsequence of those of P, and P does at least as much. Its bursts are at least as
large, its stalls at least as long, and in each gap its waits sum up to at least as much. A wait for an event of P counts either as itself,
or as the plain wait that may stand in its place. Embedding over-approximates: a bug may need a *short* wait. These decisions rest on it:
which violations a known case may explain, and which kept runs of larger plans the shrinker counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphquake.harness.spec.plan import Plan, Step, Wait

# Waits are whole multiples of 10 ms. Two sums of waits that differ by less than this are equal: the rest is rounding.
SLACK_S = 1e-6


def embeds(small: Plan, large: Plan) -> bool:
    """True if `small` embeds in `large`."""
    return _earliest(small, large) is not None


def last_act(small: Plan, large: Plan) -> int | None:
    """Find the step of `large` at which `small` has acted for the last time, in the earliest embedding.

    An act is a step that is not a wait. A wait at the end of `small` comes after the last act.

    Returns:
        The index of the step in `large` (-1 if `small` only waits), or None if `small` does not embed.
    """
    return _earliest(small, large)


def _earliest(small: Plan, large: Plan) -> int | None:
    """Find the earliest embedding, and return what `last_act` returns."""
    if small.heal != large.heal or small.stay_s > large.stay_s + SLACK_S:
        return None
    acted, at, waited_s = -1, -1, 0.0
    # A shrink asks this a million times. So waits are told apart by their exact type: `isinstance` with an abstract class is slow.
    steps = [(other, other.for_s if type(other) is Wait else None) for other in large.steps]
    for step, wait_s in _acts(small.steps):
        # The earliest fitting step of `large` is the best choice: it leaves the most steps of `large` to the rest of `small`.
        for place in range(at + 1, len(steps)):
            at = place
            other, other_wait_s = steps[place]
            if other_wait_s is not None:
                waited_s += other_wait_s
            fits = step is not None and other_wait_s is None and other.covers(step)
            if fits and waited_s + SLACK_S >= wait_s:
                break
            # A wait for an event that is not needed as itself counts as a plain wait.
            waited_s += other.plain_s
            if step is None and waited_s + SLACK_S >= wait_s:
                break
        else:
            if step is not None or wait_s > SLACK_S:
                return None
        if step is not None and not step.is_wait:
            acted = at
        waited_s = 0.0
    return acted


def _acts(steps: tuple[Step, ...]) -> Iterable[tuple[Step | None, float]]:
    """Yield each step that is not a wait, with the seconds of waiting before it. Waiting at the end comes last, with None as its step."""
    waited_s = 0.0
    for step in steps:
        if type(step) is Wait:
            waited_s += step.for_s
        else:
            yield step, waited_s
            waited_s = 0.0
    if waited_s:
        yield None, waited_s
