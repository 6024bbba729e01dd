"""The picture of a run: one HTML page that needs no other file and no network.

The page is computed from the history alone. `content` computes the data that the page draws. `page` puts the data and the plotting library
(Apache ECharts) into the template `page.html`. Every text from outside goes through `html.escape` or JSON.
"""

from __future__ import annotations

import html
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from graphquake.harness.history.events import (
    BecameReady,
    Died,
    Measured,
    PhaseBegan,
    Spawned,
    StepDone,
)
from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    AS_ASKED,
    Outcome,
    Request,
)
from graphquake.harness.promises.availability import Stretch, stalled_stretches
from graphquake.harness.promises.builtin import not_judged
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.reports.impact import account
from graphquake.harness.reports.story import story
from graphquake.harness.spec.plan import Until
from graphquake.harness.spec.replica import Replica

MIB: Final = 1 << 20
# A rate (right answers/s, failures/s) is drawn in about this many bins over the whole run. A bin lasts at least `BIN_MIN_S`.
BINS: Final = 200
BIN_MIN_S: Final = 0.25
# At most this many violations are drawn. A run with more of them usually shows the same bug many times.
VIOLATIONS_MAX: Final = 200
# The most notices of a cluster that the page shows.
NOTICES_MAX: Final = 100
NAME: Final = "run.html"


def write_page(history: History, folder: Path, links: Mapping[str, str] | None = None) -> Path:
    """Write the page of a run into its folder.

    Args:
        history: the run.
        folder: the folder of the run.
        links: links to show above the picture: text -> address.

    Returns:
        The path of the page.
    """
    path = folder / NAME
    path.write_text(page(history, links or {}), encoding="utf-8")
    return path


def page(history: History, links: Mapping[str, str]) -> str:
    """Return the HTML text of the page of a run. `links` are shown above the picture: text -> address."""
    verdict = judge(history)
    name = history.host.scenario or history.plan.one_line()
    return _filled(
        {
            "title": html.escape(f"{history.spec.name}: {name}"),
            "heading": html.escape(f"{history.spec.name} · {name}"),
            "kind": verdict.kind,
            "says": html.escape(verdict.text),
            "about": html.escape(_about(history)),
            "body": "\n".join(_body(history, verdict, links)),
            # A text from outside, e.g. of a log, must not close the `<script>` element that holds the data, or open another one.
            "data": json.dumps(content(history, verdict)).replace("<", "\\u003c"),
            "library": _part("echarts.min.js"),
            "script": _part("page.js"),
        }
    )


@cache
def _part(name: str) -> str:
    return (resources.files(__name__) / name).read_text(encoding="utf-8")


def _filled(words: Mapping[str, str]) -> str:
    pieces = _part("page.html").split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        word, _, rest = piece.partition("}}")
        filled += [words[word], rest]
    return "".join(filled)


def _about(history: History) -> str:
    began = [history.host.began.isoformat()] if history.host.began else []
    return " · ".join([history.spec.shape, str(history.spec.load), *began, *history.host.facts()])


# -------------------------------------------------------------------------------------------------------- the words


def _body(history: History, verdict: Verdict, links: Mapping[str, str]) -> Iterator[str]:
    if links:
        yield " · ".join(
            f'<a href="{html.escape(to, quote=True)}">{html.escape(text)}</a>'
            for text, to in links.items()
        )
    yield '<div id="picture"></div>'
    yield '<div class="two"><div>'
    steps = [f"{number}  {step}" for number, step in enumerate(history.plan.steps, 1)]
    rest = history.plan.lines()[len(steps) :]
    yield "<h2>plan</h2>" + _pre([*steps, *rest] or ["nothing is done"])
    yield "<h2>what happened</h2>" + _pre(story(history) or ["nothing worth telling"])
    yield "</div><div>"
    yield "<h2>promises</h2>" + _table(_promises(history, verdict))
    yield "<h2>numbers</h2>" + _table(_numbers(history))
    yield "</div></div>"
    if history.notices:
        yield "<h2>what the cluster said</h2>" + _table(_notices(history))


def _pre(lines: Iterable[str]) -> str:
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def _table(rows: Iterable[tuple[str, str, bool]]) -> str:
    cells = (
        f"<tr><th>{html.escape(name)}</th><td{' class=bad' * bad}>{html.escape(text)}</td></tr>"
        for name, text, bad in rows
    )
    return f"<table>{''.join(cells)}</table>"


