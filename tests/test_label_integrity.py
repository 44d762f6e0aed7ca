"""What must hold for every label, whatever the judge said: properties, and the faults of published code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.config import JudgeSection, PairSection
from rlaif.engines.openai import OpenAIEngine
from rlaif.engines.scripted import ScriptedEngine
from rlaif.judges import build
from rlaif.judges.verdicts import Choice, plain
from rlaif.records import STATUSES, Judgment, Preference, Prompt, Reply, Request, Response, TokenLogprob, make_id
from rlaif.stages.judge import tasks
from rlaif.stages.kinds import Texts, pair_item, pair_row
from rlaif.stages.pair import pair
from rlaif.store import canonical_key

checked = settings(max_examples=50, deadline=None, derandomize=True)

FAILURES = [status for status in STATUSES if status != "ok"]
_MIRROR = {"first": "second", "second": "first", "tie": "tie"}


def paired(judgments, select="all_pairs", **section):
    return pair(judgments, PairSection(select=select, **section))


def meaning(preferences) -> list[tuple]:
    """Everything about preferences that is a label, without the order of their judgments."""
    return sorted((p.prompt_id, p.chosen_id, p.rejected_id, p.probability, p.consistent) for p in preferences)


# --- judgments as they may come ----------------------------------------------------------------------------------

probability = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 0.1, 0.3]), st.floats(0, 1, allow_subnormal=False))


@st.composite
def outcomes(draw) -> dict:
    kind = draw(st.sampled_from(["soft", "soft with tie", "text", "failed"]))
    if kind == "failed":
        return {"status": draw(st.sampled_from(FAILURES)), "reason": "for the test"}
    if kind == "text":
        return {"verdict": draw(st.sampled_from(list(_MIRROR)))}
    p, tie = draw(probability), draw(probability) if kind == "soft with tie" else 0.0
    return {"probabilities": {"first": p * (1 - tie), "second": (1 - p) * (1 - tie), "tie": tie}}


@st.composite
def judgment_sets(draw) -> list[Judgment]:
    """A few prompts, each with up to four responses, judged in both orders or in one, under one or two principles."""
    found = []
    for prompt in range(draw(st.integers(1, 3))):
        ids = [make_id(prompt, i) for i in range(draw(st.integers(2, 4)))]
        asked = draw(st.sampled_from(["both", "random"]))
        principles = draw(st.sampled_from([[None], ["kind"], ["kind", "true"]]))
        for i, one in enumerate(ids):
            for other in ids[i + 1 :]:
                shown = [[one, other], [other, one]]
                shown = shown if asked == "both" else [draw(st.sampled_from(shown))]
                for principle in principles:
                    for pair_ids in shown:
                        found.append(
                            Judgment(
                                id=make_id(*pair_ids, principle),
                                prompt_id=str(prompt),
                                response_ids=pair_ids,
                                principle=principle,
                                meta={"orders": asked},
                                **draw(outcomes()),
                            )
                        )
    return found


selects = st.sampled_from(["all_pairs", "best_vs_worst"])


def relabelled(judgment: Judgment) -> Judgment:
    """The judge says the opposite of the same two responses in the same order."""
    return msgspec.structs.replace(judgment.swap(), response_ids=judgment.response_ids)


# --- properties --------------------------------------------------------------------------------------------------


@given(judgment_sets(), selects)
@checked
def test_swapping_the_shown_order_changes_nothing_and_mirrors_the_label(judgments, select):
    assert [j.swap().swap() for j in judgments] == judgments
    preferences, dropped = paired(judgments, select)
    swapped, swapped_dropped = paired([j.swap() for j in judgments], select)
    assert meaning(swapped) == meaning(preferences)
    assert swapped_dropped == dropped


@given(judgment_sets())
@checked
def test_the_opposite_verdicts_give_exactly_the_opposite_labels(judgments):
    preferences, dropped = paired(judgments)
    opposite, opposite_dropped = paired([relabelled(j) for j in judgments])
    assert [(p.id, p.chosen_id, p.rejected_id, p.probability) for p in opposite] == [
        (p.id, p.rejected_id, p.chosen_id, p.probability) for p in preferences
    ]
    assert opposite_dropped == dropped


@given(judgment_sets(), selects, st.randoms(use_true_random=False))
@checked
def test_the_order_of_the_judgments_does_not_matter(judgments, select, rng):
    shuffled = judgments[:]
    rng.shuffle(shuffled)
    first, second = paired(judgments, select), paired(shuffled, select)
    assert meaning(first[0]) == meaning(second[0])
    assert sorted(d.id + d.reason for d in first[1]) == sorted(d.id + d.reason for d in second[1])


@given(judgment_sets(), selects)
@checked
def test_what_failed_is_never_a_label(judgments, select):
    preferences, _ = paired(judgments, select)
    usable = {j.id for j in judgments if j.status == "ok"}
    assert all(set(p.judgment_ids) <= usable and p.judgment_ids for p in preferences)
    all_pairs, _ = paired(judgments)
    without, _ = paired([j for j in judgments if j.status == "ok"])
    assert meaning(without) == meaning(all_pairs)


@given(judgment_sets(), selects, st.floats(0, 0.5))
@checked
def test_every_label_is_sound(judgments, select, min_margin):
    preferences, dropped = paired(judgments, select, min_margin=min_margin)
    by_id = {j.id: j for j in judgments}
    for p in preferences:
        assert p.chosen_id != p.rejected_id
        assert 0.5 < p.probability <= 1
        assert p.probability - 0.5 >= min_margin - 1e-9
        assert p.judge_margin == pytest.approx(2 * p.probability - 1)
        assert {by_id[i].prompt_id for i in p.judgment_ids} == {p.prompt_id}
        assert p.swap().swap().chosen_id == p.chosen_id
    accounted = [p.id for p in preferences] + [d.id for d in dropped]
    assert len(accounted) == len(set(accounted))  # a pair has one fate


@given(st.sampled_from(FAILURES), st.sampled_from(["verdict", "probabilities", "scores", "ranking"]))
@checked
def test_a_failed_judgment_cannot_even_hold_a_verdict(status, field):
    value = {"verdict": "tie", "probabilities": {"first": 0.5, "second": 0.5}, "scores": {"x": 0.0}, "ranking": ["a"]}
    with pytest.raises(ValueError, match="cannot carry a verdict"):
        Judgment(id="j", prompt_id="p", response_ids=["a", "b"], status=status, **{field: value[field]})


@given(judgment_sets())
@checked
def test_judgments_and_preferences_survive_the_tables(judgments):
    def back(record):
        return msgspec.json.decode(msgspec.json.encode(record), type=type(record))

    assert [back(j) for j in judgments] == judgments
    preferences, _ = paired(judgments)
    assert [back(p) for p in preferences] == preferences


# --- through the real judge --------------------------------------------------------------------------------------

PROMPT = Prompt(id="q", messages=[{"role": "user", "content": "Why is the sky blue?"}])
Answer = Callable[[str, str], Reply]  # (text shown first, text shown second) → what the judge replies


def said(text: str, **fields) -> Reply:
    return Reply(text=text, **fields)


def soft(p_first: float) -> Reply:
    top = [("A", math.log(max(p_first, 1e-9))), ("B", math.log(max(1 - p_first, 1e-9)))]
    return Reply(text="A", logprobs=[TokenLogprob(*top[0], top)])


def responses_of(*texts: str, prompt: Prompt = PROMPT) -> list[Response]:
    return [Response(id=make_id(prompt.id, i), prompt_id=prompt.id, text=text) for i, text in enumerate(texts)]


def judged(responses: list[Response], answer: Answer, *, read="text", prompt=PROMPT, **options) -> list[Judgment]:
    """Every pair of `responses` through the shipped pairwise judge and rubric, in both orders."""
    section = JudgeSection(rubric="helpfulness", read=read, **options)
    judge = build(section, lambda role: ScriptedEngine(default="", logprobs=read == "logprobs"))
    found: list[Judgment] = []
    for task in tasks([(prompt, responses)], 2, "all", 0, []):
        run = judge(task)
        try:
            requests = next(run)
            while True:
                requests = run.send([answer(*shown_in(request, task.responses)) for request in requests])
        except StopIteration as end:
            found += end.value
    return found


def shown_in(request: Request, responses: list[Response]) -> list[str]:
    body = str(request.messages[-1]["content"])
    return sorted((r.text for r in responses), key=body.index)


def quality(text: str) -> float:
    return float(re.search(r"[\d.]+", text).group())


def by_quality(first: str, second: str) -> Reply:
    return said(f"Both are fine.\n\nVerdict: {'A' if quality(first) > quality(second) else 'B'}")


@given(st.lists(st.integers(0, 99), min_size=2, max_size=5, unique=True), st.floats(-3, 3), st.randoms())
@settings(checked, max_examples=20)
def test_permuting_the_candidates_permutes_the_labels(qualities, bias, rng):
    """Text by text the labels are the same bits, whatever place and id a candidate has and wherever it was shown."""

    def answer(first: str, second: str) -> Reply:
        return soft(1 / (1 + math.exp(-(quality(first) - quality(second)) / 10 - bias)))

    def labels(order: list[int]) -> list[tuple]:
        responses = responses_of(*(f"Answer of quality {q}." for q in order))
        text = {r.id: r.text for r in responses}
        preferences, _ = paired(judged(responses, answer, read="logprobs"))
        return sorted((text[p.chosen_id], text[p.rejected_id], p.probability, p.consistent) for p in preferences)

    permuted = qualities[:]
    rng.shuffle(permuted)
    assert labels(permuted) == labels(qualities)


@given(st.text(max_size=200).filter(lambda text: "verdict" not in plain(text).casefold()))
@settings(checked, max_examples=200)
def test_a_reply_without_a_verdict_is_never_a_label(text):
    parsed = Choice(read="text").parse(said(text))
    assert parsed.status in FAILURES
    assert parsed.label is None and parsed.probabilities is None


@given(st.floats(0, 1))
@settings(checked, max_examples=20)
def test_responses_that_the_judge_cannot_tell_apart_tie(p_first):
    """However strong the position bias: an answer that depends on the place alone is a tie, to the last bit."""
    judgments = judged(responses_of("Answer 1", "Answer 2"), lambda first, second: soft(p_first), read="logprobs")
    assert [d.reason for d in paired(judgments)[1]] == ["tie"]


def test_identical_responses_tie_without_being_asked():
    def nobody_asks(first: str, second: str) -> Reply:
        raise AssertionError("identical responses were sent to the judge")

    judgments = judged(responses_of("Answer 1", "Answer 1"), nobody_asks)
    assert [j.verdict for j in judgments] == ["tie", "tie"]
    assert [d.reason for d in paired(judgments)[1]] == ["tie"]


@given(st.lists(st.booleans(), min_size=2, max_size=6))
@settings(checked, max_examples=20)
def test_ids_and_texts_match_from_the_prompt_to_the_exported_row(parses):
    """Some prompts' judgments fail; every row that comes out still holds its own prompt's texts."""
    prompts = [Prompt(id=f"q{i}", messages=[{"role": "user", "content": f"Prompt {i}"}]) for i in range(len(parses))]
    responses = [responses_of(f"Prompt {i}: 1", f"Prompt {i}: 9", prompt=p) for i, p in enumerate(prompts)]
    judgments = []
    for prompt, answers, parse in zip(prompts, responses, parses, strict=True):
        better = by_last_digit if parse else lambda first, second: said("I cannot say.")
        judgments += judged(answers, better, prompt=prompt)
    preferences, _ = paired(judgments)
    texts = Texts({p.id: p for p in prompts}, {r.id: r for answers in responses for r in answers})
    rows = [pair_row(pair_item(preference), texts) for preference in preferences]
    assert [row["prompt"][0]["content"] for row in rows] == [f"Prompt {i}" for i, parse in enumerate(parses) if parse]
    for row in rows:
        prompt = row["prompt"][0]["content"]
        assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == (f"{prompt}: 9", f"{prompt}: 1")


def by_last_digit(first: str, second: str) -> Reply:
    return said(f"Verdict: {'A' if first[-1] > second[-1] else 'B'}")


# --- published preference code that is silently wrong: each fault, and that it is not ours ------------------------


def the_verdict_decides_and_not_the_place():
    responses = responses_of(*(f"Answer of quality {q}" for q in (3, 1, 4, 2)))
    text = {r.id: r.text for r in responses}
    preferences, _ = paired(judged(responses, by_quality))
    assert len(preferences) == 6
    assert all(quality(text[p.chosen_id]) > quality(text[p.rejected_id]) for p in preferences)
    first = [r.id for r in responses]
    assert {first.index(p.chosen_id) < first.index(p.rejected_id) for p in preferences} == {True, False}


def a_bad_row_shifts_nothing():
    test_ids_and_texts_match_from_the_prompt_to_the_exported_row.hypothesis.inner_test([True, False, True, True])


def blank_lines_and_preambles_shift_nothing():
    for before in ("", "\n\n", "Sure! Here is my comparison:\n\n", "1.\n\nA is longer.\n"):
        assert Choice(read="text").parse(said(before + "\nVerdict: B\n\n")).label == "B"


def a_fraction_is_not_cut_to_an_integer():
    parsed = Choice(labels=tuple("12345"), read="text").parse(said("Verdict: 4.5"))
    assert (parsed.status, parsed.label) == ("unparsed", None)


def a_tie_never_makes_a_response_win_against_itself():
    judgments = judged(responses_of("Answer 1", "Answer 2"), lambda first, second: said("Verdict: C"), ties=True)
    assert [j.verdict for j in judgments] == ["tie", "tie"]
    preferences, dropped = paired(judgments, "best_vs_worst")
    assert (preferences, [d.reason for d in dropped]) == ([], ["tie"])
    with pytest.raises(ValueError, match="chosen and rejected are both a"):
        Preference(
            id="x", prompt_id="q", chosen_id="a", rejected_id="a", probability=0.5, judge_margin=0, judgment_ids=[]
        )


def one_missing_verdict_blanks_no_other():
    def answer(first: str, second: str) -> Reply:
        return (
            said("None")
            if "quality 1" in first + second and "quality 2" in first + second
            else by_quality(first, second)
        )

    preferences, dropped = paired(judged(responses_of(*(f"Answer of quality {q}" for q in (1, 2, 3))), answer))
    assert (len(preferences), [d.reason for d in dropped]) == (2, ["no_usable_judgment"])


def one_and_ten_are_two_labels():
    ten = Choice(labels=tuple(map(str, range(1, 11))), read="text")
    assert [ten.parse(said(f"Verdict: {label}")).label for label in ("1", "10")] == ["1", "10"]
    assert Choice(labels=tuple("12345"), read="text").parse(said("Verdict: 10")).status == "unparsed"
    reply = Reply(text="10", logprobs=[TokenLogprob("10", -0.1, [("10", -0.1), ("1", -2.5)])])
    assert Choice(labels=tuple("12345")).parse(reply).status == "unparsed"  # "1" has 8 % of the mass


def the_prompt_is_never_read_as_the_verdict():
    responses = responses_of("Answer 1.\nVerdict: A", "Answer 2.\n[[A]] Verdict: A")
    judgments = judged(responses, lambda first, second: said("Verdict: B"))
    assert [j.verdict for j in judgments] == ["second", "second"]
    echoed = Choice(read="text").parse(
        said("As asked, I end with one line “Verdict: <letter>”.\nVerdict: <letter>\nVerdict: B")
    )
    assert echoed.label == "B"


def a_word_that_starts_with_a_label_is_no_label():
    assert Choice(labels=("A", "B", "C"), read="text").parse(said("Correct: A")).status == "unparsed"
    assert Choice(labels=("A", "B", "C"), read="text").parse(said("Verdict: Correct: A")).status == "unparsed"


def words_before_the_verdict_are_not_the_verdict():
    choice = Choice(labels=("yes", "no"), read="text")
    assert choice.parse(said("Answer: the response says no, twice: no.\nVerdict: yes")).label == "yes"


def a_reply_that_does_not_parse_is_neither_a_zero_nor_a_tie():
    judgments = judged(responses_of("Answer 1", "Answer 2"), lambda first, second: said("Both have their merits."))
    assert [(j.status, j.verdict, j.probabilities, j.scores) for j in judgments] == [
        ("unparsed", None, None, None)
    ] * 2
    assert [d.reason for d in paired(judgments)[1]] == ["no_usable_judgment"]


def one_id_on_both_sides_gives_no_label():
    judgment = Judgment(id="j", prompt_id="q", response_ids=["a", "a"], verdict="first", meta={"orders": "random"})
    preferences, dropped = paired([judgment])
    assert (preferences, [d.reason for d in dropped]) == ([], ["same_response"])


def a_cached_reply_is_found_only_for_the_same_question_to_the_same_model():
    request = Request(role="judge", messages=[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    system = msgspec.structs.replace(request, messages=[{"role": "system", "content": "t"}, request.messages[1]])
    template = msgspec.structs.replace(request, messages=[request.messages[0], {"role": "user", "content": "u "}])
    engines = [
        OpenAIEngine(model=model, base_url=url)
        for model in ("m1", "m2")
        for url in ("http://one.test/v1", "http://two.test/v1")
    ]
    keys = [canonical_key(r, engine.identity) for r in (request, system, template) for engine in engines]
    assert len(set(keys)) == len(keys) == 12


def votes_that_tie_go_to_nobody():
    one, other = (
        [Judgment(id=f"j{i}", prompt_id="q", response_ids=["a", "b"], verdict=v) for i, v in enumerate(verdicts)]
        for verdicts in (("first", "second"), ("second", "first"))
    )
    assert [d.reason for d in paired(one)[1]] == [d.reason for d in paired(other)[1]] == ["tie"]


PUBLISHED = {
    "open-instruct: chosen is always the first response": the_verdict_decides_and_not_the_place,
    "open-instruct: one bad row shifts every later pair onto the wrong prompt": a_bad_row_shifts_nothing,
    "distilabel: a blank line or a preamble shifts ratings": blank_lines_and_preambles_shift_nothing,
    "distilabel: 4.5 becomes 4": a_fraction_is_not_cut_to_an_integer,
    "distilabel: on ties chosen is the same response as rejected": a_tie_never_makes_a_response_win_against_itself,
    "distilabel: one None blanks a whole batch": one_missing_verdict_blanks_no_other,
    "UltraFeedback: 1 read as 10": one_and_ten_are_two_labels,
    "prometheus: the pattern matched the prompt": the_prompt_is_never_read_as_the_verdict,
    "simple-evals: 'Correct: A' parsed as C": a_word_that_starts_with_a_label_is_no_label,
    "verifiers: 'the response says no … Verdict: yes' parsed as no": words_before_the_verdict_are_not_the_verdict,
    "tinker-cookbook: parse failure gives 0.0 or a tie": a_reply_that_does_not_parse_is_neither_a_zero_nor_a_tie,
    "NeMo-Aligner: same id for both sides gives a random label": one_id_on_both_sides_gives_no_label,
    "caches: keys without system prompt, base URL, template or model": (
        a_cached_reply_is_found_only_for_the_same_question_to_the_same_model
    ),
    "inspect_ai: vote ties go to whoever answered first": votes_that_tie_go_to_nobody,
}


@pytest.mark.parametrize("fault", PUBLISHED)
def test_published_preference_code_that_is_silently_wrong(fault):
    PUBLISHED[fault]()
