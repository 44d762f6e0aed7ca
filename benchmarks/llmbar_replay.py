"""Every recorded reply of LLMBar's evaluators read again: as the publisher did, and as rlaif does by default.

    python benchmarks/llmbar_replay.py            # 10 seconds; wants ../shared/data/llmbar, or RLAIF_TEST_DATA

The publisher's rule is `take: first` with the patterns of each evaluator; ours is `take: strict`, with the same
patterns: two verdicts in one text are none, and neither is one in a text that was cut off.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.config.parsing import ParseSection
from rlaif.judges.patterns import PatternChoice, pattern_choice, pattern_form
from rlaif.judges.verdicts import Choice
from rlaif.recordings.config import load_file
from rlaif.records import Reply

ROOT = Path(__file__).resolve().parent.parent
RECORDING = ROOT / "pipelines" / "recordings" / "llmbar.yaml"
DATA = Path(os.environ.get("RLAIF_TEST_DATA") or ROOT.parent / "shared" / "data") / "llmbar"
ORDERS = ("swap = False", "swap = True")  # output_1 shown first, output_2 shown first
_RATING = ParseSection(score=r"(\d+)", take="first", truncated="read")


class Seen(NamedTuple):
    """One recorded reply: who, about what, in which order and stage, the text, and what the publisher read in it."""

    evaluator: str
    item: tuple[str, int]
    label: str
    swap: str
    reply: Reply
    winner: str | None
    stage: int
    final: bool


def rows() -> Iterator[dict[str, Any]]:
    with gzip.open(DATA / "llmbar_results.jsonl.gz", "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def replies() -> Iterator[Seen]:
    """Every recorded text that decides between two outputs."""
    for row in rows():
        deciding = [stage for stage in row["results"] if isinstance(stage, dict) and "completion" in stage[ORDERS[0]]]
        for number, stage in enumerate(deciding):
            for swap in ORDERS:
                text, finish = stage[swap]["completion"]
                reply = Reply(text=text, finish_reason=finish or "stop")
                item = (row["dataset"], row["i"])
                final = number == len(deciding) - 1
                yield Seen(
                    row["evaluator"], item, str(row["label"]), swap, reply, stage[swap]["winner"], number, final
                )


class Readers:
    """The evaluators' patterns, by the recording that ships with rlaif."""

    def __init__(self, **changes: Any) -> None:
        self._changes = changes
        self._known: dict[tuple[str, int], PatternChoice] = {}

    def of(self, seen: Seen) -> PatternChoice:
        key = (seen.evaluator, seen.stage)
        if key not in self._known:
            file = load_file(RECORDING, {"evaluator": seen.evaluator, "stage": seen.stage, "data": str(DATA.parent)})
            assert file.parse is not None
            self._known[key] = pattern_choice(file.parse.inlined(DATA, "parse").model_copy(update=self._changes))
        return self._known[key]

    def winner(self, seen: Seen) -> str | None:
        """ "1" or "2", whatever the order shown."""
        return winner(self.of(seen).parse(seen.reply).label, seen.swap)


def winner(label: str | None, swap: str) -> str | None:
    named = {"A": "1", "B": "2"} if swap == ORDERS[0] else {"A": "2", "B": "1"}
    return named.get(str(label))


def ratings() -> Iterator[tuple[str, tuple[str, int], str, str | None, str | None]]:
    """(evaluator, item, label, winner in the first order, in the second) of those that score each output by itself.

    As published: of two equal scores the output shown second wins, and where one has no score that shown first.
    """
    form = pattern_form(_RATING)
    for row in rows():
        stage = row["results"][-1]
        if "score_1" not in stage:
            continue
        values = [form.parse(Reply(text=stage[f"score_{n}"][0])).values.get("score") for n in (1, 2)]
        found = []
        for swap in ORDERS:
            shown = values if swap == ORDERS[0] else values[::-1]
            first, second = (float(value) if value is not None else None for value in shown)
            if first is None or second is None:
                found.append(winner("A", swap))
            else:
                found.append(winner("A" if first > second else "B", swap))
        yield row["evaluator"], (row["dataset"], row["i"]), str(row["label"]), found[0], found[1]


class Outcomes:
    """Winners by (subset, evaluator): lists of (label, winner in the first order, in the second)."""

    def __init__(self) -> None:
        self.by: dict[tuple[str, str], list[tuple[str, str | None, str | None]]] = defaultdict(list)

    def shares(self, key: tuple[str, str]) -> dict[str, float]:
        """In percent, by their published names."""
        found = self.by[key]
        n = len(found)
        right = [sum(row[0] == row[order] for row in found) for order in (1, 2)]
        return {
            "correct_False": 100 * right[0] / n,
            "correct_True": 100 * right[1] / n,
            "correct_average": 50 * (right[0] + right[1]) / n,
            "correct_both": 100 * sum(row[0] == row[1] == row[2] for row in found) / n,
            "equal": 100 * sum(row[1] == row[2] for row in found) / n,
        }

    def kappas(self, key: tuple[str, str]) -> dict[str, float]:
        """Cohen's κ as it is defined; no winner is a class of its own."""
        found = self.by[key]
        return {
            "kappa_False": kappa([row[0] for row in found], [row[1] for row in found]),
            "kappa_True": kappa([row[0] for row in found], [row[2] for row in found]),
            "kappa_agreement": kappa([row[1] for row in found], [row[2] for row in found]),
        }


