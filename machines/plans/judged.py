"""Estimate the share of a run in which failures are judged, before the plan is run.

A run excuses failures for `window_s` after each fault and after the end of each stall. It excuses them while no path is up, and for
`first_ok_s` after that. A fault of the network also excuses those of the time that TCP needs (see `LinkFault.disturbs_s`). The rest of the
run is judged: its baseline, its end, and the time between faults that are far apart. So a plan of many faults, or one that takes away the
last path, judges little. Its run is probably weak (see `harness.promises.builtin`).

The estimate knows the times of the plan and those of the phases. It assumes that a replica starts in `START_S` seconds, and that each other
action takes no time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from graphquake.harness.promises.availability import Stretch, union
from graphquake.harness.promises.joined import is_joined
from graphquake.harness.run.execute import BASELINE_S, BEYOND_WINDOW_S, STEADY_S
from graphquake.harness.run.request_trail import CALM_S
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step, WaitReady
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.network.fault import LinkFault

# The assumed time from the start of a replica to its readiness, in seconds. A graph that starts more slowly has longer outages.
START_S: Final = 0.5


def judged_share(spec: GraphSpec, plan: Plan) -> float:
    """Return the share of the run's time in which failures are not excused, 0 to 1, as the model predicts it."""
    clock = _Clock(spec)
    for step in plan.steps:
        clock.take(step)
    return clock.end(plan)


@dataclass(slots=True)
class _Clock:
    """The predicted times of a run. All are seconds since its start.

    Attributes:
        spec: the graph.
        at_s: the present time.
        fault_s: the time of the last fault or end of a stall, 0 before the first.
        out_s: the time since when no path is up, or None while one is up.
        excused: the intervals in which failures are excused.
    """

    spec: GraphSpec
    at_s: float = BASELINE_S
    fault_s: float = 0.0
    out_s: float | None = None
    excused: list[Stretch] = field(default_factory=list)
    _model: GraphModel = field(init=False)

    def __post_init__(self) -> None:
        self._model = GraphModel(self.spec)

    def take(self, step: Step) -> None:
        """Carry out the next step."""
        if isinstance(step, LinkFault):
            self._disturb_links(step)
        elif step.is_fault:
            self._disturb(self.at_s)
            if 0 < step.lasts_s < math.inf:
                self._disturb(self.at_s + step.lasts_s)
        self._model = step.after(self._model)
        self.at_s += step.waits_s + step.plain_s + (START_S if isinstance(step, WaitReady) else 0.0)
        self._see_path()

    def _disturb(self, at_s: float) -> None:
        self.excused.append(Stretch(at_s, at_s + self.spec.promises.window_s))
        self.fault_s = max(self.fault_s, at_s)

    def _disturb_links(self, step: LinkFault) -> None:
        ends_s = self.at_s + step.lasts_s
        for begin_s, end_s in step.disturbs_s(self.at_s, self.at_s, ends_s, math.inf):
            self.excused.append(Stretch(begin_s, end_s + self.spec.promises.window_s))
            self.fault_s = max(self.fault_s, end_s)
        pairs = step.severs(self.spec)
        if pairs and not is_joined(
            self.spec, set(filter(self._model.works, self.spec.replicas())), pairs
        ):
            back_s = ends_s + step.settles_s + self.spec.promises.first_ok_s
            self.excused.append(Stretch(self.at_s, back_s))

    def _see_path(self) -> None:
        """Note that the last path has gone, or that a path is back."""
        if not self._model.serves():
            self.out_s = self.at_s if self.out_s is None else self.out_s
        elif self.out_s is not None:
            back_s = self.at_s + START_S + self.spec.promises.first_ok_s
            self.excused.append(Stretch(self.out_s, back_s))
            self.out_s = None

    def end(self, plan: Plan) -> float:
        """Let the stalls end, heal the graph, and return the judged share of the whole run."""
        left_s = max(
            (one.left_s for one in self._model.ongoing if one.left_s < math.inf), default=0
        )
        self.at_s += left_s
        self._model = self._model.later(left_s)
        if self._model.dead | self._model.ending | self._model.coming:
            self.at_s += START_S
        # Heal ends every outage, unless the plan leaves the dead dead.
        if plan.heal == "all":
            self._model = GraphModel(self.spec)
        self._see_path()
        self.at_s += CALM_S
        end_s = max(
            self.at_s + STEADY_S,
            self.fault_s + self.spec.promises.window_s + BEYOND_WINDOW_S,
            self.fault_s + plan.stay_s,
        )
        if self.out_s is not None:
            self.excused.append(Stretch(self.out_s, end_s))
        excused_s = sum(
            max(0.0, min(one.end_s, end_s) - one.begin_s) for one in union(self.excused)
        )
        return 1.0 - excused_s / end_s
