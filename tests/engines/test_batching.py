"""The micro-batcher alone: order, failures, and a second life after close."""

from __future__ import annotations

import asyncio

import pytest

from rlaif.engines.batching import MicroBatcher


def doubler(seen: list[list[int]]) -> MicroBatcher[int]:
    def run(batch: list[int]) -> list[int]:
        seen.append(batch)
        return [2 * job for job in batch]

    return MicroBatcher(lambda jobs: [jobs[i : i + 3] for i in range(0, len(jobs), 3)], run)


def test_each_job_gets_its_own_answer_and_no_batch_is_larger_than_planned() -> None:
    seen: list[list[int]] = []

    async def work() -> list[int]:
        batcher = doubler(seen)
        answers = await asyncio.gather(*(batcher.submit(job) for job in range(20)))
        await batcher.close()
        return list(answers)

    assert asyncio.run(work()) == [2 * job for job in range(20)]
    assert sorted(job for batch in seen for job in batch) == list(range(20))
    assert max(map(len, seen)) == 3


def test_it_can_be_used_again_after_close() -> None:
    async def work() -> list[int]:
        batcher = doubler([])
        await batcher.close()  # never used: nothing to end
        first = await batcher.submit(1)
        await batcher.close()
        second = await asyncio.wait_for(batcher.submit(2), timeout=10)
        await batcher.close()
        return [first, second]

    assert asyncio.run(work()) == [2, 4]


def test_a_failing_batch_fails_its_callers_and_no_one_else() -> None:
    def run(batch: list[int]) -> list[int]:
        if 4 in batch:
            raise ValueError("four")
        return batch

    async def work() -> None:
        batcher: MicroBatcher[int] = MicroBatcher(lambda jobs: [[job] for job in jobs], run)
        with pytest.raises(ValueError, match="four"):
            await batcher.submit(4)
        assert await batcher.submit(5) == 5
        await batcher.close()

    asyncio.run(work())
