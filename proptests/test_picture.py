"""Tests of the pages of a run and of a search: their content, and their drawing in a real browser."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.history.events import Measured
from graphquake.harness.history.history import History
from graphquake.harness.history.notices import Notice
from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.picture import content, page, write_page
from graphquake.harness.promises.judgement import judge
from graphquake.harness.spec.replica import Replica
from graphquake.machines.findings.artifacts import RunArchive
from graphquake.machines.runners.runner import RunResult

from support.browser import CHROMIUM, Browser
from support.made import Made, plan_of
from support.toys import in_loop

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
# The margins of the picture, its first panel's top, and a lane's height, in pixels, as in page.js.
LEFT, RIGHT, TOP, LANE = 110, 24, 70, 26
HOSTILE = "<!-- <script> </script><script>document.title = 'owned'</script>"
# The number of dots of each of these colors in the page's canvas, and the number of colors.
LOOK = """
(() => {
  const canvas = document.querySelector("canvas"), seen = {};
  const dots = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let at = 0; at < dots.length; at += 4) {
    const color = [dots[at], dots[at + 1], dots[at + 2]].join();
    if (dots[at + 3] > 250) seen[color] = (seen[color] || 0) + 1;
  }
  return {fault: seen["197,48,48"] || 0, violation: seen["184,50,128"] || 0, heal: seen["47,133,90"] || 0};
})()
"""


def broken() -> Made:
    """Build a kill and four seconds of failures, with a message that looks like code."""
    made = (
        Made(plan=plan_of("kill decode 0", "wait 0.50 s"))
        .steady(0.0, 2.0)
        .step("kill decode 0", 2.0)
    )
    made.steady(2.0, 6.0, outcome=Outcome.ERROR).steady(6.0, 9.0).step("wait 0.50 s", 2.5, number=1)
    for request in made.requests:
        request.message = HOSTILE if request.outcome == Outcome.ERROR else ""
    made.phase("heal", 2.5).spawn("decode 0", 2.6, ready_s=3.0).phase("recover", 2.6)
    for at_s in range(9):
        made.events.append(Measured(at_s, Replica("decode", 0), 0.5, 90 << 20, 0, 3.0, 1.0))
    return made


def test_the_contents_of_a_page() -> None:
    """The data hold all lives with their ends, the fault, the heal, each request with its outcome, and the resources."""
    history = broken().history()
    verdict = judge(history)
    data = content(history, verdict)
    assert data["replicas"] == ["frontend 0", "prefill 0", "decode 0", "decode 1"]
    lives = [(data["replicas"][one[0]], one[3], one[4]) for one in data["lives"]]
    assert lives.count(("decode 0", "ready", 0)) == lives.count(("decode 0", "starting", 1)) == 1
    assert data["faults"] == [{"at_s": 2.0, "number": 1, "step": "kill decode 0", "proof": "made"}]
    assert data["heal_s"] == 2.5
    assert sum(map(len, data["requests"].values())) == len(history.requests)
    assert len(data["requests"]["error"]) == 80
    assert len(data["violations"]) == len(verdict.violations) > 0
    assert {len(one["rss"]) for one in data["usage"]} == {0, 9}
    assert data["waiting"][0] == [0, 1.0]


def test_a_kept_run_says_what_it_excused() -> None:
    """The page of a kept run counts the failures that clients saw beside its verdict."""
    made = Made(plan=plan_of("kill decode 0")).steady(0.0, 9.0).step("kill decode 0", 2.0)
    assert '<span class="says kept">kept</span>' in page(made.history(), {})
    made.ask(2.1, outcome=Outcome.ERROR).ask(2.2, outcome=Outcome.ERROR)
    assert '<span class="says kept">kept, 2 failed requests excused</span>' in page(
        made.history(), {}
    )


def test_nothing_of_a_log_becomes_code() -> None:
    """A server's message is never run as code."""
    text = page(broken().history(), {})
    assert HOSTILE not in text
    assert re.search(r'<script id="data" type="application/json">\{.*\}</script>', text)


async def told_at(browser: Browser, data: dict[str, Any], at_s: float, y: float) -> str:
    """Hover over a time, y pixels below the top of the picture, and return the picture's text with its tooltip."""
    box = "document.getElementById('picture')"
    x0, y0, width = await browser.run(
        f"(({{x, y, width}}) => [x, y, width])({box}.getBoundingClientRect())"
    )
    share = (at_s - data["begin_s"]) / (data["end_s"] - data["begin_s"])
    await browser.point_at(x0 + LEFT + share * (width - LEFT - RIGHT), y0 + y)
    await asyncio.sleep(0.3)
    return str(await browser.run(f"{box}.innerText"))


