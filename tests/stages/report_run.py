"""A made-up run folder for the report's tests: seeded, of any size, with every kind of row and some hostile text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from rlaif.io import write_table
from rlaif.records import Dropped, Judgment, Preference, Prompt, Response, make_id
from rlaif.stages.audit.names import FIGURES
from rlaif.stages.report.audit import READERS

PRINCIPLES = ("helpful", "harmless", "honest", "concise", "polite")
HOSTILE = "<script>alert('x')</script></style></title> & \"quoted\" <img src=x onerror=alert(1)> {{ 7 * 7 }}"
_DOMAINS = ("facts", "how-to", "harmful", "unknowable")
_OPENERS = ("Sure, I can help with that.", "What a question.", "Good day!", "Well,", "Happy to help.")
_BODIES = (
    "The capital of France is Paris.",
    "It has four legs, as far as anyone has counted them.",
    "I cannot help with that, but I can tell you whom to ask.",
    "Nobody can know that, and I will not pretend to.",
    "Mix flour, water, salt and yeast, let it rest for an hour, and bake it until it is brown.",
)


def make_run(path: Path, n_prompts: int = 60, n_responses: int = 4, seed: int = 0, oracle: bool = True) -> Path:
    """Write a whole run folder: two responses of a prompt meet under every principle in both orders."""
    rng = random.Random(seed)
    prompts = [
        Prompt(
            id=make_id("prompt", i),
            messages=[{"role": "user", "content": f"Question {i}: how many legs does a horse have?"}],
            domain=_DOMAINS[i % len(_DOMAINS)],
        )
        for i in range(n_prompts)
    ]
    responses = [_response(prompt, i, rng) for prompt in prompts for i in range(n_responses)]
    judgments, preferences, dropped = _label(prompts, responses, n_responses, rng)
    tables = {
        "prompts": prompts, "responses": responses, "judgments": judgments,
        "preferences": preferences, "dropped": dropped,
    }  # fmt: skip
    for name, rows in tables.items():
        write_table(path / f"{name}.jsonl", rows)
    _write(path / "manifest.json", _manifest(seed, len(prompts), len(responses), len(judgments), len(preferences)))
    _write(path / "models" / "dpo" / "training.json", training(rng))
    _write(path / "models" / "ppo" / "training.json", guarded_training(rng))
    _write(path / "evaluation" / "evaluation.json", evaluation(oracle))
    _write(path / "audit.json", audit())
    return path


def estimate(value: float, half: float = 0.05, n: int = 240) -> dict[str, float]:
    return {"value": value, "low": round(value - half, 4), "high": round(value + half, 4), "n": n}


def sides(before: float, after: float, half: float = 0.03) -> dict[str, Any]:
    named = {"before": before, "after": after, "difference": round(after - before, 4)}
    return {side: estimate(value, half) for side, value in named.items()}


def evaluation(oracle: bool = True) -> dict[str, Any]:
    """In the shape of rlaif.stages.evaluation.evaluate."""
    measured = {
        "quality": sides(0.45, 0.52),
        "harmful_compliance": sides(0.42, 0.15),
        "benign_correct": sides(0.61, 0.6),
        "helpful": sides(0.55, 0.53),
        "polite": sides(0.41, 0.66),
    }
    judges = ("second", "judge")
    return {
        "version": 1,
        "n": 240,
        "win_rate": {"second": {**estimate(0.62), "ties": 11}, "judge": {**estimate(0.74), "ties": 4}},
        "judges": {
            name: {
                "length_controlled_win_rate": 0.66,
                "mean_probability": estimate(0.64),
                "order_consistency": estimate(0.9),
                "excluded": {"one_order_failed": 3} if name == "judge" else {},
            }
            for name in judges
        },
        "length": {"unit": "characters", **sides(96.0, 88.0, 4)},
        "metrics": measured if oracle else {},
        "oracle_win_rate": {**estimate(0.61), "ties": 30} if oracle else None,
        "judge_minus_oracle": {"judge": estimate(0.13, 0.06), "second": estimate(0.01, 0.06)} if oracle else {},
        "by_principle": {
            name: {"helpful": estimate(0.4), "harmless": estimate(0.8), "polite": None} for name in judges
        },
        "matches": [
            {
                "baseline": "before",
                "policy": policy,
                "win_rate": {name: {**estimate(0.6 + 0.05 * i), "ties": 3} for name in judges},
                "judges": {name: {"length_controlled_win_rate": 0.55} for name in judges},
                "oracle_win_rate": estimate(0.57) if oracle else None,
            }
            for i, policy in enumerate(("sft", "best_of_8"))
        ],
        "reward_models": {
            "ours": {
                "held out": {
                    "n": 480,
                    "accuracy": estimate(0.82),
                    "by_domain": {"fact": estimate(0.9), "howto": estimate(0.7)},
                    "by_length": {"chosen_longer": estimate(0.9), "alike": estimate(0.8), "rejected_longer": None},
                }
            }
        },
        "by_domain": {
            domain: {
                "n": 60,
                "win_rate": {name: estimate(0.5 + 0.07 * i, 0.09) for name in judges},
                "metrics": {"quality": sides(0.4 + 0.05 * i, 0.5)} if oracle else {},
            }
            for i, domain in enumerate(_DOMAINS)
        },
        "examples": [
            {"prompt": "How can I bake bread?", "before": "No. " + HOSTILE, "after": "Mix flour.", "p_judge": 0.93}
        ],
    }


def audit() -> dict[str, Any]:
    """In the shape of rlaif.stages.audit.run, with a failed gate, a biased judge and a name that is hostile."""
    none = {"value": None, "reason": "no judge met its own family beside another"}
    figures: dict[str, Any] = {name: estimate(0.5, 0.04) for name in FIGURES}
    figures |= {
        "first_position_rate": estimate(0.66),
        "length_effect": estimate(0.8, 0.2),
        "own_family_win_rate": none,
    }
    figures |= {"repeated_text_rate": estimate(0.31), "common_opening_rate": estimate(0.02, 0.01)}
    figures |= {"fence_escapes": {"value": 0.0, "low": 0.0, "high": 0.02, "n": 400}}
    kind = {
        "attacks": ["a"], "placebo": False, "states_verdict": True, "success": estimate(0.4),
        "label_flips": estimate(0.2),
        "broken": estimate(0.05), "shift": estimate(0.1), "quoting_broken": estimate(1.0, 0.0),
        "readers": {name: estimate(0.9) for name in READERS},
    }  # fmt: skip
    reader = {"stating_a_verdict": estimate(0.97, 0.02), "all": estimate(0.7), "broken": estimate(0.1)}
    position = {"first_position_rate": estimate(0.62), "order_consistency": estimate(0.8)}
    gate = {"name": "first_position_rate", "min": 0.4, "max": 0.6, **estimate(0.66), "passed": False,
            "reason": "above max 0.6"}  # fmt: skip
    return {
        "version": 1,
        "seed": 0,
        "counts": {},
        "figures": figures,
        "gates": [gate, {**gate, "name": "tie_rate", "passed": True, "reason": None}],
        "slices": {"domain": {name: {"judgments": 40, "figures": figures} for name in ("", *_DOMAINS)}},
        "position": {
            "judge": {"judge": position},
            "member": {},
            "principle": dict.fromkeys((*PRINCIPLES, "a principle with a name that does not fit a phone"), position),
        },
        "sources": [{"source": HOSTILE, "against": "policy", "win_rate": estimate(0.6),
                     "length_controlled_win_rate": estimate(0.55)}],
        "families": {},
        "openings": [{"opening": HOSTILE, "responses": 7}],
        "probe": [{"pattern": "verdict", "responses": 3, "ids": ["a1", "b2"]}],
        "label_mass_counts": None,
        "correlations": {a: {b: estimate(-0.2) for b in PRINCIPLES if b != a} for a in PRINCIPLES},
        "injection": {
            "pairs": 20, "undecided": 1, "attacks": 3,
            "kinds": {"verdict line": kind, "placebo": {**kind, "placebo": True}},
            "readers": dict.fromkeys(READERS, reader),
        },
    }  # fmt: skip


def _response(prompt: Prompt, i: int, rng: random.Random) -> Response:
    words = [rng.choice(_OPENERS), rng.choice(_BODIES), *["Let me say a little more about it."] * rng.randrange(4)]
    text = " ".join(words)
    if rng.random() < 0.05:
        text += " " + HOSTILE
    return Response(id=make_id(prompt.id, i), prompt_id=prompt.id, text=text, source="policy", sample=i,
                    finish_reason="stop")  # fmt: skip


def _label(
    prompts: list[Prompt], responses: list[Response], n_responses: int, rng: random.Random
) -> tuple[list[Judgment], list[Preference], list[Dropped]]:
    judgments: list[Judgment] = []
    preferences: list[Preference] = []
    dropped = [Dropped(stage="generate", reason="duplicate", id=make_id("copy", i)) for i in range(7)]
    for index, prompt in enumerate(prompts):
        mine = responses[index * n_responses : (index + 1) * n_responses]
        one, other = mine[0], mine[1]
        rows, by_principle, consistent = _judge(prompt, one, other, rng)
        judgments += rows
        p = sum(by_principle.values()) / len(by_principle)
        pair_id = make_id(one.id, other.id)
        if abs(p - 0.5) < 0.03:
            dropped.append(Dropped(stage="pair", reason="small_margin", id=pair_id, detail=f"p = {p:.3f} {HOSTILE}"))
            continue
        preference = Preference(
            id=pair_id, prompt_id=prompt.id, chosen_id=one.id, rejected_id=other.id, probability=p,
            judge_margin=2 * p - 1, judgment_ids=[row.id for row in rows], by_principle=by_principle,
            consistent=consistent,
        )  # fmt: skip
        preferences.append(preference if p > 0.5 else preference.swap())
    return judgments, preferences, dropped


def _judge(
    prompt: Prompt, one: Response, other: Response, rng: random.Random
) -> tuple[list[Judgment], dict[str, float], bool]:
    """Both orders under every principle; the judge leans a little towards what is shown first."""
    rows, by_principle = [], {}
    sums = {1: 0.0, -1: 0.0}
    merit = rng.gauss(0, 1.4)
    for k, principle in enumerate(PRINCIPLES):
        own = merit * (-0.6 if principle == "harmless" else 1) + rng.gauss(0, 0.8 + 0.2 * k)
        seen = []
        for ids, sign in (([one.id, other.id], 1), ([other.id, one.id], -1)):
            p = 1 / (1 + 2.718281828 ** -(sign * own + 0.3 + rng.gauss(0, 0.3)))
            rows.append(_judgment(prompt.id, ids, principle, p, rng))
            if rows[-1].status == "ok":
                seen.append(p if sign == 1 else 1 - p)
                sums[sign] += seen[-1] - 0.5
        by_principle[principle] = sum(seen) / len(seen) if seen else 0.5
    return rows, by_principle, (sums[1] > 0) == (sums[-1] > 0)


def _judgment(prompt_id: str, ids: list[str], principle: str, p: float, rng: random.Random) -> Judgment:
    common: dict[str, Any] = {
        "id": make_id(prompt_id, principle, *ids), "prompt_id": prompt_id, "response_ids": ids, "model": "tiny-judge",
        "rubric": "tiny@1", "principle": principle, "template_sha256": "ab" * 32,
    }  # fmt: skip
    chance = rng.random()
    if chance < 0.02:
        return Judgment(**common, status="unparsed", reason="no verdict in the reply", label_mass=0.2)
    if chance < 0.03:
        return Judgment(**common, status="refused", reason=HOSTILE)
    mass = 1 - min(rng.expovariate(30), 0.5)
    verdict = "first" if p > 0.5 else "second"
    return Judgment(**common, verdict=verdict, probabilities={"first": p, "second": 1 - p}, label_mass=mass)


def _manifest(seed: int, *counts: int) -> dict[str, Any]:
    n_prompts, n_responses, n_judgments, n_pairs = counts

    def stage(seconds: float, sent: int, count: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": "done", "seconds": seconds, "counts": count,
            "requests": {"sent": sent, "from_journal": 0, "failed": 0, "retried": 0},
            "tokens": {"prompt": sent * 90, "completion": sent * 12},
        }  # fmt: skip

    return {
        "rlaif_version": "0.1.0",
        "requests": {"sent": n_responses + n_judgments + 480, "failed": 0, "from_journal": 1640},
        "last_run": {"sent": 120, "from_journal": 1640, "failed": 0, "seconds": 3.5},
        "seed": seed,
        "config": {"run": "runs/made-up", "seed": seed, "judge": {"engine": "judge", "constitution": "tiny"},
                   "notes": HOSTILE},
        "stages": {
            "generate": stage(12.4, n_responses, {"prompts": n_prompts, "responses": n_responses}),
            "judge": stage(31.9, n_judgments, {"judgments": n_judgments, "dropped": {"judgment_unparsed": 46}}),
            "pair": stage(0.3, 0, {"preferences": n_pairs, "not_selected": 300}),
            "export": stage(0.4, 0, {"train": n_pairs - 4, "test": 4}),
            "train": stage(71.0, 0, {"steps": 60}),
            "evaluate": stage(22.5, 480, {"comparisons": 240}),
        },
        "engines": {
            "policy": {"identity": "sha256:" + "1f" * 32, "model": "data/models/tiny-policy"},
            "judge": {"identity": "sha256:" + "2e" * 32, "model": "data/models/tiny-judge"},
            "second": {"identity": "sha256:" + "3d" * 32, "model": "data/models/tiny-second-judge"},
        },
    }  # fmt: skip


def training(rng: random.Random) -> dict[str, Any]:
    rows: list[dict[str, float]] = []
    for step in range(1, 61):
        done = step / 60
        rows.append(
            {
                "step": step, "loss": 0.69 - 0.25 * done + rng.gauss(0, 0.03), "learning_rate": 2e-4 * (1 - done),
                "rewards/accuracies": min(0.5 + 0.35 * done + rng.gauss(0, 0.05), 1.0),
                "rewards/margins": 1.1 * done + rng.gauss(0, 0.08),
            }
        )  # fmt: skip
    return {
        "version": 1, "method": "dpo", "model": "data/models/tiny-policy", "steps": 60, "soft_labels": False,
        "given_args": {"learning_rate": 2e-4, "beta": 0.1}, "rows_truncated": 0, "versions": {"trl": "1.16.0"},
        "history": rows, "test": {"loss": 0.49, "rewards/accuracies": 0.78, "rewards/margins": 0.9},
    }  # fmt: skip


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def guarded_training(rng: random.Random) -> dict[str, Any]:
    """A PPO that was stopped: quality rises and falls over √KL, the reward goes on."""
    probes: list[dict[str, Any]] = []
    for at in range(9):
        wins = 0.5 + 0.06 * at - 0.012 * at * at
        estimate = {"value": wins, "low": wins - 0.06, "high": wins + 0.06, "n": 120}
        probes.append(
            {
                "step": 8 * at, "length": 15.0 + at, "repetition": 0.0, "distinct_1": 0.2, "distinct_2": 0.4,
                "refusal_rate": 0.02 * at, "eos_rate": 1.0, "kl": 0.4 * at * at, "kl_k3": 0.5 * at * at,
                "kl_per_token": 0.02 * at, "reward": 0.3 * at + rng.uniform(-0.05, 0.05), "win_rate": wins,
                "intervals": {"win_rate": estimate, "reward": None},
                "by_domain": {"how-to": {"refusal_rate": 0.02 * at}},
            }
        )  # fmt: skip
    guard = {
        "probes": "held-out.jsonl", "n": 20, "samples": 6, "every": 8, "max_tokens": 64, "temperature": 1.0,
        "judge": "second_judge", "rewards": ["reward"], "by": "win_rate",
        "limits": {
            "refusal_rate": {"max_rise": 0.1}, "how-to/refusal_rate": {"max": 0.15}, "length": {"max_ratio": 2.0},
        },
        "stopped_at_step": 64, "best_step": 24, "kept_step": 24,
        "why": "refusal_rate is 0.16, above 0.1 (max_rise 0.1, 0 at the start); how-to/refusal_rate is 0.16",
        "kept_why": "the highest win_rate within the limits, 0.572", "history": probes,
        "examples": [
            {"prompt": [{"role": "user", "content": HOSTILE}], "responses": [{"step": 0, "text": HOSTILE}] * 2},
        ],
    }  # fmt: skip
    history = [
        {"step": step, "loss": 0.1, "reward": step / 40, "ppo/kl": step / 20, "ppo/eos_rate": 1.0}
        for step in range(8, 72, 8)
    ]
    return {
        "version": 2, "method": "ppo", "model": "data/models/tiny-policy", "steps": 64, "given_args": {"seed": 0},
        "args": {"max_steps": 240}, "history": history, "test": None, "guard": guard,
    }  # fmt: skip
