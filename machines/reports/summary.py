"""The summary of a session as text, JSON and Markdown, made from the same numbers.

`summary.json` is for other programs. Every change of its form raises the number `schema`. For the whole session and for each graph it
holds `verdict` ("kept", "broken" or "proved nothing"). It also holds `exit_status`, the number that the `graphquake` commands return for
that verdict: 0, 1 or 3. Pytest has other status numbers: it returns 1 for "broken" and for "proved nothing".
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from graphquake.harness.errors import EXIT_BROKEN, EXIT_KEPT, EXIT_PROVED_NOTHING
from graphquake.harness.history.percentile import percentile
from graphquake.harness.reports.impact import account
from graphquake.machines.cases.replay import Replay, meaning_of
from graphquake.machines.findings.finding import Finding
from graphquake.machines.reports.finding_text import counted, finding_text, row, short
from graphquake.machines.runners.budget import duration_text
from graphquake.machines.runners.weakness import AT_IDLE, IN_VAIN, ON_BUSY

SCHEMA: Final = 1
WORDS: Final = ("kept", "broken", "invalid")
INVALID_SHARE_MAX: Final = 0.2
INVALID_OF_RUNS_MIN: Final = 5
_VERDICTS: Final = {
    EXIT_KEPT: "kept",
    EXIT_BROKEN: "broken",
    EXIT_PROVED_NOTHING: "proved nothing",
}


@dataclass(slots=True)
class GraphSummary:
    """The result of one graph's part of a session.

    Attributes:
        graph: the graph's name.
        seed: the seed of the session.
        spent_s: seconds of the budget that were spent.
        total_s: seconds of the budget, or infinity without a limit.
        versions: name -> version, as the graph file's commands print them.
        live: verdict -> number of live runs.
        causes: cause of an invalid run -> number of runs.
        drawn: `run`, or the reason why a drawn plan was not run -> number of plans.
        tried: kind of fault -> how often it landed in runs of drawn plans.
        not_tried: kinds of fault that can be drawn for the graph, and that never landed.
        hidden: case id -> number of runs in which the case explained a violation.
        hidden_text: case id -> description of the case.
        weak: reason -> number of valid runs of drawn plans that proved little, each counted once (see `Verdict.weak_because`).
        made_good: number of invalid runs that were repeated at once, with a valid result in the end.
        unserved: replica -> number of valid runs of drawn plans in which it had served nothing when the baseline ended.
        excused: number of failed requests that kept runs excused.
        excused_runs: number of kept runs that excused a failed request.
        unneeded: number of speculative runs that were ended because their result was not needed.
        nodes: node of a cluster -> number of live runs that it made. Empty if all runs were made on this machine.
        gpu_s: the sum of `run_s` times the number of GPUs of one run, in GPU-seconds.
        run_s: the duration of each live run, in seconds.
        replays: the replays of the graph's cases.
        findings: the new findings.
        ended: the reason why the search ended: `budget`, `findings` or `exhausted`. Empty if the search did not come to its end.
        error: the error that ended the session early, or `interrupted`. Empty if the session came to its end.
        strict_known: if true, a known case that does not break its promise any more fails the session.
        shard: the number of the shard that this summary is about, from 0. A shard is one process's part of the search.
        parts: the numbers of the shards whose results are added up here.
        folder: the name of the graph's folder in the results folder. If it is empty, it is the graph's name.
    """

    graph: str
    seed: int
    spent_s: float = 0.0
    total_s: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    not_tried: list[str] = field(default_factory=list)
    hidden: dict[str, int] = field(default_factory=dict)
    hidden_text: dict[str, str] = field(default_factory=dict)
    weak: dict[str, int] = field(default_factory=dict)
    made_good: int = 0
    unserved: dict[str, int] = field(default_factory=dict)
    excused: int = 0
    excused_runs: int = 0
    unneeded: int = 0
    nodes: dict[str, int] = field(default_factory=dict)
    gpu_s: float = 0.0
    run_s: list[float] = field(default_factory=list)
    replays: list[Replay] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    ended: str = ""
    error: str = ""
    strict_known: bool = False
    shard: int = 0
    parts: tuple[int, ...] = (0,)
    folder: str = ""

    def __post_init__(self) -> None:
        self.folder = self.folder or self.graph

    @property
    def runs(self) -> int:
        """The number of live runs."""
        return sum(self.live.values())

    @property
    def proved_nothing(self) -> bool:
        """True if the session did not come to its end, if no run was valid, or if more than a fifth of at least five runs were invalid.

        An invalid run that was made good does no harm, so it does not count.
        """
        invalid, runs = self._invalid, self.runs - self.made_good
        too_many = runs >= INVALID_OF_RUNS_MIN and invalid > INVALID_SHARE_MAX * runs
        return bool(self.error) or runs == invalid or too_many

    @property
    def _invalid(self) -> int:
        """The number of invalid runs that were not made good."""
        return self.live.get("invalid", 0) - self.made_good

    @property
    def new(self) -> list[Finding]:
        """The findings that fail the session."""
        return [finding for finding in self.findings if finding.counts]

    @property
    def back(self) -> list[Replay]:
        """The replays that fail the session."""
        perhaps_fixed = [
            one
            for one in self.replays
            if self.strict_known and one.case.status == "known" and one.word == "NOT REPRODUCED"
        ]
        return [one for one in self.replays if meaning_of(one)[0]] + perhaps_fixed

    @property
    def exit_status(self) -> int:
        """The exit status that the `graphquake` commands have for this verdict: 0 kept, 1 broken, 3 proved nothing."""
        if self.new or self.back:
            return EXIT_BROKEN
        return EXIT_PROVED_NOTHING if self.proved_nothing else EXIT_KEPT

    @property
    def verdict(self) -> str:
        """The verdict on the graph: `kept`, `broken` or `proved nothing`."""
        return _VERDICTS[self.exit_status]

    @property
    def verdict_line(self) -> str:
        """The last line: the verdict and its reasons. The exit status is left out, because it differs between pytest and the commands."""
        parts = [self.error] if self.error else []
        if self.exit_status == EXIT_PROVED_NOTHING:
            return ": ".join([self.verdict, *(parts or [self._why_nothing])])
        if self.new:
            parts.append(counted(len(self.new), "new finding"))
        if self.back:
            parts.append(counted(len(self.back), "case") + " failed")
        excused = f"; {self.excused_text}" if self.excused and self.verdict == "kept" else ""
        return f"{self.verdict}: {', '.join(parts) or 'nothing new'}{excused}"

    @property
    def _why_nothing(self) -> str:
        """The reason why a session that came to its end proved nothing."""
        if not self.runs:
            return "no run fitted into the budget" if self.ended == "budget" else "no run was made"
        return f"{self._invalid} of {counted(self.runs - self.made_good, 'run')} were invalid"

    @property
    def excused_text(self) -> str:
        """The failures that clients saw in kept runs, in words."""
        failed, runs = counted(self.excused, "failed request"), counted(self.excused_runs, "run")
        return f"{failed} excused in {runs}"

    def text(self) -> str:
        """The summary as it is printed."""
        versions = "".join(f" · {name} {version}" for name, version in self.versions.items())
        total = f" of {duration_text(self.total_s)}" if self.total_s < 1e6 else ""  # noqa: PLR2004
        shards = f" · {len(self.parts)} shards" if len(self.parts) > 1 else ""
        spent = f"{duration_text(self.spent_s)}{total}"
        lines = [f"{self.folder} · seed {self.seed}{shards} · {spent}{versions}"]
        lines += row("runs", self._runs_line())
        if self.nodes:
            nodes = (f"{count} on {node}" for node, count in sorted(self.nodes.items()))
            lines += row("nodes", ", ".join(nodes))
        if self.drawn:
            lines += row("plans", self._plans_line())
        if self.tried:
            tried = (f"{kind} × {count}" for kind, count in self.tried.items())
            lines += row("tried", " · ".join(tried))
        if self.unserved:
            idle = (f"{replica} in {count}" for replica, count in self.unserved.items())
            text = f"runs whose baseline ended before a replica had served: {', '.join(idle)}"
            lines += row("idle", text)
        if self.not_tried:
            lines += row("not tried", ", ".join(self.not_tried))
        for case, count in self.hidden.items():
            lines += row(
                "hidden",
                f"{self.hidden_text.get(case, case)}: in {count} runs; everything else was judged there",
            )
        for one in self.replays:
            lines += row("case", f"{one.case.id} {_case_text(one)}{_differs(one)}")
        for finding in self.findings:
            lines += row(
                "FINDING" if finding.counts else finding.case.status, _finding_line(finding)
            )
        return "\n".join([*lines, self.verdict_line])

    def _runs_line(self) -> str:
        counts = ", ".join(f"{self.live.get(word, 0)} {word}" for word in WORDS)
        causes = "; ".join(f"{count} {cause}" for cause, count in self.causes.items())
        causes += (
            f"; {self.made_good} of them repeated with a valid result" if self.made_good else ""
        )
        reasons = ", ".join(f"{count} {why}" for why, count in self.weak.items())
        weak = f", {sum(self.weak.values())} weak ({reasons})" if self.weak else ""
        excused = f", {self.excused_text}" if self.excused else ""
        beforehand = f", {self.unneeded} speculative ones not needed" if self.unneeded else ""
        return f"{self.runs} live: {counts}{f' ({causes})' if causes else ''}{weak}{excused}{beforehand}{self._took()}"

    def _took(self) -> str:
        if not self.run_s:
            return ""
        p90_s = percentile(self.run_s, 0.9) or 0.0
        gpus = f"; {self.gpu_s:.0f} GPU-seconds" if self.gpu_s else ""
        return f"; median {statistics.median(self.run_s):.1f} s, p90 {p90_s:.1f} s{gpus}"

    def _plans_line(self) -> str:
        parts = [f"{count} {became}" for became, count in self.drawn.items()]
        return f"{sum(self.drawn.values())} drawn: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """The entry of this graph in summary.json."""
        return {
            "graph": self.graph,
            "folder": self.folder,
            "verdict": self.verdict,
            "seed": self.seed,
            "shards": len(self.parts),
            "spent_s": round(self.spent_s, 1),
            "budget_s": round(self.total_s, 1) if self.total_s < 1e6 else None,  # noqa: PLR2004
            "versions": self.versions,
            "runs": {word: self.live.get(word, 0) for word in WORDS},
            "invalid_causes": self.causes,
            "run_s_median": round(statistics.median(self.run_s), 2) if self.run_s else None,
            "plans": self.drawn,
            "tried": self.tried,
            "not_tried": self.not_tried,
            "hidden": self.hidden,
            "weak": sum(self.weak.values()),
            "weak_idle": self.weak.get(AT_IDLE, 0),
            "weak_in_vain": self.weak.get(IN_VAIN, 0),
            "weak_busy": self.weak.get(ON_BUSY, 0),
            "made_good": self.made_good,
            "unserved": self.unserved,
            "excused": self.excused,
            "excused_runs": self.excused_runs,
            "unneeded_runs": self.unneeded,
            "nodes": self.nodes,
            "gpu_s": round(self.gpu_s),
            "ended": self.ended,
            "error": self.error,
            "cases": [
                {"id": r.case.id, "status": r.case.status, "word": r.word, "broke": r.broke,
                 "runs": r.runs, "says": meaning_of(r)[1], "changed": list(r.changed)}
                for r in self.replays
            ],
            "findings": [
                {"id": f.case.id, "promise": f.case.promise, "title": f.case.title,
                 "steps": [str(s) for s in f.case.plan.steps], "status": f.case.status,
                 "counts": f.counts, "path": str(f.path) if f.path else None}
                for f in self.findings
            ],
            "exit_status": self.exit_status,
        }  # fmt: skip


def _finding_line(finding: Finding) -> str:
    case = finding.case
    seen = case.observed[-1] if case.observed else None
    rate = f"{seen.broke} of {seen.runs} runs" if seen else ""
    where = f"   {short(finding.path)}" if finding.path else ""
    steps = counted(len(case.plan.steps), "step")
    return f"{case.id}  {case.promise}  {steps}  {rate}{where}"


def _case_text(one: Replay) -> str:
    """What a replay means for its case, and the counts behind it, unless the meaning is the same text."""
    meaning = meaning_of(one)[1]
    return one.line if meaning == one.line else f"{meaning}: {one.line}"


def _differs(one: Replay) -> str:
    """The versions that changed since the case was seen, and the bounds and the load that the graph file now sets otherwise."""
    differs = f"; differs: {', '.join(one.differs)}" if one.differs else ""
    changed = f"; judged as the case, the graph file now says {', '.join(one.changed)}"
    return differs + (changed if one.changed else "")


def combined(summaries: list[GraphSummary]) -> int:
    """The exit status of several graphs: broken wins over proved nothing, and proved nothing wins over kept."""
    found = {one.exit_status for one in summaries}
    order = (EXIT_BROKEN, EXIT_PROVED_NOTHING)
    return next((status for status in order if status in found), EXIT_KEPT)


def properties(summary: GraphSummary) -> list[tuple[str, object]]:
    """The properties of a search in JUnit.

    They are its verdict, the failures that kept runs excused, and each finding's case, error window and recovery in seconds.
    """
    found: list[tuple[str, object]] = [("verdict", summary.verdict), ("excused", summary.excused)]
    for finding in summary.findings:
        impacts = account(finding.shown.history).impacts
        window_s = [one.window_s for one in impacts]
        first_s = [one.first_ok_s for one in impacts]
        found += [
            ("case", finding.case.id),
            ("error_window_s", _longest(window_s)),
            ("recovery_s", _longest(first_s)),
        ]
    return found


def failed_text(summary: GraphSummary) -> str:
    """The text of each finding and of each case that fails the session, then the verdict. JUnit shows it as the text of the failure."""
    findings = map(finding_text, summary.new)
    cases = (
        "\n".join(
            [
                f"case {one.case.id}  {one.case.title}",
                *row("plan", one.case.plan.one_line()),
                *row("replayed", f"{_case_text(one)}{_differs(one)}"),
                *row("replay", f"graphquake replay {one.case.id}"),
            ]
        )
        for one in summary.back
    )
    return "\n\n".join([*findings, *cases, summary.verdict_line])


def _longest(values: list[float | None]) -> str:
    """The longest of these times in seconds, or `never` if one of them is None: it did not end."""
    known = [value for value in values if value is not None]
    return "never" if len(known) < len(values) else f"{max(known, default=0.0):.3f}"


def write(summaries: list[GraphSummary], folder: Path) -> None:
    """Write the summaries of all graphs into summary.json and summary.md."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "schema": SCHEMA,
        "verdict": _VERDICTS[combined(summaries)],
        "exit_status": combined(summaries),
        "graphs": [s.to_json() for s in summaries],
    }
    text = json.dumps(data, indent=1, ensure_ascii=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    parts = [f"### {one.folder}\n\n```\n{one.text()}\n```\n" for one in summaries]
    (folder / "summary.md").write_text("\n".join(parts), encoding="utf-8")