def _notices(history: History) -> Iterator[tuple[str, str, bool]]:
    """Yield the first notices of the cluster, each with its time. Warnings are marked."""
    for one in history.notices[:NOTICES_MAX]:
        yield f"{one.at_s:.1f} s", str(one), one.warns
    if (left := len(history.notices) - NOTICES_MAX) > 0:
        yield "", f"and {left} more in notices.jsonl", False


def _promises(history: History, verdict: Verdict) -> Iterator[tuple[str, str, bool]]:
    untold = not_judged(history)
    for name in history.spec.promises.names:
        broken = [v for v in verdict.violations if v.promise == name]
        if not broken:
            kept = "not judged" if verdict.kind == "invalid" else "kept"
            yield name, f"n/a: {untold[name]}" if name in untold else kept, False
            continue
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        yield name, f"{broken[0].seen}{more}", True
    for cause in verdict.causes:
        yield "proves nothing", cause, True


def _numbers(history: History) -> Iterator[tuple[str, str, bool]]:
    numbers = account(history)
    yield "requests", f"{numbers.ok} right, {numbers.failed} failed, {numbers.shed} shed", False
    for name, side in (("before", numbers.before), ("after", numbers.after)):
        if side.latency.mean_s is not None:
            text = f"latency {_ms(side.latency.p50_s)} median, {_ms(side.latency.p99_s)} p99"
            first = f"; first token {_ms(side.first_token.p50_s)}, {_ms(side.first_token.p99_s)}"
            yield name, text + first * (side.first_token.p50_s is not None), False
    for one in numbers.impacts:
        parts = [f"{one.failed} failed", f"errors {_lasting(one.window_s)}"]
        parts += [f"served after {_within(one.first_ok_s)}", f"peak after {_within(one.peak_s)}"]
        yield one.step, ", ".join([*parts, f"ready after {_within(one.ready_s)}"]), False


def _ms(value_s: float | None) -> str:
    return "–" if value_s is None else f"{value_s * 1e3:.0f} ms"


def _lasting(value_s: float | None) -> str:
    return "to the end" if value_s is None else f"for {value_s:.2f} s"


def _within(value_s: float | None) -> str:
    return "never" if value_s is None else f"{value_s:.2f} s"


# --------------------------------------------------------------------------------------------------------- the data


def content(history: History, verdict: Verdict) -> dict[str, Any]:
    """Return the data that `page.js` draws, as values for JSON. Times are in seconds on the run's clock."""
    spec = history.spec
    begin_s = min((event.at_s for event in history.of(Spawned)), default=0.0)
    end_s = history.end_s
    replicas = spec.replicas()
    details: dict[str, int] = {}
    ended = [r for r in history.requests if r.outcome]
    requests: dict[str, list[list[float | int | None]]] = {}
    for request in ended:
        detail = f"{request.detail} {request.message}".strip()
        place = details.setdefault(detail, len(details))
        requests.setdefault(str(request.outcome), []).append(_point(request, place))
    return {
        "begin_s": _round(begin_s),
        "end_s": _round(end_s),
        "replicas": list(map(str, replicas)),
        "lives": list(_lives(history, replicas)),
        "phases": list(_phases(history, end_s)),
        "faults": [
            {
                "at_s": _round(f.begun_s),
                "number": f.number + 1,
                "step": str(f.step),
                "proof": f.proof,
            }
            for f in history.faults()
        ],
        "events": [
            {"at_s": _round(e.at_s), "step": str(e.step), "proof": e.proof}
            for e in history.of(StepDone)
            if isinstance(e.step, Until)
        ]
        + [
            {"at_s": _round(one.at_s), "step": f"{one.about}: {one.reason}", "proof": one.said}
            for one in history.notices[:NOTICES_MAX]
            if one.warns
        ],
        "heal_s": history.phase_began_s("heal") if history.plan.heal == "all" else None,
        "violations": [
            {"at_s": _round(v.at_s), "signature": str(v.signature), "seen": v.seen}
            for v in verdict.violations[:VIOLATIONS_MAX]
        ],
        "details": list(details),
        "requests": {
            name: requests[name] for name in sorted(requests, key=lambda n: n != Outcome.OK)
        },
        "rates": _rates(ended, end_s),
        "in_flight": _in_flight(ended),
        "waiting": list(_waiting(history)),
        "usage": list(_usage(history, replicas)),
    }


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _point(request: Request, detail: int) -> list[float | int | None]:
    first_s = _round(request.first_s - request.sent_s)
    sent_s, latency_s = _round(request.sent_s), _round(request.latency_s)
    return [sent_s, latency_s, request.number, first_s, detail]


