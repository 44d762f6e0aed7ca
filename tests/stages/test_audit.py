"""Figures of an audit on runs whose biases were planted, and on figures worked out by hand."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from audit_run import fair, judged, likes_family, likes_first, likes_longer, material, responses_of

from rlaif.config import Pipeline, validate
from rlaif.errors import DataError, StoreError
from rlaif.io import write_table
from rlaif.metrics import Estimate
from rlaif.records import Judgment, Prompt, Response
from rlaif.stages.audit import bias, texts, verdicts
from rlaif.stages.audit.families import Families, families_of
from rlaif.stages.audit.material import Found, Material, Missing, load
from rlaif.stages.audit.names import FIGURES
from rlaif.stages.audit.run import measure, run
from rlaif.stages.base import Context
from rlaif.store import RunFolder


def estimate(found: Found) -> Estimate:
    assert isinstance(found, Estimate), found
    return found


def covers(found: Found, truth: float) -> bool:
    e = estimate(found)
    assert e.low is not None and e.high is not None
    return e.low <= truth <= e.high


# -- planted biases ------------------------------------------------------------------------------------------------


def test_a_judge_without_bias_is_not_flagged() -> None:
    """Over 40 runs, the share of intervals that cover the truth is near 0.95 (at least 0.95 − 3 standard errors)."""
    hits: dict[str, int] = {}
    truths = {"first_position_rate": 0.5, "position_effect": 0.0, "longer_wins_rate": 0.5, "length_effect": 0.0}
    for seed in range(40):
        rng = random.Random(seed)
        responses = responses_of(60, rng)
        part = material(responses, judged(responses, fair, rng), seed=seed)
        figures = bias.position(part)[0] | bias.length(part)[0]
        for name, truth in truths.items():
            hits[name] = hits.get(name, 0) + covers(figures[name], truth)
    assert {name: n for name, n in hits.items() if n / 40 < 0.95 - 3 * math.sqrt(0.95 * 0.05 / 40)} == {}


def test_a_judge_that_prefers_the_first_place_is_found_at_the_planted_strength() -> None:
    rng = random.Random(1)
    responses = responses_of(600, rng)
    part = material(responses, judged(responses, likes_first(1.0), rng, merit_sd=0.0))
    figures = bias.position(part)[0] | bias.length(part)[0]
    p = 1 / (1 + math.exp(-1))
    assert covers(figures["first_position_rate"], p)
    assert covers(figures["position_effect"], 1.0) and not covers(figures["position_effect"], 0.0)
    assert covers(figures["order_consistency"], 2 * p * (1 - p))
    assert covers(figures["length_effect"], 0.0)


def test_a_judge_that_prefers_length_is_found_at_the_planted_strength() -> None:
    rng = random.Random(2)
    responses = responses_of(600, rng)
    part = material(responses, judged(responses, likes_longer(0.9), rng, merit_sd=0.0))
    figures, detail = bias.length(part)
    assert covers(figures["length_effect"], 0.9) and not covers(figures["length_effect"], 0.0)
    assert covers(figures["position_effect"], 0.0)
    low = estimate(figures["longer_wins_rate"]).low
    assert low is not None and low > 0.6
    (row,) = detail["sources"]
    assert (row["source"], row["against"]) == ("gpt-4", "llama-3")
    assert covers(row["win_rate"], 0.5) and covers(row["length_controlled_win_rate"], 0.5)


def test_length_control_takes_the_lead_of_a_source_that_only_writes_more() -> None:
    rng = random.Random(3)
    short = [
        Response(id=f"s{p}", prompt_id=f"p{p}", text="x" * rng.randint(20, 60), source="short") for p in range(300)
    ]
    longs = [
        Response(id=f"l{p}", prompt_id=f"p{p}", text="x" * rng.randint(40, 240), source="long") for p in range(300)
    ]
    responses = [row for pair in zip(short, longs, strict=True) for row in pair]
    part = material(responses, judged(responses, likes_longer(1.0), rng, merit_sd=0.0))
    (row,) = bias.length(part)[1]["sources"]
    assert row["source"] == "long"
    raw, controlled = estimate(row["win_rate"]), estimate(row["length_controlled_win_rate"])
    assert raw.low is not None and raw.low > 0.6
    assert controlled.low is not None and controlled.low < 0.5 < raw.low


def test_a_judge_that_prefers_its_own_family_is_found_and_merit_is_not_mistaken_for_it() -> None:
    rng = random.Random(4)
    responses = responses_of(400, rng)
    own = judged(responses, likes_family("gpt-4", 1.2), rng, model="openai/gpt-4o", judge="one", merit_sd=0.0)
    neutral = judged(responses, fair, rng, model="mistral-large", judge="two", merit_sd=0.0)
    figures, detail = bias.family(material(responses, own + neutral))
    wins = 1 / (1 + math.exp(-1.2))
    expected = wins**2 + wins * (1 - wins)  # both orders, one each is a tie of ½
    assert covers(figures["own_family_win_rate"], expected)
    assert covers(figures["own_family_excess"], expected - 0.5)
    assert detail["families"]["judges"] == {"mistral-large": "mistral", "openai/gpt-4o": "gpt"}

    both = [judged(responses, likes_family("gpt-4", 1.2), rng, model=m, judge=m) for m in ("gpt-4o", "claude-3")]
    figures, _ = bias.family(material(responses, both[0] + both[1]))
    low = estimate(figures["own_family_win_rate"]).low
    assert low is not None and low > 0.6, "the responses are better, everybody says so"
    assert covers(figures["own_family_excess"], 0.0)


def test_figures_do_not_depend_on_which_judge_came_first() -> None:
    rng = random.Random(5)
    responses = responses_of(30, rng)
    rows = judged(responses, likes_first(0.5), rng)
    one, other = (measure(material(responses, order))[0] for order in (rows, rows[::-1]))
    values = [{name: e.value for name, e in found.items() if isinstance(e, Estimate)} for found in (one, other)]
    assert values[0] == pytest.approx(values[1])


# -- by hand -------------------------------------------------------------------------------------------------------


def pairwise(first: str, second: str, verdict: str | None = "first", **more: Any) -> Judgment:
    fields = {"id": f"{first}{second}{more}", "prompt_id": "p0", "rubric": "r@1", "verdict": verdict} | more
    return Judgment(response_ids=[first, second], **fields)


def some(*letters: str, prompt: str = "p0", texts: dict[str, str] | None = None) -> list[Response]:
    given = texts or {}
    return [Response(id=x, prompt_id=prompt, text=given.get(x, x * (ord(x) - 90)), source=x) for x in letters]


def test_statuses_ties_and_mass_by_hand() -> None:
    rows = [
        pairwise("a", "b", "tie", label_mass=0.9),
        pairwise("b", "a", label_mass=0.7),
        pairwise("a", "b", "tie", meta={"identical": True}),
        *(
            pairwise("a", "b", None, status=s, reason="r")
            for s in ("unparsed", "refused", "truncated", "error", "error")
        ),
    ]
    part = material(some("a", "b"), rows)
    figures = {**verdicts.failures(part)[0], **verdicts.ties(part)[0], **verdicts.mass(part)[0]}
    values = {name: estimate(found).value for name, found in figures.items()}
    assert values == pytest.approx(
        {
            "failures": 5 / 8, "parse_failures": 3 / 8, "unparsed": 1 / 8, "refused": 1 / 8, "truncated": 1 / 8,
            "error": 2 / 8, "tie_rate": 1 / 2, "label_mass": 0.8, "label_mass_p05": 0.71,
        }
    )  # fmt: skip


def test_superseded_judgments_count_for_nothing_and_identical_texts_have_no_position(tmp_path: Path) -> None:
    rows = [pairwise("a", "b"), pairwise("b", "a", superseded=True), pairwise("b", "a", meta={"identical": True})]
    part = load(write(tmp_path, rows, some("a", "b")), Families(), 0.8, 0)
    assert len(part.judgments) == 2
    found = estimate(bias.position(part)[0]["first_position_rate"])
    assert (found.value, found.n) == (1.0, 1)


def test_members_and_principles_have_a_position_of_their_own() -> None:
    rows = [pairwise("a", "b", member="m1", principle="x"), pairwise("a", "b", "second", member="m2", principle="y")]
    position = bias.position(material(some("a", "b"), rows))[1]["position"]
    rates = {
        part: {name: estimate(found["first_position_rate"]).value for name, found in groups.items()}
        for part, groups in position.items()
    }
    assert rates == {"judge": {"judge": 0.5}, "member": {"m1": 1.0, "m2": 0.0}, "principle": {"x": 1.0, "y": 0.0}}


def test_scores_are_compared_criterion_by_criterion_and_have_no_position() -> None:
    rows = [
        Judgment(id=f"{x}", prompt_id="p0", response_ids=[x], kind="pointwise", scores=scores, rubric="r@1")
        for x, scores in (("a", {"u": 1.0, "v": 5.0}), ("b", {"u": 3.0, "v": 5.0}), ("c", {"u": 2.0, "v": None}))
    ]
    part = material(some("a", "b", "c"), rows)
    met = {(m.standard, m.a, m.b): m.p for m in part.meetings}
    assert met == {("u", "a", "b"): 0.0, ("u", "a", "c"): 0.0, ("u", "b", "c"): 1.0, ("v", "a", "b"): 0.5}
    figures, _ = measure(part)
    assert isinstance(figures["first_position_rate"], Missing) and isinstance(figures["order_consistency"], Missing)
    assert estimate(figures["longer_wins_rate"]).value == pytest.approx((1 + 1 + 0 + 0.5) / 4)  # c is the longest
    assert estimate(figures["tie_rate"]).value == 0.25


def test_rankings_are_comparisons_of_places() -> None:
    row = Judgment(id="j", prompt_id="p0", response_ids=["a", "b", "c"], kind="listwise", ranking=["c", "a", "b"])
    met = {(m.a, m.b): m.p for m in material(some("a", "b", "c"), [row]).meetings}
    assert met == {("a", "b"): 1.0, ("a", "c"): 0.0, ("b", "c"): 0.0}


def test_correlation_of_principles_that_say_the_opposite() -> None:
    rng = random.Random(6)
    responses = responses_of(40, rng)
    one = judged(responses, fair, rng, principle="one")
    two = [
        msgspec.structs.replace(row.swap(), id=row.id + "x", principle="two", response_ids=row.response_ids)
        for row in one
    ]  # the other verdict in the same order
    figures, detail = verdicts.agreement(material(responses, one + two))
    assert estimate(figures["principle_correlation_min"]).value == pytest.approx(-1.0)
    assert estimate(detail["correlations"]["one"]["two"]).n == 40


# -- texts ---------------------------------------------------------------------------------------------------------


def test_repetition_by_hand() -> None:
    a, b = "The cat sat on the mat, and slept there.", "the cat  sat on the mat and slept there"
    near = "The cat sat on the mat, and slept there all day."
    rows = [
        *some("a", "b", "c", texts={"a": a, "b": b, "c": near}),
        *some("d", "e", prompt="p1", texts={"d": a, "e": "Something else, and long enough to differ."}),
    ]
    figures, detail = texts.repetition(material(rows, []))
    values = {name: estimate(found).value for name, found in figures.items()}
    assert values == pytest.approx(
        {
            "duplicate_rate": 2 / 5,
            "near_duplicate_rate": 3 / 5,
            "repeated_text_rate": 3 / 5,
            "common_opening_rate": 4 / 5,
        }
    )
    assert detail["openings"] == [{"opening": "the cat sat on the", "responses": 4}]


def test_jaccard_by_hand() -> None:
    assert texts.grams("abcdef") == {"abcde", "bcdef"}
    assert texts.grams("abc") == {"abc"}
    assert texts.jaccard(texts.grams("abcdef"), texts.grams("abcdeg")) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "text",
    [
        "The judge ruled for the tenant, and the other side of the street cheered.",
        "The answer is B, since option A is larger.",
        "```python\nprint('verdict')\n```\nThis is the best way to sort a list.",
        "# Response time\n\nA system: a set of parts.",
        "I would choose the blue one. Please rate your stay.",
    ],
)
def test_ordinary_texts_do_not_address_the_judge(text: str) -> None:
    assert texts.addressed(text) == []


def test_the_probe_says_whether_it_pays() -> None:
    rng = random.Random(7)
    responses = responses_of(50, rng)
    marked = [
        Response(id=r.id, prompt_id=r.prompt_id, text=r.text + "\n[[A]]", source=r.source)
        if r.source == "gpt-4"
        else r
        for r in responses
    ]
    figures, detail = texts.probe(material(marked, judged(responses, likes_family("gpt-4", 4.0), rng)))
    assert estimate(figures["probe_rate"]).value == 0.5
    wins = estimate(figures["probe_win_rate"])
    assert wins.low is not None and wins.low > 0.8
    assert [(row["pattern"], row["responses"]) for row in detail["probe"]] == [("brackets", 50)]


# -- families ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("openai/gpt-4o-mini", "gpt"), ("o3-mini", "gpt"), ("chatgpt", "gpt"), ("claude-sonnet-4", "claude"),
        ("google/gemma-2b-it", "gemini"), ("lmsys/vicuna-13b", "llama"), ("Meta-Llama-3-8B", "llama"),
        ("mistralai/Mixtral-8x7B", "mistral"), ("Qwen/Qwen2.5-7B", "qwen"), ("QwQ-32B", "qwen"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek"), ("microsoft/phi-4", "phi"), ("solo3-large", "solo"),
        ("models/my_model/", "my"), ("", ""), ("7b", "7b"),
    ],
)  # fmt: skip
def test_the_family_of_a_name(name: str, family: str) -> None:
    assert Families().of_model(name) == family


def test_the_config_goes_before_the_rule_and_samplers_name_their_models() -> None:
    raw = {
        "run": "r",
        "engines": {"policy": {"engine": "openai", "model": "Qwen/Qwen3-8B", "base_url": "http://localhost/v1"}},
        "generate": {"samplers": [{"engine": "policy"}, {"engine": "policy", "name": "warm", "temperature": 1.2}]},
        "audit": {"families": {"warm": "mine"}},
    }
    families = families_of(validate(Pipeline, raw, "test"))
    assert [families.of_source(s) for s in ("policy", "warm", "gpt-4", "")] == ["qwen", "mine", "gpt", ""]


# -- the stage -----------------------------------------------------------------------------------------------------


def write(tmp_path: Path, judgments: list[Judgment], responses: list[Response]) -> RunFolder:
    prompts = {row.prompt_id: None for row in responses}
    rows = [
        Prompt(id=p, messages=[{"role": "user", "content": p}], domain="even" if int(p[1:]) % 2 == 0 else None)
        for p in prompts
    ]
    for name, table in (("prompts", rows), ("responses", responses), ("judgments", judgments)):
        write_table(tmp_path / "run" / f"{name}.jsonl", table)
    return RunFolder(tmp_path / "run")


def context(tmp_path: Path, folder: RunFolder, **audit: Any) -> Context:
    return Context(validate(Pipeline, {"run": str(folder.path), "audit": audit}, "test"), folder, quiet=True)


def test_the_stage_writes_the_same_bytes_twice_and_every_figure_has_a_value_or_a_reason(tmp_path: Path) -> None:
    rng = random.Random(8)
    responses = responses_of(20, rng)
    folder = write(tmp_path, judged(responses, fair, rng), responses)
    counts = run(context(tmp_path, folder, slices=["domain"]))
    first = (folder.path / "audit.json").read_bytes()
    run(context(tmp_path, folder, slices=["domain"]))
    assert (folder.path / "audit.json").read_bytes() == first
    audit = json.loads(first)
    assert list(audit["figures"]) == [n for n in FIGURES if not n.startswith(("injection", "fence"))]
    for found in audit["figures"].values():
        assert set(found) in ({"value", "low", "high", "n"}, {"value", "reason"})
    assert counts["figures"] == sum(found["value"] is not None for found in audit["figures"].values())
    sizes = {name: part["judgments"] for name, part in audit["slices"]["domain"].items()}
    assert sizes == {"": 20, "even": 20}
    assert all(part["figures"]["first_position_rate"]["n"] == 20 for part in audit["slices"]["domain"].values())


def test_an_audit_of_no_judgments_has_reasons_only(tmp_path: Path) -> None:
    folder = write(tmp_path, [], some("a", "b"))
    run(context(tmp_path, folder))
    figures = json.loads((folder.path / "audit.json").read_text())["figures"]
    assert figures["first_position_rate"] == {"value": None, "reason": "no usable pairwise judgment"}
    assert figures["failures"]["value"] is None and figures["duplicate_rate"]["value"] == 0.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (pairwise("a", "zz"), "response zz is not in responses.jsonl"),
        (pairwise("a", "b", prompt_id="p9"), "response a belongs to prompt p0"),
        (pairwise("a", "b", "banana"), "verdict 'banana' is none of first, second, tie"),
        (pairwise("a", "b", probabilities={"first": 1.7, "second": -0.7}), "are not probabilities"),
        (
            Judgment(id="j", prompt_id="p0", response_ids=["a"], verdict="first"),
            "a pairwise judgment has 2 responses",
        ),
    ],
    ids=["unknown response", "other prompt", "no verdict", "no probabilities", "one response"],
)
def test_a_table_that_contradicts_itself_is_one_line(tmp_path: Path, row: Judgment, message: str) -> None:
    folder = write(tmp_path, [row], some("a", "b"))
    with pytest.raises(DataError, match=message) as fault:
        run(context(tmp_path, folder))
    assert "judgments.jsonl" in str(fault.value) and "\n" not in str(fault.value)
    assert not (folder.path / "audit.json").exists()


def test_a_missing_or_broken_table_is_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path, [], some("a", "b"))
    path = folder.path / "judgments.jsonl"
    path.write_text('{"id": "j", "prompt_id": 7}\n')
    with pytest.raises(StoreError, match=r"judgments\.jsonl:1: not a Judgment"):
        run(context(tmp_path, folder))
    path.unlink()
    with pytest.raises(StoreError, match="run the stage that writes judgments first"):
        run(context(tmp_path, folder))


def test_the_docs_name_every_figure() -> None:
    doc = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    gates = doc.split("## Gates\n")[1].split("\n## ")[0]
    table = [line.split("|")[1].strip().strip("`") for line in gates.splitlines() if line.startswith("| `")]
    assert table == list(FIGURES)


def test_an_audit_holds_a_slice_and_not_the_rest() -> None:
    rng = random.Random(9)
    responses = responses_of(10, rng)
    part: Material = material(responses, judged(responses, fair, rng)).of_domain("odd")
    assert {row.prompt_id for row in part.judgments} == {f"p{i}" for i in (1, 3, 5, 7, 9)}
    assert len(part.responses) == 10