def kappa(one: list[str | None], other: list[str | None]) -> float:
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score([str(x) for x in one], [str(x) for x in other]))


def published() -> dict[tuple[str, str], dict[str, float]]:
    raw = json.loads((DATA / "llmbar_statistics.json").read_text(encoding="utf-8"))
    return {
        tuple(key.split("|")): {  # type: ignore[misc]
            name: float(str(value).rpartition("= ")[2].rstrip("%")) for name, value in said.items()
        }
        for key, said in raw.items()
    }


def replay() -> dict[str, Any]:
    """Everything that the table and the tests want, in one pass."""
    as_published, strict = Readers(), Readers(take="strict", truncated="refuse")
    default = Choice(labels=("A", "B"), read="text")
    outcomes, finals = Outcomes(), defaultdict(dict)  # type: ignore[var-annotated]
    labels: dict[tuple[str, tuple[str, int]], str] = {}
    mismatches, count = 0, 0
    why: Counter[str] = Counter()
    right: Counter[str] = Counter()
    last = Readers(take="last")
    for seen in replies():
        count += 1
        found = as_published.winner(seen)
        mismatches += found != seen.winner
        if seen.final:
            finals[seen.evaluator, seen.item][seen.swap] = found
            labels[seen.evaluator, seen.item] = seen.label
        why["our own form (“Verdict: A”)"] += default.parse(seen.reply).status == "ok"
        parsed = strict.of(seen).parse(seen.reply)
        if winner(parsed.label, seen.swap) != found:
            reason = "both patterns match" if "different" in str(parsed.reason) else str(parsed.reason)
            why[f"strict: {reason}"] += 1
            if reason == "both patterns match":
                right["first pattern"] += found == seen.label
                right["last match"] += last.winner(seen) == seen.label
    for (evaluator, item), by_order in finals.items():
        outcomes.by[item[0], evaluator].append((labels[evaluator, item], *(by_order[swap] for swap in ORDERS)))
    for evaluator, item, label, one, other in ratings():
        outcomes.by[item[0], evaluator].append((label, one, other))
    return {"replies": count, "mismatches": mismatches, "outcomes": outcomes, "why": why, "right": right}


def main() -> None:
    found = replay()
    outcomes: Outcomes = found["outcomes"]
    said = published()
    shares = ("correct_False", "correct_True", "correct_average", "correct_both", "equal")
    ours = {key: {**outcomes.shares(key), **outcomes.kappas(key)} for key in said}
    off = max(abs(ours[key][name] - said[key][name]) for key in said for name in shares)
    print(f"{found['replies']:,} replies, {found['mismatches']} mismatches with the recorded winners")
    print(f"{len(said)} published statistics × {len(shares)} shares: largest difference {off:.1e} points")
    print("\nCohen's κ with the gold labels, output 1 first (published beside what it should be):")
    print(f"{'evaluator':<22}{'subset':<28}{'accuracy':>9}{'published':>11}{'right':>8}")
    for evaluator in ("GPT-4/Metrics_Reference", "GPT-4/Vanilla", "ChatGPT/CoT", "Falcon/Vanilla"):
        for subset in ("LLMBar/Natural", "LLMBar/Adversarial/GPTInst"):
            key = (subset, evaluator)
            mine, theirs = ours[key], said[key]
            print(
                f"{evaluator:<22}{subset:<28}{mine['correct_False']:>8.1f}%{theirs['kappa_False']:>11.3f}"
                f"{mine['kappa_False']:>8.3f}"
            )
    print("\nwhat else the same texts can be read as:")
    for reason, count in found["why"].most_common():
        print(f"  {reason:<60}{count:>7,}")
    both = found["why"]["strict: both patterns match"]
    first, last = (found["right"][name] / both for name in ("first pattern", "last match"))
    print(f"  of those that match both: right by the first pattern {first:.3f}, by the last match {last:.3f}")
    wrong = {
        name: sum(abs(ours[k][name] - said[k][name]) > 1e-6 for k in said)
        for name in ("kappa_False", "kappa_True", "kappa_agreement")
    }
    print(f"  published κ that differ from the definition, of {len(said)}: {wrong}")
    print(
        json.dumps(
            {
                "replies": found["replies"],
                "mismatches": found["mismatches"],
                "largest_difference": off,
                "match_both": both,
                "kappas_wrong": wrong,
            }
        )
    )


if __name__ == "__main__":
    main()
