"""What a careful reader of the report would stop at, in plain words."""

from __future__ import annotations

from collections.abc import Iterable

from rlaif.stages.report import audit, contestants
from rlaif.stages.report.collect import ReportData
from rlaif.stages.report.summary import (
    estimate,
    gap,
    interval,
    labelling_judge,
    percent,
    requests,
    same_as_labelling,
    win_rates,
)

# When a figure is worth a remark. None of these is a law; each is said on the page beside the figure.
MAX_FAILED = 0.05  # share of judgments that are no label
MIN_CONSISTENCY = 0.80  # share of pairs with the same winner in both orders
POSITION_SLACK = 0.02  # first-position rate further than this from ½, and its interval too
MAX_CHOSEN_LONGER = 0.60  # and the same for shorter
MIN_LABEL_MASS = 0.80  # at the 5 % quantile
MIN_KEPT = 0.50  # of the pairs judged
MIN_INDEPENDENT = 0.5  # of a panel's members, by the correlation of what they say
MAX_GROWTH = 1.25  # of the response length by training


def remarks(data: ReportData) -> list[str]:
    """What a careful reader would stop at, one sentence each."""
    about_labels = [*_about_labels(data), *audit.remarks(data.audit), *_about_pairs(data), *_about_panel(data)]
    found = [*about_labels, *_about_policy(data)]
    failed = requests(data)["failed"]
    if failed:
        found.append(f"{failed:,} requests failed for good; their rows are among the dropped or the errors below.")
    return found


def _about_labels(data: ReportData) -> Iterable[str]:
    labels = data.labels
    if labels is None or not labels.n:
        return
    bad = 1 - labels.statuses["ok"] / labels.n
    if bad > MAX_FAILED:
        yield f"{percent(bad)} of the judgments are no label (unparsed, refused, truncated or error)."
    if labels.consistency and labels.consistency.value < MIN_CONSISTENCY:
        flips = percent(1 - labels.consistency.value)
        yield f"The judge changes its mind in {flips} of the pairs when the two responses trade places."
    rate = labels.first_rate
    if rate and rate.low is not None and rate.high is not None:
        side = "first" if rate.value > 0.5 else "second"
        share = max(rate.value, 1 - rate.value)
        if share - 0.5 > POSITION_SLACK and not rate.low <= 0.5 <= rate.high:
            yield f"The judge favours the response shown {side}: it wins {percent(share)} of the time."
    if labels.low_mass is not None and labels.low_mass < MIN_LABEL_MASS:
        yield (
            f"In one judgment of twenty the verdict labels hold under {percent(labels.low_mass)} of the probability: "
            "the judge wanted to say something else."
        )


def _about_pairs(data: ReportData) -> Iterable[str]:
    pairs, labels = data.pairs, data.labels
    if pairs is None:
        return
    lost = sum(group.n for group in data.dropped if group.stage == "pair")
    if pairs.n + lost and pairs.n / (pairs.n + lost) < MIN_KEPT:
        yield f"Pairing dropped {lost:,} candidates and kept {pairs.n:,}: see the reasons below."
    if pairs.chosen_longer and (pairs.chosen_longer.low or 0) > MAX_CHOSEN_LONGER:
        yield (
            f"The chosen response is the longer one in {percent(pairs.chosen_longer.value)} of the pairs: "
            "part of what the judge rewards may be length."
        )
    if pairs.chosen_longer and (pairs.chosen_longer.high or 1) < 1 - MAX_CHOSEN_LONGER:
        yield (
            f"The chosen response is the shorter one in {percent(1 - pairs.chosen_longer.value)} of the pairs: "
            "part of what the judge rewards may be brevity."
        )
    if labels and labels.n and pairs.n == 0:
        yield "No preference was kept."


def _about_panel(data: ReportData) -> Iterable[str]:
    counts = (data.stages.get("pair") or {}).get("counts") or {}
    panel = counts.get("panel") or {}
    below = [name for name, flag in (panel.get("flagged") or {}).items() if flag == "below_chance"]
    if below:
        yield f"Below chance on gold, and left out of the panel: {', '.join(below)}."
    members, effective = len(panel.get("members") or {}), panel.get("n_effective")
    if effective is not None and effective < MIN_INDEPENDENT * members:
        yield f"The panel's {members} members say as much as {effective:.1f} independent judges would."


def _about_policy(data: ReportData) -> Iterable[str]:
    rates = win_rates(data)
    mine = rates.get(labelling_judge(data))
    if mine and mine["low"] is not None and mine["low"] <= 0.5 <= mine["high"]:
        yield f"The win rate of the trained policy, {interval(mine)}, cannot be told from a coin."
    seen = data.evaluation.get("prompts_also_trained_on")
    if isinstance(seen, int) and seen > 0:
        yield f"{seen:,} of the evaluation's prompts are not held out: the labels were made from the same prompts."
    for name in same_as_labelling(data):
        yield f"{name} is the labelling judge's own model: its win rate is no second opinion."
    for name, other in rates.items():
        if mine and other is not mine and None not in (mine["low"], other["high"]) and other["high"] < mine["low"]:
            yield (
                f"A judge that made no labels ({name}) sees a smaller gain than the labelling judge: "
                f"{interval(other)} against {interval(mine)}."
            )
    yield from contestants.remarks(data)
    distance = gap(data)
    if distance and distance["low"] is not None and distance["low"] > 0:
        yield (
            f"The labelling judge's win rate is {100 * distance['value']:.0f} points above the oracle's: "
            "that part of the gain pleases the judge without being better."
        )
    length = data.evaluation.get("length") or {}
    before, after = estimate(length.get("before")), estimate(length.get("after"))
    if before and after and before["value"] > 0:
        growth = after["value"] / before["value"]
        if growth > MAX_GROWTH:
            yield f"The trained policy writes {percent(growth - 1)} more than before."
        if growth < 1 / MAX_GROWTH:
            yield f"The trained policy writes {percent(1 - growth)} less than before."
