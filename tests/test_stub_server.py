"""The stub server itself: other tests trust that it is deterministic and that it understands the shipped frame."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from stub_server import StubHandle, hidden_score

from rlaif.driver import Driver
from rlaif.engines.openai import OpenAIEngine
from rlaif.judges.base import Task
from rlaif.judges.pairwise import PairwiseJudge
from rlaif.judges.verdicts import Choice
from rlaif.paths import shipped
from rlaif.records import FIRST, SECOND, Judgment, Prompt, Response
from rlaif.rubric import load_rubric
from rlaif.store import Journal
from rlaif.templates import load_frame

N = 12


def judged(server: StubHandle, path: Path, read: Any) -> list[list[Judgment]]:
    """N comparisons in both orders, with the shipped frame and rubric."""
    frame = load_frame(shipped("prompts") / "judges" / "pairwise.jinja")
    judge = PairwiseJudge(frame=frame, choice=Choice(read=read), rubric=load_rubric("helpfulness"))
    journal = Journal(path)
    prompts = [Prompt(id=f"p{n}", messages=[{"role": "user", "content": f"Question {n}?"}]) for n in range(N)]
    tasks = [
        Task(prompt=p, responses=[Response(id=f"{p.id}{k}", prompt_id=p.id, text=f"{k} for {p.id}") for k in "ab"])
        for p in prompts
    ]
    found = list(Driver({"judge": OpenAIEngine("stub", server.url)}, journal).run(judge(task) for task in tasks))
    journal.close()
    return found


@pytest.mark.parametrize("read", ["logprobs", "text"])
def test_it_judges_by_the_text_alone(server: StubHandle, tmp_path: Path, read: str) -> None:
    server.set(position_bonus=0)
    pairs = judged(server, tmp_path / "j.jsonl", read)
    assert len(pairs) == N
    for n, (one, other) in enumerate(pairs):
        better = FIRST if hidden_score(f"a for p{n}") > hidden_score(f"b for p{n}") else SECOND
        assert (one.status, other.status) == ("ok", "ok")
        assert one.verdict == better == other.swap().verdict


def test_the_first_place_has_a_bonus(server: StubHandle, tmp_path: Path) -> None:
    server.set(position_bonus=10)
    judgments = judged(server, tmp_path / "j.jsonl", "logprobs")
    assert {judgment.verdict for pair in judgments for judgment in pair} == {FIRST}


@pytest.mark.parametrize(("setting", "status"), [("rate_rubbish", "unparsed"), ("rate_refusal", "refused")])
@pytest.mark.parametrize("read", ["logprobs", "text"])
def test_replies_without_a_verdict(server: StubHandle, tmp_path: Path, setting: str, status: str, read: str) -> None:
    server.set(**{setting: 1})
    judgments = judged(server, tmp_path / "j.jsonl", read)
    assert {judgment.status for pair in judgments for judgment in pair} == {status}


def post(server: StubHandle, text: str) -> int:
    body = {"model": "stub", "messages": [{"role": "user", "content": text}], "max_tokens": 9}
    request = urllib.request.Request(f"{server.url}/chat/completions", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_faults_can_be_repeated_and_requests_are_counted(server: StubHandle) -> None:
    server.set(rate_500=0.5)
    first = [post(server, str(n % 10)) for n in range(30)]
    stats = server.stats(counts=True)
    assert set(first) == {200, 500} and first[:10] != first[10:20], "another try is another draw"
    assert (stats["requests"], stats["unique"], set(stats["counts"].values())) == (30, 10, {3})
    assert stats["answered"] == first.count(200)
    assert stats["sent_twice"] == sum(max(0, first[n::10].count(200) - 1) for n in range(10))
    server.clear()
    assert [post(server, str(n % 10)) for n in range(30)] == first
