"""Tournaments and cascades on recorded judgments of real models (benchmarks/ has the whole of it)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from shared_data import shared

from rlaif.config import JudgeSection
from rlaif.judges import build
from rlaif.judges.base import Task
from rlaif.judges.tournament import TournamentJudge
from rlaif.metrics.selective import EVERYTHING, calibrate_cascade
from rlaif.records import Prompt, Reply, Request, Response

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def test_a_quarter_of_the_calls_keeps_most_of_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 seeds of the 200: mean .947 at 14 of 56 calls over all of them, random pairs .857; see benchmarks/README."""
    folder = shared("qlora")
    replay = benchmark("tournament_replay", monkeypatch)
    data = replay.load(folder / "vicuna_pairwise_gpt4.jsonl.gz")
    assert len(data) == 80 and all(len(one.replies) == 56 for one in data)
    active = replay.curve(data, "best_worst", "bradley_terry", None, 2)
    chance = replay.curve(data, "random", "bradley_terry", None, 2)
    assert active["calls"] == chance["calls"] == 14
    assert active["mean"] >= 0.92
    assert active["low"] > chance["high"]
    # everything asked: the label is the full tournament's own best and worst
    assert replay.curve(data[:15], "best_worst", "bradley_terry", 56, 1)["mean"] == pytest.approx(1.0)


def test_simulated_tournaments_need_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the calls, two seeds of 30 drawn prompts: active search well above random pairs."""
    replay = benchmark("tournament_replay", monkeypatch)
    data = replay.simulated(30)
    active = replay.curve(data, "best_worst", "bradley_terry", None, 2)
    chance = replay.curve(data, "random", "bradley_terry", None, 2)
    assert active["mean"] > chance["mean"] + 0.03


def test_promises_on_llmbar_are_kept_and_refused_where_they_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 random halves, α = δ = 0.1."""
    folder = shared("llmbar")
    llmbar = benchmark("cascade_llmbar", monkeypatch)
    data = llmbar.load(folder / "llmbar_results.jsonl.gz")
    allowed = 0.1 + 3 * (0.1 * 0.9 / 500) ** 0.5
    gpt4 = llmbar.halves(data["natural"], ("GPT-4/Vanilla",), 500)
    assert gpt4["promised"] >= 0.60
    assert gpt4["broken"] <= allowed
    for name in llmbar.WEAK:
        adversarial = llmbar.halves(data["adversarial"], (f"{name}/Vanilla",), 500)
        assert adversarial["promised"] <= 0.01, name
    for members in (("ChatGPT/Vanilla", "GPT-4/Vanilla"), ("PaLM2 ×5", "GPT-4/Vanilla"), ("PaLM2/Vanilla",)):
        for which in llmbar.SETS:
            assert llmbar.halves(data[which], members, 500)["broken"] <= allowed, (members, which)


def test_the_judge_does_what_the_plan_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cascade's generators on every natural item, with the recorded verdicts as replies: as many are escalated,
    answered and wrong as the plan counted on gold."""
    folder = shared("llmbar")
    data = benchmark("cascade_llmbar", monkeypatch).load(folder / "llmbar_results.jsonl.gz")["natural"]
    roles = {"cheap": "ChatGPT/Vanilla", "strong": "GPT-4/Vanilla"}
    p = {role: data.probabilities[evaluator] for role, evaluator in roles.items()}
    plan = calibrate_cascade(p, data.truths, agreement=0.85).slices[EVERYTHING]
    assert plan.promised and plan.asked is not None and plan.asked["strong"] < 0.5
    judge = _cascade(plan.thresholds["cheap"] or 0.5)
    asked_strong = answered = errors = 0
    for item, truth in enumerate(data.truths):
        judgments = _play(judge, item, p)
        asked_strong += any(judgment.member == "strong" for judgment in judgments)
        standing = [judgment for judgment in judgments if not judgment.superseded]
        winners = {judgment.response_ids[0 if judgment.verdict == "first" else 1] for judgment in standing}
        if len(winners) == 1:
            answered += 1
            errors += winners != {"b1" if truth else "b2"}
    assert asked_strong / data.truths.size == pytest.approx(plan.asked["strong"])
    assert (answered, errors) == (plan.answered, plan.errors)


class _Engine:
    identity = model = "recorded"

    def __init__(self) -> None:
        from rlaif.engines.base import Capabilities

        self.capabilities = Capabilities(logprobs=False)


def _cascade(threshold: float):  # type: ignore[no-untyped-def]
    section = JudgeSection(
        judge="cascade",
        rubric="helpfulness",
        members={name: {"engine": name} for name in ("cheap", "strong")},
        options={"threshold": threshold},
    )
    engine = _Engine()
    return build(section, lambda role: engine)  # type: ignore[arg-type, return-value]


def _requests(judge, task, answer):  # type: ignore[no-untyped-def]
    run, asked, replies = judge(task), [], None
    try:
        while True:
            requests = run.send(replies)
            asked += requests
            replies = [answer(request) for request in requests]
    except StopIteration:
        return asked


def _play(judge, item, p):  # type: ignore[no-untyped-def]
    prompt = Prompt(id=f"i{item}", messages=[{"role": "user", "content": "?"}])
    responses = [Response(id=f"b{n}", prompt_id=prompt.id, text=f"output {n}") for n in (1, 2)]

    def reply(request: Request) -> Reply:
        """P = 1 or 0: both orders name that one; ½: whoever is shown first, or no verdict at all (NaN)."""
        value = p[request.role][item]
        first = request.subject[1]
        if value != value:
            return Reply(text="I cannot say.")
        wins = first if value == 0.5 else "b1" if value == 1 else "b2"
        return Reply(text=f"Verdict: {'A' if wins == first else 'B'}")

    run = judge(Task(prompt=prompt, responses=responses))
    try:
        requests = next(run)
        while True:
            requests = run.send([reply(request) for request in requests])
    except StopIteration as stop:
        return stop.value


def test_the_tournament_of_a_config_is_the_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark measures the judge's defaults: the same requests for the same task."""
    replay = benchmark("tournament_replay", monkeypatch)
    engine = _Engine()
    section = JudgeSection(judge="tournament", rubric="helpfulness", ties=True)
    configured = build(section, lambda role: engine)  # type: ignore[arg-type, return-value]
    measured = TournamentJudge(judge=replay.pairwise())
    responses = [Response(id=f"r{i}", prompt_id="p", text=f"answer {i}") for i in range(8)]
    task = Task(prompt=Prompt(id="p", messages=[{"role": "user", "content": "?"}]), responses=responses)

    def higher_is_better(request: Request) -> Reply:
        _, first, second = request.subject
        return Reply(text=f"Verdict: {'A' if first > second else 'B'}")

    ours, theirs = (_requests(judge, task, higher_is_better) for judge in (configured, measured))
    assert len(ours) == 14
    assert ours == theirs
