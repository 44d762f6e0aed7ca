"""Who is chosen, who is rejected, and which pairs are kept: every expected pair is derived by hand beside it."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import pytest
from pydantic import ValidationError

from rlaif.config import PairSection
from rlaif.errors import ConfigError, DataError
from rlaif.records import Judgment, Response, make_id
from rlaif.stages.pair import pair
from rlaif.stages.selectors import Comparison, ends, selector

SEEN: list[tuple[int | None, int | None]] = []


def responses(lengths: dict[str, int], logprobs: dict[str, float] | None = None) -> list[Response]:
    found = logprobs or {}
    return [
        Response(id=name, prompt_id="q", text="x" * n, meta={"logprob": found[name]} if name in found else {})
        for name, n in lengths.items()
    ]


def scored(scores: dict[str, float], prompt: str = "q") -> list[Judgment]:
    """Pointwise: P(win) of a pair is certain, the margin is the difference of the scores."""
    return [
        Judgment(
            id=make_id(prompt, name), prompt_id=prompt, response_ids=[name], kind="pointwise", scores={"good": score}
        )
        for name, score in scores.items()
    ]


def compared(p: dict[str, float], prompt: str = "q") -> list[Judgment]:
    """Pairwise, one order: "ab" → P(a better)."""
    return [
        Judgment(
            id=make_id(prompt, shown), prompt_id=prompt, response_ids=list(shown),
            probabilities={"first": x, "second": 1 - x},
        )
        for shown, x in p.items()
    ]  # fmt: skip


def ranked(order: str) -> list[Judgment]:
    return [
        Judgment(
            id=make_id(order), prompt_id="q", response_ids=sorted(order), kind="listwise", ranking=list(order),
            meta={"permutation": 0},
        )
    ]  # fmt: skip


def selected(judgments: list[Judgment], texts: list[Response] | None = None, **section: Any) -> list[str]:
    """chosen and rejected of each preference, then the reasons of what was dropped."""
    preferences, dropped = pair(judgments, PairSection(**section), responses=texts)
    return [row.chosen_id + row.rejected_id for row in preferences] + [row.reason for row in dropped]


# --- rejected near μ − kσ -----------------------------------------------------------------------------------------

# μ = 46/8 = 5.75; Σ (x − μ)² = 75.5; σ = √(75.5/8) = 3.07; μ − 2σ = −.39, μ − σ = 2.68
SPREAD = {"a": 10.0, "b": 8.0, "c": 7.0, "d": 7.0, "e": 6.0, "f": 5.0, "g": 4.0, "h": -1.0}


@pytest.mark.parametrize(
    ("sds", "rejected"),
    [(2.0, "h"), (1.0, "g"), (0.5, "g"), (0.0, "e"), (-1.0, "b")],  # .5: 4.46 is .46 from g and .54 from f; −1: 9.08
)
def test_rejected_is_nearest_to_the_mean_less_so_many_sds(sds: float, rejected: str) -> None:
    assert selected(scored(SPREAD), rejected="near", rejected_sds=sds) == ["a" + rejected]


def test_an_outlier_is_passed_over_where_another_is_nearer() -> None:
    scores = dict.fromkeys("abcdefgh", 10.0) | {"i": -20.0, "j": -40.0}
    # μ = 2; σ² = (8·64 + 22² + 42²)/10 = 276; μ − 2σ = −31.2: −40 is 8.8 away, −20 is 11.2
    assert selected(scored(scores), rejected="near") == ["aj"]
    # μ − 1.5σ = −22.9
    assert selected(scored(scores), rejected="near", rejected_sds=1.5) == ["ai"]


def test_of_few_responses_two_sds_are_out_of_reach() -> None:
    """No z-score of n values is below −√(n − 1): for n ≤ 5 the nearest to μ − 2σ is the worst."""
    for values in ([9.0, 8.0, 7.0, 1.0], [3.0, 2.9, 2.8, 2.7, 0.0], [5.0, 4.0, 1.0]):
        scores = dict(zip("abcde", values, strict=False))
        assert selected(scored(scores), rejected="near") == ["a" + "abcde"[len(values) - 1]]


def test_near_works_from_comparisons_and_rankings_too() -> None:
    """A ranking of 8: mean leads 1, 5/7, 3/7, 1/7, …, −1, μ = 0 and σ = √(2·(49 + 25 + 9 + 1)/49/8) = .655.

    At one σ the target is −.655: f leads by −3/7 (.226 away), g by −5/7 (.06 away)."""
    assert selected(ranked("abcdefgh"), rejected="near", rejected_sds=1.0) == ["ag"]
    certain = compared({x + y: 1.0 for x, y in combinations("abcdefgh", 2)})
    assert selected(certain, rejected="near", rejected_sds=1.0) == ["ag"]
    # Bradley–Terry's strengths of a perfect order are symmetric about 0; −1σ lies between f and h as well
    assert selected(certain, select="bradley_terry", rejected="near", rejected_sds=1.0) == ["ag"]


# --- tiers --------------------------------------------------------------------------------------------------------


def test_the_shortest_among_the_best_and_the_longest_among_the_worst() -> None:
    scores = {"a": 10.0, "b": 9.5, "c": 9.0, "d": 5.0, "e": 1.0, "f": 0.5, "g": 0.0}  # range 10
    texts = responses({"a": 90, "b": 50, "c": 10, "d": 5, "e": 300, "f": 200, "g": 20})
    short = {"chosen": "shortest_among_best"}
    assert selected(scored(scores), texts, **short, within=0.05) == ["bg"]  # ≥ 9.5
    assert selected(scored(scores), texts, **short, within=0.1) == ["cg"]  # ≥ 9
    assert selected(scored(scores), texts, **short, within=0.0) == ["ag"]
    assert selected(scored(scores), texts, rejected="longest_among_worst", within=0.05) == ["af"]  # ≤ .5
    assert selected(scored(scores), texts, **short, rejected="longest_among_worst", within=0.1) == ["ce"]


def test_of_equal_lengths_the_better_is_chosen_and_the_worse_rejected() -> None:
    scores, texts = {"a": 1.0, "b": 0.95, "c": 0.05, "d": 0.0}, responses(dict.fromkeys("abcd", 7))
    rules = {"chosen": "shortest_among_best", "rejected": "longest_among_worst"}
    assert selected(scored(scores), texts, **rules) == ["ad"]


def test_a_label_never_contradicts_the_comparison_of_the_two() -> None:
    """b is nearly as good as a and shorter; against the worst, c, it lost, by itself."""
    upset = compared({"ab": 0.55, "ac": 1.0, "bc": 0.45, "ad": 1.0, "bd": 1.0, "cd": 0.05})
    # leads: a (.1 + 1 + 1)/3 = .7, b (−.1 − .1 + 1)/3 = .27, c (−1 + .1 − .9)/3 = −.6, d (−1 − 1 + .9)/3 = −.37
    texts = responses({"a": 9, "b": 1, "c": 9, "d": 9})
    assert selected(upset, texts, chosen="shortest_among_best", within=0.4) == ["contradiction"]


def test_rules_by_length_need_the_texts() -> None:
    with pytest.raises(ConfigError, match="asks for lengths"):
        selected(scored(SPREAD), chosen="shortest_among_best")


# --- lengths alike ------------------------------------------------------------------------------------------------


def test_the_rejected_is_looked_for_among_those_of_a_length_alike() -> None:
    scores = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0}
    texts = responses({"a": 100, "b": 80, "c": 125, "d": 10})
    assert selected(scored(scores), texts) == ["ad"]
    assert selected(scored(scores), texts, max_length_ratio=1.25) == ["ac"]
    assert selected(scored(scores), texts, max_length_ratio=1.2) == ["length_mismatch"]
    assert selected(scored(scores), texts, max_length_ratio=1.2, length_matched="prefer") == ["ad"]


def test_of_all_pairs_those_of_a_length_alike_are_kept() -> None:
    texts = responses({"a": 100, "b": 80, "c": 10})
    found = selected(scored({"a": 3.0, "b": 2.0, "c": 1.0}), texts, select="all_pairs", max_length_ratio=2)
    assert found == ["ab", "length_mismatch", "length_mismatch"]


# --- windows and quantiles ----------------------------------------------------------------------------------------


def test_the_margin_window_is_closed_on_both_sides() -> None:
    judgments = compared({"ab": 0.6, "ac": 0.75, "bc": 0.95})  # |p − ½| = .1, .25, .45
    window = {"select": "all_pairs", "min_margin": 0.25, "max_margin": 0.25}
    assert selected(judgments, **window) == ["ac", "below_margin", "above_margin"]


def test_west_of_n_keeps_the_sure_and_the_likely() -> None:
    """Four prompts; p = .6, .7, .8, .9, whose median is .75. Log-likelihoods of the eight: −1 … −8, median −4.5."""
    judgments: list[Judgment] = []
    texts: list[Response] = []
    for number, p in enumerate((0.6, 0.7, 0.8, 0.9)):
        good, bad = f"{number}a", f"{number}b"
        for name, logprob in ((good, -1.0 - number), (bad, -8.0 + number)):
            texts.append(Response(id=name, prompt_id=str(number), text=name, meta={"logprob": logprob}))
        judgments.append(
            Judgment(id=str(number), prompt_id=str(number), response_ids=[good, bad],
                     probabilities={"first": p, "second": 1 - p})
        )  # fmt: skip

    def left(**section: Any) -> list[str]:
        preferences, dropped = pair(judgments, PairSection(**section), responses=texts)
        return [row.prompt_id for row in preferences] + [row.reason for row in dropped]

    assert left(min_confidence_quantile=0.5) == ["2", "3", "unconfident", "unconfident"]
    # likelihoods by prompt: (−1, −8), (−2, −7), (−3, −6), (−4, −5); the first quartile of the eight is −6.25
    assert left(min_likelihood_quantile=0.25) == ["2", "3", "unlikely", "unlikely"]
    # the median is −4.5: every pair has one below
    assert left(min_likelihood_quantile=0.5) == ["unlikely"] * 4
    both = left(min_confidence_quantile=0.75, min_likelihood_quantile=0.25)  # p ≥ .825
    assert both == ["3", "unconfident", "unconfident", "unconfident"]


def test_a_likelihood_that_nobody_noted_is_one_line() -> None:
    with pytest.raises(DataError, match=r"response a has no meta.logprob; set logprobs: true"):
        selected(compared({"ab": 0.9}), responses({"a": 1, "b": 1}), min_likelihood_quantile=0.5)


# --- all kinds, all orders, selectors of one's own ------------------------------------------------------------------


def test_the_order_of_judgments_changes_nothing() -> None:
    texts = responses({"a": 9, "b": 4, "c": 7, "d": 5})
    judgments = compared({"ab": 0.5, "ac": 0.7, "ad": 0.9, "bc": 0.7, "bd": 0.9, "cd": 0.8})
    rules = {"chosen": "shortest_among_best", "rejected": "near", "rejected_sds": 1.0, "max_length_ratio": 2.0}
    found = {tuple(selected(list(shuffled), texts, **rules)) for shuffled in permutations(judgments, 6)}
    assert len(found) == 1


def test_mirrored_judgments_select_the_same() -> None:
    judgments = compared({"ab": 0.6, "ac": 0.7, "ad": 0.9, "bc": 0.65, "bd": 0.8, "cd": 0.8})
    texts = responses({"a": 9, "b": 4, "c": 7, "d": 5})
    rules = {"chosen": "shortest_among_best", "within": 0.4, "rejected": "near", "rejected_sds": 1.0}
    assert selected(judgments, texts, **rules) == selected([j.swap() for j in judgments], texts, **rules)


def lengths_of(comparisons: list[Comparison]) -> list[Comparison]:
    SEEN.extend((c.first_length, c.second_length) for c in comparisons)
    return [c for c in comparisons if (c.first_length or 0) < (c.second_length or 0)]


def test_a_selector_of_ones_own_sees_the_lengths() -> None:
    SEEN.clear()
    texts = responses({"a": 2, "b": 3, "c": 1})
    judgments = compared({"ab": 0.9, "ac": 0.8, "bc": 0.4})
    assert selected(judgments, texts, select=f"{__name__}:lengths_of") == ["ab"]
    assert SEEN == [(2, 3), (2, 1), (3, 1)]
    with pytest.raises(ConfigError, match="did you mean 'all_pairs'"):
        selector(PairSection(select="all_pair"))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"select": "all_pairs", "chosen": "shortest_among_best"}, "chosen: only where select is best_vs_worst"),
        ({"select": "all_pairs", "rejected": "near"}, "rejected: only where"),
        ({"select": "my:own", "length_matched": "prefer"}, "length_matched: only where"),
        ({"min_margin": 0.3, "max_margin": 0.2}, "min_margin: 0.3 is above max_margin, 0.2"),
        ({"max_length_ratio": 0.5}, "max_length_ratio"),
    ],
)
def test_rules_that_do_not_go_together_are_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PairSection(**section)


def test_ends_are_those_of_a_brute_force_search() -> None:
    """Against the definitions, written out once more, over many random tables."""
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(2, 9))
        names = [f"r{i}" for i in range(n)]
        scores = dict(zip(names, rng.normal(size=n).round(1).tolist(), strict=True))
        lengths: dict[str, int | None] = dict(zip(names, rng.integers(1, 9, size=n).tolist(), strict=True))
        rules = PairSection(chosen="shortest_among_best", rejected="near", within=0.3, rejected_sds=1.0)
        chosen, rejected = ends(scores, scores, lengths, rules)
        values = np.array(list(scores.values()))
        tier = [name for name in names if scores[name] >= values.max() - 0.3 * np.ptp(values) - 1e-9]
        assert chosen == min(tier, key=lambda name: (lengths[name], -scores[name], name))
        target = values.mean() - values.std()
        others = [x for x in names if x != chosen and scores[x] <= scores[chosen]] or [
            x for x in names if x != chosen
        ]
        assert abs(scores[rejected] - target) <= min(abs(scores[x] - target) for x in others) + 1e-9
        assert rejected in others


def test_a_sampler_notes_the_likelihood_only_when_asked() -> None:
    """log π(y|x) is the sum over tokens; another request key is paid only by those who want it."""
    from rlaif.config import Sampler
    from rlaif.records import Prompt, Reply, TokenLogprob
    from rlaif.stages.generate import candidates_job, sampling_request

    prompt = Prompt(id="q", messages=[{"role": "user", "content": "?"}])
    plain, noting = Sampler(engine="policy", n=1), Sampler(engine="policy", n=1, logprobs=True)
    assert [sampling_request(prompt, sampler, 0, 0).top_logprobs for sampler in (plain, noting)] == [0, 1]
    for logprobs, meta in ((None, {}), ([TokenLogprob("a", -0.5), TokenLogprob("b", -1.25)], {"logprob": -1.75})):
        job = candidates_job(prompt, [noting])
        next(job)
        with pytest.raises(StopIteration) as done:
            job.send([Reply(text="ab", logprobs=logprobs)])
        assert done.value.value.responses[0].meta == meta
