"""Every judging mode as a run: judged, recorded whole, resumed from the journal, and planned as it is asked."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from stub_server import StubHandle, stub

from rlaif import io, pipeline
from rlaif.config import JudgeSection, Pipeline, validate
from rlaif.judges import build
from rlaif.judges.base import Task
from rlaif.plan import dry_run
from rlaif.records import Dropped, Judgment, Prompt, Reply, Request, Response, TokenLogprob
from rlaif.store import Journal

QUESTIONS = 3
ITEMS = ["Is it long?", "Is it a text?"]


def answer(request: Request) -> Reply | str:
    """Whatever is asked, in the form that was asked for: longer responses are better."""
    text = str(request.messages[-1]["content"])
    if request.labels:
        listed = [(label, -1.0 - place) for place, label in enumerate(request.labels)]
        return Reply(text=request.labels[0], logprobs=[TokenLogprob(*listed[0], listed)])
    if '{"items":' in text:
        return json.dumps({"items": ITEMS})
    if '"marks":' in text:
        return json.dumps({"rationale": "r", "marks": {"1": "no", "2": "yes"}})
    if '"scores":' in text:
        return json.dumps({"rationale": "r", "scores": dict.fromkeys(re.findall(r'"(\w+)": <whole', text), 4)})
    if "Ranking:" in text:
        shown = re.findall(r"## Response (\w+)\n\n```\n(.*?)\n```", text, re.DOTALL)
        return "Ranking: " + " > ".join(label for label, _ in sorted(shown, key=lambda item: -len(item[1])))
    return f"Reasons of draw {request.sample}.\nVerdict: A"


# the judge section, log-probs?, judgments, requests
MODES: dict[str, tuple[dict[str, Any], bool, int, int]] = {
    "reasons": ({"read": "rationale"}, True, 3 * 3 * 2, 3 * 3 * 2 * 2),
    "draws": ({"samples": 3, "temperature": 1.0}, False, 3 * 3 * 2, 3 * 3 * 2 * 3),
    "scores_from_logprobs": ({"judge": "pointwise"}, True, 9, 9 * 4),
    "scores_from_texts": ({"judge": "pointwise"}, False, 9, 9),
    "scores_from_draws": ({"judge": "pointwise", "samples": 2, "temperature": 1.0}, False, 9, 18),
    "ranking": ({"judge": "listwise", "options": {"permutations": 4}}, False, 3 * 4, 12),
    "checklist_from_logprobs": ({"judge": "checklist", "options": {"items": 2}}, True, 9, 3 + 9 * 2),
    "checklist_from_texts": ({"judge": "checklist"}, False, 9, 3 + 9),
}


def config(folder: Path, judge: dict[str, Any], logprobs: bool) -> Pipeline:
    rows = [
        {"prompt": f"Question {i}?", "responses": [f"{i} yes", f"{i} yes indeed", f"{i} yes indeed, and more"]}
        for i in range(QUESTIONS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = {"engine": "scripted", "function": f"{__name__}:answer", "logprobs": logprobs}
    raw = {
        "run": str(folder / "run"),
        "seed": 5,
        "engines": {"judge": engine},
        "prompts": {"path": str(folder / "rows.jsonl")},
        "judge": {"rubric": "helpfulness", **judge},
        "report": {},
    }
    return validate(Pipeline, raw, "p.yaml")


def judgments_of(folder: Path) -> list[Judgment]:
    return list(io.read_table(folder / "run" / "judgments.jsonl", Judgment))


@pytest.mark.parametrize("name", MODES)
def test_a_mode_runs_is_recorded_whole_resumes_and_is_planned(name: str, tmp_path: Path) -> None:
    judge, logprobs, n_judgments, n_requests = MODES[name]
    pipe = config(tmp_path, judge, logprobs)
    planned = dry_run(pipe)
    (line,) = [line for line in planned.splitlines() if line.startswith("  judge ")]
    assert int(line.split()[1]) == n_requests, "what is planned is what is asked, here where nothing fails"

    first = pipeline.run(pipe, quiet=True)["stages"]["judge"]
    judgments = judgments_of(tmp_path)
    assert (first["counts"]["judgments"], first["counts"]["statuses"]) == (n_judgments, {"ok": n_judgments})
    assert first["requests"]["sent"] == n_requests
    assert len({judgment.id for judgment in judgments}) == n_judgments
    journal = Journal(tmp_path / "run" / "journal.jsonl", writable=False)
    keys = {key for judgment in judgments for key in judgment.reply_keys}
    assert len(keys) == n_requests and all(journal.get(key) for key in keys), "every reply is named and there"
    journal.close()

    before = (tmp_path / "run" / "judgments.jsonl").read_bytes()
    again = pipeline.run(pipe, ["judge"], quiet=True, force=True)["stages"]["judge"]
    assert again["requests"]["sent"] == 0, "nothing is paid for twice"
    assert (tmp_path / "run" / "judgments.jsonl").read_bytes() == before
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000


def test_a_run_that_stops_in_the_middle_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    pipe = config(tmp_path, {"judge": "checklist"}, False)
    pipeline.run(pipe, quiet=True)
    whole = (tmp_path / "run" / "judgments.jsonl").read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    pipe = config(other, {"judge": "checklist"}, False)
    for most in (2, 3, 5):
        few = pipe.model_copy(update={"budget": pipe.budget.model_copy(update={"max_requests": most})})
        with pytest.raises(Exception, match="max_requests"):
            pipeline.run(few, quiet=True)
    pipeline.run(pipe, quiet=True)
    assert (other / "run" / "judgments.jsonl").read_bytes() == whole


def test_a_prompt_without_the_required_reference_is_dropped_with_its_reason(tmp_path: Path) -> None:
    pipe = config(tmp_path, {"judge": "pointwise", "reference": "require"}, False)
    rows = [{"prompt": "With?", "response": "yes", "reference": "yes"}, {"prompt": "Without?", "response": "no"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = pipeline.run(pipe, quiet=True)["stages"]["judge"]["counts"]
    assert counts["judgments"] == 1 and counts["dropped"] == {"no_reference": 1}
    (dropped,) = io.read_table(tmp_path / "run" / "dropped.jsonl", Dropped)
    assert (dropped.stage, dropped.reason) == ("judge", "no_reference")


# -- over HTTP ------------------------------------------------------------------------------------------------------


@pytest.mark.integration  # a server in a process of its own
def test_structured_output_over_http(tmp_path: Path) -> None:
    with stub() as server:
        found = _over_http(tmp_path, server)
    assert {judgment.status for judgment in found} == {"ok"}
    scores = {"need_met": 4.0, "correct": None, "usable": 2.0, "easy_to_read": 1.0}
    assert all(judgment.scores == scores for judgment in found)
    assert found[0].meta["not_judged"] == {"correct": "10 was not offered"}


def _over_http(folder: Path, server: StubHandle) -> list[Judgment]:
    said = {"rationale": "r", "scores": {"need_met": 4, "correct": 10, "usable": 2, "easy_to_read": 1}}
    message = {"role": "assistant", "content": f"```json\n{json.dumps(said)}\n```"}
    usage = {"prompt_tokens": 9, "completion_tokens": 9}
    server.set(
        reply=json.dumps(
            {"model": "stub", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        )
    )
    pipe = config(folder, {"judge": "pointwise", "read": "text"}, False)
    engine = {"engine": "openai", "model": "stub", "base_url": server.url}
    raw = pipe.model_dump(mode="json", exclude_unset=True) | {"engines": {"judge": engine}}
    pipeline.run(validate(Pipeline, raw, "p.yaml"), quiet=True)
    form = server.stats()["last"]["body"]["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"]
    assert form["json_schema"]["schema"]["properties"]["scores"]["properties"]["need_met"]["enum"][-1] is None
    return judgments_of(folder)


# -- with the shipped tiny judge ------------------------------------------------------------------------------------


def tiny(folder: Path, rows: list[dict[str, Any]], **judge: Any) -> list[Judgment]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = {
        "run": str(folder / "run"),
        "engines": {
            "judge": {"engine": "transformers", "model": "shipped:data/tiny/judge", "dtype": "float32"},
        },
        "prompts": {"path": str(folder / "rows.jsonl")},
        "judge": {"constitution": "tiny-world", "principles": "all", **judge},
    }
    pipeline.run(validate(Pipeline, raw, "p.yaml"), quiet=True, in_process=True)
    return judgments_of(folder)


@pytest.mark.integration  # loads a model and rates 80 responses under five principles
def test_the_tiny_judge_rates_as_the_oracle_does(tmp_path: Path) -> None:
    """It was trained to give the oracle's levels, on other prompts and phrases. On 120 held-out prompts (seed 11, 240
    responses) its scores had Spearman correlations of .88 to .94 with them."""
    from scipy.stats import spearmanr

    from rlaif.world.grammar import Mix, write_response
    from rlaif.world.oracle import principle_scores, rating
    from rlaif.world.prompts import sample_prompt

    rng = random.Random(7)
    worlds = {prompt.text: prompt for prompt in (sample_prompt(rng, "heldout") for _ in range(40))}
    rows = [
        {"prompt": text, "responses": [write_response(rng, prompt, "heldout", Mix()) for _ in range(2)]}
        for text, prompt in worlds.items()
    ]
    judgments = tiny(tmp_path, rows, judge="pointwise")
    texts = {r.id: r.text for r in io.read_table(tmp_path / "run" / "responses.jsonl", Response)}
    prompts = {p.id: worlds[p.text] for p in io.read_table(tmp_path / "run" / "prompts.jsonl", Prompt)}
    pairs: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for judgment in judgments:
        assert judgment.status == "ok" and judgment.principle and judgment.scores and judgment.distributions
        score, shares = judgment.scores[judgment.principle], judgment.distributions[judgment.principle]
        assert score is not None and score == pytest.approx(sum(int(step) * p for step, p in shares.items()))
        assert (judgment.label_mass or 0) > 0.9
        level = principle_scores(prompts[judgment.prompt_id], texts[judgment.response_ids[0]])[judgment.principle]
        if level is not None:
            pairs[judgment.principle].append((score, rating(judgment.principle, level) or 0))
    correlations = {name: spearmanr(*zip(*found, strict=True)).statistic for name, found in pairs.items()}
    assert len(correlations) == 5 and min(correlations.values()) > 0.7, correlations


QUESTION = [{"prompt": "What is the capital of France?", "responses": ["It is Paris.", "I do not know."]}]


@pytest.mark.integration  # loads a model and decodes
def test_reasons_that_never_end_are_no_reasons(tmp_path: Path) -> None:
    """The tiny judge was never trained to reason: it goes on till the limit, and nothing is read after that."""
    judgments = tiny(tmp_path, QUESTION, read="rationale", max_tokens=12)
    assert len(judgments) == 10, "five principles, both orders"
    assert {(judgment.status, len(judgment.reply_keys)) for judgment in judgments} == {("truncated", 1)}
    assert all(judgment.usage.completion_tokens == 12 for judgment in judgments)


@pytest.mark.integration  # loads a model
def test_logprobs_after_reasons_from_the_real_engine() -> None:
    """The reasons are written by hand; the chat template takes the longer conversation, and log-probs are exact."""
    from rlaif.engines.transformers import TransformersEngine

    engine = TransformersEngine("shipped:data/tiny/judge", dtype="float32")
    section = JudgeSection(constitution="tiny-world", read="rationale", min_label_mass=0.0)
    responses = [Response(id=str(i), prompt_id="p", text=text) for i, text in enumerate(QUESTION[0]["responses"])]
    prompt = Prompt(id="p", messages=[{"role": "user", "content": QUESTION[0]["prompt"]}])
    run = build(section, lambda role: engine)(Task(prompt=prompt, responses=responses))
    first = next(run)
    second = run.send([Reply(text="The first response is right.", key="r")] * 2)

    async def ask() -> list[Reply]:
        await engine.start()
        try:
            return [await engine.complete(request, 0) for request in second]
        finally:
            await engine.close()

    replies = asyncio.run(ask())
    with pytest.raises(StopIteration) as stop:
        run.send(replies)
    for asked, reply, judgment in zip(first, replies, stop.value.value, strict=True):
        listed = dict(reply.logprobs[0].top)  # type: ignore[index]
        p = {label: math.exp(listed[label]) for label in "AB"}
        assert reply.usage.completion_tokens == 1
        assert reply.usage.prompt_tokens > (engine.count_tokens(asked.messages) or 0) + 5, "the reasons are in it"
        assert judgment.label_mass == pytest.approx(sum(p.values()), abs=1e-4)
        assert judgment.probabilities["first"] == pytest.approx(p["A"] / sum(p.values()), abs=1e-4)