@needs_browser
@in_loop
async def test_a_browser_draws_it(tmp_path: Path) -> None:
    """A browser draws the marks of fault, heal and violations, explains each mark and each life on hover, and reports no error."""
    history = broken().history()
    verdict = judge(history)
    data, first = content(history, verdict), verdict.violations[0]
    # The panel of the requests, 150 px high, follows that of four lanes. Violations lie on its time axis.
    below = TOP + 4 * LANE + 30
    path = write_page(history, tmp_path)
    async with Browser.open() as browser:
        await browser.show(path)
        assert await browser.run("document.title") == "made: kill decode 0; wait 0.50 s"
        seen = await browser.run(LOOK)
        words = await browser.run("document.body.innerText")
        life = await told_at(browser, data, 1.0, TOP + 2.5 * LANE)
        # Between the lanes of prefill 0 and decode 0, no life hides a line.
        fault = await told_at(browser, data, 2.0, TOP + 2 * LANE)
        heal = await told_at(browser, data, 2.5, TOP + 2 * LANE)
        violation = await told_at(browser, data, first.at_s, below + 150)
        complaints = browser.complaints
    # A line across six panels of 80 px and more, some triangles of 9 px, and a dashed line.
    assert seen["fault"] > 400
    assert seen["violation"] > 50
    assert seen["heal"] > 100
    assert "error_window" in words
    assert "decode 0, incarnation 0: ready" in life
    assert "kill decode 0 at 2.00 s" in fault
    assert "healed at 2.50 s" in heal
    assert f"{first.signature} at " in violation
    assert complaints == []


@needs_browser
@in_loop
async def test_fifty_thousand_requests_open_quickly(tmp_path: Path) -> None:
    """A page with 50,000 requests is drawn within two seconds, by the browser's own clock."""
    made = Made(plan=plan_of("kill decode 0")).step("kill decode 0", 100.0)
    for number in range(50_000):
        made.ask(number / 250, number / 250 + 0.2 + (number % 97) / 400)
    path = write_page(made.history(), tmp_path)
    async with Browser.open() as browser:
        await browser.show(path)
        took_ms = await browser.run("performance.now()")
        complaints = browser.complaints
    assert took_ms < 2000
    assert complaints == []


# -------------------------------------------------------------------------------------------------------- saved pages


def outcome(folder: Path, made: Made, kilobytes: int) -> RunResult:
    """Make a run's folder of about this size."""
    history = made.history()
    folder.mkdir(parents=True)
    history.save(folder)
    (folder / "logs" / "big.log").write_bytes(b"x" * (kilobytes << 10))
    return RunResult(history.plan, judge(history), history, 1.0, folder)


@pytest.mark.parametrize(("spare", "left"), [(False, {"2"}), (True, {"0", "2"})])
def test_the_oldest_kept_runs_make_room(tmp_path: Path, spare: bool, left: set[str]) -> None:  # noqa: FBT001
    """The oldest kept runs are removed first, then broken ones unless they are spared. The size of the page counts."""
    kept = Made(plan=plan_of("kill decode 0")).steady(0.0, 2.0)
    archive = RunArchive(room_bytes=3 << 19, spare_shown=spare)
    for number, made in enumerate([broken(), kept, broken(), kept]):
        archive.add(outcome(tmp_path / str(number), made, 400))
    assert {path.name for path in tmp_path.iterdir()} == left
    assert all((path / "run.html").is_file() for path in tmp_path.iterdir())


def test_the_page_shows_what_a_cluster_said(tmp_path: Path) -> None:
    """Notices are on the page and are read back from the run folder. A folder without them has no such file, and no such part."""
    history = Made().steady(0.0, 3.0).history()
    history.notices = [Notice(1.0, "Pod web-1", "web 0", "Unhealthy", "it said <no>", warns=True, count=3)]  # fmt: skip
    text = page(history, {})
    assert "Pod web-1 (web 0): Unhealthy: it said &lt;no&gt; (3 times)" in text
    assert "what the cluster said" in text
    history.save(tmp_path)
    assert History.load(tmp_path).notices == history.notices
    (tmp_path / "notices.jsonl").unlink()
    assert History.load(tmp_path).notices == []
    assert "what the cluster said" not in page(History.load(tmp_path), {})
