"""Searches of simulated graphs."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from hypothesis import settings

from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.plans import novelty
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.sessions.search import SETTINGS, Ended, search

from support.made import plan_of
from support.sim_runner import SimRunner

PAIR = plan_of("kill decode 0", "kill prefill 0")
SINGLE = plan_of("kill decode 0")
QUICK = settings(SETTINGS, max_examples=300)


def searched(
    runner: SimRunner,
    folder: Path,
    *,
    seed: int = 1,
    findings_max: int = 1,
    journal: Path | None = None,
) -> tuple[Rounds, Ended]:
    """Search a simulated graph.

    Every drawn plan is run: here a run costs less than a draw, so no plan is passed over for a better one.
    """
    rounds = Rounds(
        FindingPipeline(
            runner, Corpus(folder / "cases"), RunLog(journal), results_dir=folder / "results"
        )
    )
    with mock.patch.object(novelty, "LOOK_MAX", 0):
        ended = search(rounds, seed, findings_max=findings_max, config=QUICK)
    rounds.log.close()
    return rounds, ended
