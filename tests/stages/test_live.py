"""A judge as a reward function over a server that fails: what is asked, what is paid for again, what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stub_server import StubHandle

from rlaif.checks import check
from rlaif.config import Pipeline
from rlaif.errors import BudgetReached, ConfigError, EngineError, UserError
from rlaif.fingerprint import fingerprint
from rlaif.records import Judgment, Prompt, Request, Response
from rlaif.stages.base import Context
from rlaif.stages.live.record import Record, Score
from rlaif.stages.live.session import judges
from rlaif.stages.table import stage, stages_of
from rlaif.store import RunFolder

JUDGE = {"engine": "judge", "rubric": "helpfulness", "orders": "both", "read": "text"}
TEXTS = ["a light stone", "water always", "a light stone", "small green house"]
ROWS = [
    {"prompt": f"Question {q}?", "completion": [{"role": "assistant", "content": text}]}
    for q in (1, 2)
    for text in TEXTS
]
REQUESTS = 2 * 3 * 2  # prompts × pairs of three distinct texts × orders


def config(run: Path, url: str = "http://127.0.0.1:9/v1", trainer: str = "grpo", **more: Any) -> Pipeline:
    engine = {"engine": "openai", "model": "stub", "base_url": url, "name": "the-judge", "concurrency": 4}
    section = {"model": "m", "dataset": "d.jsonl", "rewards": [{"judge": True}], **more.pop(trainer, {})}
    raw = {"run": str(run), "engines": {"judge": engine}, "judge": JUDGE, "train": {trainer: section}, **more}
    return Pipeline.model_validate(raw)


def ask(made: Pipeline, *rollouts: tuple[Sequence[Any], int], trainer: str = "grpo") -> tuple[list[Any], Context]:
    """One session: the scores of each rollout (rows, step), and what it did."""
    with RunFolder(made.run) as folder:
        context = Context(made, folder, quiet=True)
        with judges(context, trainer) as found:
            (judge,) = found.values()
            return [judge(rows, step) for rows, step in rollouts], context


def table(run: Path, name: str, kind: type[Any]) -> list[Any]:
    return msgspec.json.Decoder(kind).decode_lines((run / "live" / "grpo" / f"{name}.jsonl").read_bytes())


def test_scores_and_their_record(server: StubHandle, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (first, second), context = ask(config(run, server.url), (ROWS, 0), (ROWS[:4], 8))
    assert context.stats["judge"].sent == REQUESTS, "a text that comes again, now or later, is judged once"
    assert first[:4] == second and first[0] == first[2] and all(0 <= score <= 1 for score in first)
    assert sum(first[:4]) == pytest.approx(2.0), "of each two, one's P(win) is one less the other's"
    prompts, responses = table(run, "prompts", Prompt), table(run, "responses", Response)
    assert [prompt.text for prompt in prompts] == ["Question 1?", "Question 2?"]
    assert [response.text for response in responses] == 2 * ["a light stone", "water always", "small green house"]
    known = {response.id for response in responses}
    said = table(run, "judgments", Judgment)
    assert len(said) == REQUESTS and {i for row in said for i in row.response_ids} == known
    scores = table(run, "scores", Score)
    assert [(row.step, row.score) for row in scores] == [(0, x) for x in first] + [(8, x) for x in second]


def test_a_training_that_is_run_again_pays_nothing_twice(server: StubHandle, tmp_path: Path) -> None:
    run = tmp_path / "run"
    limited = config(run, server.url, budget={"max_requests": 5})
    with pytest.raises(BudgetReached, match="stopped at max_requests 5"):
        ask(limited, (ROWS, 0))
    (scores,), context = ask(config(run, server.url), (ROWS, 0))
    assert context.stats["judge"].sent == REQUESTS - 5 and None not in scores
    assert server.stats()["sent_twice"] == 0
    before = {name: (run / "live" / "grpo" / f"{name}.jsonl").read_bytes() for name in ("responses", "judgments")}
    (again, later), context = ask(config(run, server.url), (ROWS, 0), (ROWS[:4], 2))
    assert context.stats["judge"].sent == 0 and again == scores
    for name, rows in before.items():
        assert (run / "live" / "grpo" / f"{name}.jsonl").read_bytes() == rows, "each row once"
    (resumed,), _ = ask(config(run, server.url), (ROWS[4:], 2))
    assert [row.step for row in table(run, "scores", Score)] == [0] * 8 + [2] * 4, "of steps that are done again"
    assert resumed == scores[4:] and later == scores[:4]


def test_a_failed_judgment_is_no_score(server: StubHandle, tmp_path: Path) -> None:
    server.set(always_fail="water")
    run = tmp_path / "run"
    made = config(run, server.url, budget={"retries": 0})
    with RunFolder(run) as folder, judges(Context(made, folder, quiet=True), "grpo") as found:
        scores = found[0](ROWS[:4], 0)
        assert (found[0].judged, found[0].unscored) == (4, 1)
    assert scores[1] is None and None not in (scores[0], scores[2], scores[3])
    (row,) = [row for row in table(run, "scores", Score) if row.score is None]
    assert row.reason == "no_usable_judgment"
    assert {judgment.status for judgment in table(run, "judgments", Judgment)} == {"ok", "error"}
    server.reset()
    (scores,), context = ask(config(run, server.url), (ROWS[:4], 0))
    assert None not in scores and context.stats["judge"].sent == 4, "only what had no reply is asked again"


def test_nothing_to_learn_from_is_one_line(server: StubHandle, tmp_path: Path) -> None:
    server.set(rate_rubbish=1.0)
    with pytest.raises(UserError, match=r"rewards\[0\].judge: not one of the 8 completions at step 4 .* for example"):
        ask(config(tmp_path / "run", server.url), (ROWS, 4))


def test_a_server_that_is_gone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="server down"):
        ask(config(tmp_path / "run"), (ROWS, 0))


def test_faults_on_the_way_are_tried_again(
    server: StubHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif.driver._BACKOFF_S", (0.01, 0.05))
    server.set(rate_500=0.3, rate_drop=0.2)
    (scores,), context = ask(config(tmp_path / "run", server.url), (ROWS, 0))
    assert None not in scores and context.stats["judge"].retried > 0 and server.stats()["sent_twice"] == 0


def test_other_judges_and_opponents(server: StubHandle, tmp_path: Path) -> None:
    run = tmp_path / "run"
    own = [Prompt(id=f"q{q}", messages=[{"role": "user", "content": f"Question {q}?"}]) for q in (1, 2)]
    start = [Response(id=f"s{q}", prompt_id=f"q{q}", text="grow slowly") for q in (1, 2)]
    with RunFolder(run) as folder:
        folder.write("prompts", own)
        folder.write("responses", start)
    rewards = {"rewards": [{"judge": True, "against": "responses"}]}
    lone = [ROWS[0], ROWS[5]]
    made = config(run, server.url, "ppo", ppo=rewards, prompts={"path": "x.jsonl"})
    (scores,), context = ask(made, (lone, 0), trainer="ppo")
    assert context.stats["judge"].sent == 4 and len(scores) == 2 and None not in scores


def test_lists_and_scores(tmp_path: Path) -> None:
    def scores(judge: str, reply: str) -> list[Any]:
        engine = {"judge": {"engine": "scripted", "replies": [], "default": reply}}
        section = {"judge": judge, "rubric": "helpfulness", "read": "text"}
        made = config(tmp_path / judge, grpo={"rewards": [{"judge": section}]}, engines=engine)
        return ask(made, ([ROWS[0], ROWS[1], ROWS[3]], 0))[0][0]

    # in two opposite orders the one in the middle is always best, and each of the others once second
    assert sorted(scores("listwise", "Ranking: B > A > C")) == [0.25, 0.25, 1.0]
    said = '{"scores": {"need_met": 5, "correct": 3, "usable": 1, "easy_to_read": 5}}'  # of 1–5: 1, ½, 0, 1
    assert scores("pointwise", said) == [pytest.approx((4 + 2 + 0 + 1) / 11)] * 3


def test_the_stage_depends_on_the_judge(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()

    def mark(**more: Any) -> str:
        made = config(tmp_path, **more)
        with RunFolder(tmp_path) as folder:
            return fingerprint(made, folder, "grpo")

    plain = mark()
    assert plain == mark() == mark(pair={"min_margin": 0.2, "select": "all_pairs"})
    assert plain != mark(judge={**JUDGE, "orders": "random"})
    assert plain != mark(pair={"principle_weights": {"helpfulness": 2.0}})
    assert plain != mark(grpo={"rewards": [{"judge": {**JUDGE, "rubric": "harmlessness"}}]})
    rewarded = {"rewards": [{"function": "m:f"}]}
    assert mark(grpo=rewarded) == mark(grpo=rewarded, judge={**JUDGE, "orders": "random"})
    made = config(tmp_path)
    assert list(stage("grpo").roles(made)) == ["judge"] and stage("grpo").loads_a_model(made)
    assert any("helpfulness" in str(path) for path in stage("grpo").files(made))


def test_a_judge_that_only_rewards_makes_no_labels(tmp_path: Path) -> None:
    prompts, pair = {"path": "p.jsonl"}, {"principle_weights": {"helpfulness": 2.0}}
    assert stages_of(config(tmp_path, prompts=prompts, pair=pair)) == ["prompts", "grpo"]
    labelled = config(tmp_path, prompts=prompts, pair=pair, export={})
    assert stages_of(labelled) == ["prompts", "judge", "pair", "export", "grpo"]


def rewarded(judge: Any, **more: Any) -> dict[str, Any]:
    return {"grpo": {"rewards": [{"judge": judge, **more}]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge": None}, r"train.grpo.rewards\[0\].judge: true, but this config has no judge section"),
        ({"pair": {"panel": "dawid_skene", "panel_gold": "g.json"}}, "a rollout is too little to weigh members"),
        ({"pair": {"panel_gold": "g.jsonl"}}, "its pairs are not those of a rollout"),
        (rewarded({**JUDGE, "judge": "pointwise"}, against="reference"), "single responses"),
        (rewarded(True, against="responses"), "no responses.jsonl, and nothing that writes it"),
        ({"trainer": "ppo"}, "group, but PPO writes one completion for a prompt: set `against: responses`"),
        (rewarded({**JUDGE, "read": "nonsense"}), "read"),
        (rewarded({**JUDGE, "engine": "other"}), r"rewards\[0\].judge.engine: no engine 'other'"),
        (rewarded(True, model="x"), "a reward is either"),
        (rewarded(None, function="m:f", against="reference"), "against: belongs to a judge"),
        (rewarded(False), "judge"),
    ],
)
def test_what_is_refused_before_anything_is_paid(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    name = changes.get("trainer", "grpo")
    with pytest.raises((ConfigError, ValueError), match=message):
        check(config(tmp_path, **changes), RunFolder(tmp_path), [name])


def test_ppo_may_write_groups(tmp_path: Path) -> None:
    check(config(tmp_path, trainer="ppo", ppo={"args": {"num_generations": 4}}), RunFolder(tmp_path), ["ppo"])


def test_a_torn_row_of_a_killed_training_goes(tmp_path: Path) -> None:
    record = Record(tmp_path / "live")
    (tmp_path / "live").mkdir()
    whole = msgspec.json.encode(Score(step=1, reward="judge", prompt_id="p", response_id="r", score=0.5)) + b"\n"
    (tmp_path / "live" / "scores.jsonl").write_bytes(whole + b'{"step": 2, "rew')
    record.add("judge", 2, [], [], {})
    assert (tmp_path / "live" / "scores.jsonl").read_bytes() == whole


def test_others_may_ask_while_it_is_open(server: StubHandle, tmp_path: Path) -> None:
    """As a guard's probe does: over the same engine, which must stay up, or over another, from the same budget."""
    base = config(tmp_path / "run", server.url).model_dump(mode="json")
    engines = {"judge": base["engines"]["judge"], "other": {**base["engines"]["judge"], "name": "another"}}
    made = Pipeline.model_validate({**base, "engines": engines, "budget": {"max_requests": REQUESTS + 1}})

    def one(role: str, text: str) -> Any:
        (reply,) = yield [Request(role=role, messages=[{"role": "user", "content": text}])]
        return reply.error or "answered"

    with RunFolder(made.run) as folder:
        context = Context(made, folder, quiet=True)
        with judges(context, "grpo") as found:
            assert None not in found[0](ROWS[:4], 0)
            for role in ("judge", "other"):
                assert list(context.drive("probe", [role], [one(role, "hello")], 1)) == ["answered"]
            with pytest.raises(BudgetReached):
                found[0](ROWS[4:], 2)
        assert context.stats["judge"].sent + context.stats["other"].sent == REQUESTS + 1
