"""Tests of the reference graph's engine: its answers are exact for every batch and number of ranks, and wrong if the KV is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphquake.harness.reference import model
from graphquake.harness.reference.engine import STUCK_S, Engine, EngineError, EngineFull

from support.toys import in_loop, left_of

PROMPTS = st.text(string.ascii_lowercase, min_size=1, max_size=40)


def shard() -> model.Shard:
    """The whole model in this process, with two slots."""
    return model.Shard(model.Backend(), 1, 0, 1, 2, lambda partial: partial)


SHARD = shard()


def text_from(kv: bytes, token: int, count: int) -> str:
    """Return the text that follows a KV, beginning with its next token."""
    said, position = [token], SHARD.load(0, kv)
    for at in range(position, position + count - 1):
        said += SHARD.step([0], [said[-1]], [at])
    return bytes(said).decode()


@given(PROMPTS, st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_the_engine_agrees_with_the_oracle(prompt: str, count: int) -> None:
    """Prefill and decode steps give the same text as the oracle, which is written independently."""
    token, kv = SHARD.prefill(list(prompt.encode()))
    assert text_from(kv, token, count) == model.expected(prompt, count)


@given(PROMPTS, st.data())
@settings(deadline=None, max_examples=50)
def test_any_wrong_byte_of_a_kv_shows(prompt: str, data: st.DataObject) -> None:
    """One flipped bit in a KV changes the text. The chance of the same text is one in 62 to the 11th."""
    token, kv = SHARD.prefill(list(prompt.encode()))
    place = data.draw(st.integers(0, len(kv) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    flipped = kv[:place] + bytes([kv[place] ^ bit]) + kv[place + 1 :]
    assert text_from(flipped, token, 12) != model.expected(prompt, 12)


@given(PROMPTS, PROMPTS)
@settings(deadline=None, max_examples=25)
def test_the_kv_of_another_prompt_shows(mine: str, others: str) -> None:
    """The KV of another prompt changes the text, also if that prompt only lacks the first token."""
    token, _ = SHARD.prefill(list(mine.encode()))
    for wrong in {others, mine[1:] or "x"} - {mine}:
        _, kv = SHARD.prefill(list(wrong.encode()))
        assert text_from(kv, token, 12) != model.expected(mine, 12)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_a_kv_is_split_and_joined(tp: int) -> None:
    """The shares of any number of ranks have equal sizes, and join to the whole KV."""
    _, kv = SHARD.prefill(list(b"graphquake"))
    shares = model.split(kv, tp)
    assert len({len(share) for share in shares}) == 1
    assert model.join(shares) == kv


@pytest.mark.parametrize(("prefill_tp", "decode_tp"), [(1, 1), (2, 1), (1, 2), (4, 2)])
@in_loop
async def test_engines_in_a_batch(prefill_tp: int, decode_tp: int) -> None:
    """Thirty concurrent requests of different lengths are all right, also if prefill and decode use different numbers of ranks."""
    one = await Engine.start(tp=prefill_tp, step_s=0.0)
    two = await Engine.start(tp=decode_tp, step_s=0.0)

    async def answer(number: int) -> tuple[str, str]:
        prompt, count = "xyzw"[number % 4] * (1 + number), 2 + number % 7
        token, kv = await one.prefill(list(prompt.encode()))
        rest = [made async for made in two.decode(kv, token, count - 1)]
        return bytes([token, *rest]).decode(), model.expected(prompt, count)

    try:
        for got, right in await asyncio.gather(*map(answer, range(30))):
            assert got == right
        assert (two.running, two.waiting) == (0, 0)
    finally:
        await one.close()
        await two.close()
    assert left_of(os.getpid()) == []


@in_loop
async def test_a_reader_that_leaves_frees_its_slot() -> None:
    """A sequence whose reader has gone leaves the batch at once. A request is refused if all slots and places are taken."""
    engine = await Engine.start(max_seqs=2, step_s=0.01)
    try:
        token, kv = await engine.prefill([1, 2, 3])
        with pytest.raises(EngineError, match=r"expected whole positions"):
            await anext(engine.decode(kv[:-1], token, 1))
        endless = [engine.decode(kv, token, 2000) for _ in range(4)]
        firsts = [asyncio.ensure_future(anext(one)) for one in endless]
        await asyncio.wait(firsts[:2])
        assert (engine.running, engine.waiting) == (2, 2)
        with pytest.raises(EngineFull):
            await anext(engine.decode(kv, token, 1))
        await endless[0].aclose()
        await firsts[2]
        assert engine.waiting == 1
        firsts[3].cancel()
        await asyncio.wait(firsts[3:])
        for one in endless[1:]:
            await one.aclose()
        assert (engine.running, engine.waiting) == (0, 0)
    finally:
        await engine.close()


@in_loop
async def test_a_dead_rank_loses_the_engine() -> None:
    """If a rank dies, waiting calls fail within a second, and later calls fail at once."""
    engine = await Engine.start(tp=2, step_s=0.01)
    try:
        token, kv = await engine.prefill([1, 2, 3])
        tokens = engine.decode(kv, token, 2000)
        await anext(tokens)
        os.kill(engine.pids[1], signal.SIGKILL)
        begun_s = time.monotonic()
        with pytest.raises(EngineError, match="lost a rank"):
            async for _ in tokens:
                pass
        assert time.monotonic() - begun_s < 1.0
        assert engine.lost.is_set()
        with pytest.raises(EngineError, match="lost a rank"):
            await engine.prefill([1])
    finally:
        await engine.close()
    assert left_of(os.getpid()) == []


@in_loop
async def test_a_frozen_rank_fails_requests_until_it_runs_again() -> None:
    """While a rank is stopped, running and new requests fail, so that a router can send them elsewhere. Afterwards all is well."""
    engine = await Engine.start()
    try:
        token, kv = await engine.prefill(list(b"frozen"))
        tokens = engine.decode(kv, token, 500)
        await anext(tokens)
        begun_s = time.monotonic()
        os.kill(engine.pids[0], signal.SIGSTOP)
        with pytest.raises(EngineError, match="does not answer"):
            async for _ in tokens:
                pass
        assert STUCK_S <= time.monotonic() - begun_s < STUCK_S + 1.5
        assert engine.is_stuck
        with pytest.raises(EngineError, match="does not answer"):
            await engine.prefill(list(b"new"))
        os.kill(engine.pids[0], signal.SIGCONT)
        while engine.is_stuck:
            await asyncio.sleep(0.01)
        assert not engine.lost.is_set()
        made = [token] + [one async for one in engine.decode(kv, token, 7)]
        assert bytes(made).decode() == model.expected("frozen", 8)
    finally:
        os.kill(engine.pids[0], signal.SIGCONT)
        await engine.close()


@in_loop
async def test_an_engine_that_can_not_start_says_why() -> None:
    """A missing backend is an EngineError that names it. So is a number of ranks that does not divide the number of heads."""
    with pytest.raises(EngineError, match="tp: found 3, expected a divisor of 4"):
        await Engine.start(tp=3)
    with pytest.raises(EngineError, match=r"needs torch: pip install torch|torch sees no GPU"):
        await Engine.start(backend="torch")
    assert left_of(os.getpid()) == []