def _lives(history: History, replicas: list[Replica]) -> Iterator[list[Any]]:
    """Yield the bars of all replicas: when an incarnation was starting, when it was ready, and when its replica was stalled.

    A bar is [index of the replica, begin, end, kind, incarnation, how the incarnation ended]. Times are in seconds. The kind is "starting",
    "ready" or "stalled".
    """
    ready_s = {(e.replica, e.incarnation): e.at_s for e in history.of(BecameReady)}
    deaths = {(e.replica, e.incarnation): e for e in history.of(Died)}
    end_s = history.end_s
    for event in history.of(Spawned):
        key = event.replica, event.incarnation
        death = deaths.get(key)
        how = "" if death is None else _how(death)
        gone_s = end_s if death is None else death.at_s
        up_s = min(ready_s.get(key, gone_s), gone_s)
        place = replicas.index(event.replica)
        parts = [("starting", Stretch(event.at_s, up_s)), ("ready", Stretch(up_s, gone_s))]
        for kind, part in parts:
            if part.end_s > part.begin_s:
                yield [
                    place,
                    _round(part.begin_s),
                    _round(part.end_s),
                    kind,
                    event.incarnation,
                    how,
                ]
    for replica, stretches in stalled_stretches(history).items():
        for one in stretches:
            yield [
                replicas.index(replica),
                _round(one.begin_s),
                _round(one.end_s),
                "stalled",
                0,
                "",
            ]


def _how(death: Died) -> str:
    return f"then {death.how}" + ("" if death.aimed else ", by itself")


def _phases(history: History, end_s: float) -> Iterator[list[Any]]:
    begun = [*((event.at_s, event.phase) for event in history.of(PhaseBegan)), (end_s, "")]
    for (from_s, name), (to_s, _) in pairwise(begun):
        yield [name, _round(from_s), _round(to_s)]


def _rates(ended: list[Request], end_s: float) -> dict[str, list[list[float]]]:
    bin_s = max(BIN_MIN_S, end_s / BINS)
    right, bad = Counter[int](), Counter[int]()
    for request in ended:
        (right if request.outcome in {Outcome.OK, Outcome.SHED, *AS_ASKED} else bad)[
            int(request.ended_s / bin_s)
        ] += 1
    bins = range(int(end_s / bin_s) + 1)
    return {
        name: [[round((at + 1) * bin_s, 3), round(counts[at] / bin_s, 2)] for at in bins]
        for name, counts in (("ok", right), ("bad", bad))
    }


def _in_flight(ended: list[Request]) -> list[list[float]]:
    """Return [time, number of requests in flight] at each change of that number. Of very many changes, every n-th is returned."""
    moments = sorted([*((r.sent_s, 1) for r in ended), *((r.ended_s, -1) for r in ended)])
    level, points = 0, []
    for at_s, change in moments:
        level += change
        points.append([round(at_s, 3), level])
    every = max(1, len(points) // (10 * BINS))
    return points[::every]


def _waiting(history: History) -> Iterator[list[float]]:
    found: dict[float, float] = {}
    for one in history.of(Measured):
        if one.waiting is not None:
            found[one.at_s] = found.get(one.at_s, 0.0) + one.waiting
    yield from ([round(at_s, 3), waiting] for at_s, waiting in found.items())


def _usage(history: History, replicas: list[Replica]) -> Iterator[dict[str, Any]]:
    samples = list(history.of(Measured))
    for replica in replicas:
        own = [one for one in samples if one.replica == replica]
        yield {
            "replica": str(replica),
            "cores": [[round(one.at_s, 3), one.cores] for one in own],
            "rss": [[round(one.at_s, 3), round(one.rss_bytes / MIB, 1)] for one in own],
            "gpu": [[round(one.at_s, 3), round(one.gpu_bytes / MIB, 1)] for one in own],
        }
