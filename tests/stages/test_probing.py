"""The judge of a guard's probes, over scripted engines: what it says, what it costs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.checks import check
from rlaif.config import Pipeline, validate
from rlaif.errors import BudgetReached, ConfigError
from rlaif.fingerprint import fingerprint
from rlaif.plan import dry_run
from rlaif.records import Reply, Request
from rlaif.stages.base import Context
from rlaif.stages.probing import probe_judge
from rlaif.store import RunFolder


def prefers_good(request: Request) -> Reply:
    """The response with "good" in it wins; where "odd" is asked about there is no verdict."""
    text = str(request.messages[-1]["content"])
    if "odd question" in text:
        return Reply(text="I cannot say.")
    return Reply(text=f"Verdict: {'A' if 'good' in text.split('Response B')[0] else 'B'}")


def config(folder: Path, *, guard: dict[str, Any] | None = None, **more: Any) -> Pipeline:
    engine = {"engine": "scripted", "function": f"{__name__}:prefers_good"}
    probes = folder / "probes.jsonl"
    probes.write_text('{"prompt": "is it good?"}\n', encoding="utf-8")
    guarded = {"probes": str(probes), "judge": "second", **(guard or {})}
    raw = {
        "run": str(folder / "run"),
        "engines": {"judge": {**engine, "model": "one"}, "second": {**engine, "model": "two"}},
        "judge": {"engine": "judge", "rubric": "helpfulness", "read": "text"},
        "train": {"dpo": {"model": "m", "dataset": "pairs.jsonl", "guard": guarded}},
        **more,
    }
    return validate(Pipeline, raw, "p.yaml")


def judged(context: Context, *rows: tuple[Any, str, str]) -> list[float | None]:
    judge = probe_judge(context, "dpo")
    assert judge is not None
    prompts, starts, texts = zip(*rows, strict=True)
    return judge(prompts, starts, texts)


def test_it_says_whether_the_policys_response_is_the_better_one(tmp_path: Path) -> None:
    """What it does not say is None and no tie; a text and a conversation of one turn are one question, so the first
    two comparisons are the same two requests, in both orders, the other way round."""
    with RunFolder(tmp_path / "run") as folder:
        context = Context(config(tmp_path), folder, quiet=True)
        conversation = [{"role": "user", "content": "a question"}]
        rows = [("a question", "bad", "good"), (conversation, "good", "bad"), ("an odd question", "bad", "good")]
        assert judged(context, *rows) == [1.0, 0.0, None]
        assert context.stats["second"].sent == 4
        again = Context(config(tmp_path), folder, quiet=True)
        assert judged(again, *rows) == [1.0, 0.0, None]
        assert again.stats["second"].sent == 0  # read from the journal


def test_the_budget_holds(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        context = Context(config(tmp_path, budget={"max_requests": 1}), folder, quiet=True)
        with pytest.raises(BudgetReached, match="max_requests 1"):
            judged(context, ("a question", "bad", "good"))


def test_no_guard_or_no_judge_is_none(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        assert probe_judge(Context(config(tmp_path, guard={"judge": None}), folder), "dpo") is None


def test_a_judge_that_labels_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RunFolder(tmp_path / "run") as folder:
        probe_judge(Context(config(tmp_path), folder), "dpo")
        assert not caplog.records
        probe_judge(Context(config(tmp_path, guard={"judge": "judge"}), folder), "dpo")
    assert "train.dpo.guard.judge: judge labelled the data too" in caplog.text


def test_what_is_refused_before_anything_runs(tmp_path: Path) -> None:
    def fault(**options: Any) -> str:
        with pytest.raises(ConfigError) as raised:
            made = config(tmp_path, **options)
            check(made, RunFolder(made.run), ["dpo"])
        return str(raised.value)

    assert fault(guard={"judge": "nobody"}).startswith("p.yaml: top level: train.dpo.guard.judge: no engine 'nobody'")
    assert fault(guard={"probes": "not/there/at-all"}).startswith("train.dpo.guard.probes: not/there/at-all: no such")
    assert fault(judge=None).startswith("train.dpo.guard.judge: a judge section is needed")
    assert "limits.x: no such figure" in fault(guard={"limits": {"x": {"max": 1}}})
    assert "a limit needs one of" in fault(guard={"limits": {"length": {}}})
    assert "repeats a repetition" in fault(guard={"refusals": ["(a+)+"]})
    assert "by: win_rate needs a judge" in fault(guard={"judge": None, "by": "win_rate"})
    assert "a reward model writes nothing" in fault(train={"reward": {"model": "m", "guard": {"probes": "x"}}})


def test_the_judge_is_part_of_what_the_training_is_and_of_the_plan(tmp_path: Path) -> None:
    def mark(**options: Any) -> str:
        made = config(tmp_path, **options)
        return fingerprint(made, RunFolder(made.run), "dpo")

    assert mark() != mark(judge={"engine": "judge", "rubric": "helpfulness", "read": "text", "temperature": 0.5})
    plain = mark(guard={"judge": None})
    assert plain == mark(guard={"judge": None}, judge={"engine": "judge", "constitution": "tiny-world"})
    (row,) = [line for line in dry_run(config(tmp_path, guard={"n": 10})).splitlines() if "guard" in line]
    assert row.split()[:4] == ["dpo:", "guard:", "second", "400"]  # 20 probes of 10 responses in both orders
