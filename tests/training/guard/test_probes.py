"""What a guard asks, and of whom, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif.config import GuardSection
from rlaif.errors import ConfigError
from rlaif.training.guard.monitors import Sample
from rlaif.training.guard.probes import Probes, Written, measured, rewards_of, wins
from rlaif.training.rewards import judged_by, missing_end

torch = pytest.importorskip("torch")


def written(*texts: str) -> Written:
    samples = [Sample(at, text, [1] * len(text), True) for at, text in enumerate(texts)]
    ids = [[at] for at in range(len(texts))]
    return Written([f"q{at}" for at in range(len(texts))], ids, ids, samples, {"domain": ["x"] * len(texts)})


def trainer(*functions: Any) -> Any:
    weights = torch.arange(1.0, len(functions) + 1)
    return SimpleNamespace(reward_funcs=list(functions), reward_weights=weights, state=SimpleNamespace(global_step=4))


def long(completions: Sequence[str], domain: Sequence[str], log_metric: Any, **_: Any) -> list[float]:
    log_metric("x", 1.0)
    assert list(domain) == ["x"] * len(completions)
    return [float(len(text)) for text in completions]


def some(completions: Sequence[str], **_: Any) -> list[float | None]:
    return [None if text == "a" else 10.0 for text in completions]


async def slow(**_: Any) -> list[float]:
    raise AssertionError("never asked")


def judge(*_: Any) -> list[float | None]:
    raise AssertionError("never asked")


def test_the_reward_is_the_weighted_sum_and_what_has_no_score_is_left_out() -> None:
    """1 × length + 2 × (10, or nothing)."""
    names, reward = rewards_of(GuardSection(probes="p"), trainer(long, some), "g")
    assert names == ["long", "some"] and reward is not None
    assert reward(written("a", "bb")) == [1.0, 22.0]


def test_no_live_judge_and_no_async_function_is_asked() -> None:
    """The missing-end penalty alone is no reward."""
    live = judged_by(judge, "judge")  # type: ignore[arg-type]
    ended = missing_end(lambda: {1})
    names, reward = rewards_of(GuardSection(probes="p"), trainer(live, slow, long, ended), "g")
    assert names == ["long", "missing_eos"] and reward is not None
    assert reward(written("bb")) == [3 * 2.0 + 4 * -1.0]
    assert rewards_of(GuardSection(probes="p"), trainer(live, slow, ended), "g") == ([], None)
    assert rewards_of(GuardSection(probes="p"), SimpleNamespace(), "g") == ([], None)
    assert rewards_of(GuardSection(probes="p", rewards=[]), trainer(long), "g") == ([], None)


def test_the_judge_is_asked_only_where_it_must() -> None:
    asked: list[Any] = []

    def says(prompts: Sequence[Any], starts: Sequence[str], texts: Sequence[str]) -> list[float | None]:
        asked.extend(zip(prompts, starts, texts, strict=True))
        return [0.7, 0.5, 0.2, None]

    starts = ["same", "x", "", "x", "x", "x", "x"]
    texts = ["same ", "", "y", "a", "b", "c", "d"]
    assert wins(says, [f"q{n}" for n in range(7)], starts, texts) == [0.5, 0.0, 1.0, 1.0, 0.5, 0.0, None]
    assert asked == [("q3", "x", "a"), ("q4", "x", "b"), ("q5", "x", "c"), ("q6", "x", "d")]
    with pytest.raises(ConfigError, match=r"guard.judge: 1 verdicts for 2 comparisons"):
        wins(lambda *_: [0.5], ["p", "p"], ["x", "x"], ["y", "z"])


def test_figures_of_each_domain() -> None:
    samples = written("no", "yes", "yes").samples
    values = {"win_rate": [1.0, None, 0.0]}
    found = measured(samples, values, ["a", "b", None], lambda text: text == "no")
    assert found["refusal_rate"] == pytest.approx(1 / 3) and found["win_rate"] == 0.5
    assert found["a/refusal_rate"] == 1.0 and found["a/win_rate"] == 1.0
    assert found["b/refusal_rate"] == 0.0 and found["b/win_rate"] is None


@pytest.mark.parametrize("sharded", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_weights_that_are_shared_out_are_refused(sharded: str, tmp_path: Path) -> None:
    """A fake trainer: on CPUs accelerate shards nothing, whatever its file says."""
    from rlaif.training.guard.watch import Guard

    probes = Probes(["q"], [None], {}, {})
    guard = Guard(GuardSection(probes="p"), probes, method="dpo", where="train.dpo.guard", seed=0, judge=None)
    with pytest.raises(ConfigError, match=r"train.dpo.guard: the weights are shared out over the processes"):
        guard.attach(SimpleNamespace(**{sharded: True}), tmp_path, resumed=False)
