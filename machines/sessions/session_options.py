"""The options of a session, as the pytest plugin and the commands give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphquake.machines.runners.budget import UNLIMITED, Limit
from graphquake.machines.runners.on_ray.option import OnRay

# The number of findings after which a search ends, unless the user says otherwise.
FINDINGS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a session.

    Attributes:
        seed: the seed from which the plans are drawn.
        results_dir: the folder for journals, runs and summaries.
        shrink_limit: the limit of each shrink.
        replay_limit: the limit of each case's replay.
        findings_max: the search ends after this many new findings.
        corpus: the folder of the cases. None means the graph's own folder.
        keep_failed: if true, the folder of a broken or invalid run is never removed.
        strict: if true, an unconfirmed finding fails the session.
        strict_known: if true, a known case that does not break its promise any more fails the session.
        slots: the number of graphs that run side by side. None means as many as this machine carries.
        shrink_any: if true, a shrink may end at a plan that breaks another promise (see `FindingPipeline`).
        shard: the part of the search that this process does, from 0 (see `shards`).
        folder: the name of the session's folder in the results folder. If it is empty, it is the graph's name.
        resume: if true, go on with a search that was killed (see `resume`).
        seed_is_given: true if the user gave the seed. Without that, a search that goes on keeps its own.
        on_ray: the slots on a Ray cluster that the user asks for, or None if the runs are made on this machine.
    """

    seed: int
    results_dir: Path
    shrink_limit: Limit = UNLIMITED
    replay_limit: Limit = UNLIMITED
    findings_max: int = FINDINGS_MAX
    corpus: Path | None = None
    keep_failed: bool = False
    strict: bool = False
    strict_known: bool = False
    slots: int | None = None
    shrink_any: bool = False
    shard: int = 0
    folder: str = ""
    resume: bool = False
    seed_is_given: bool = False
    on_ray: OnRay | None = None
