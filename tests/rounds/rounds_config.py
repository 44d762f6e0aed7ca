"""A pipeline that goes in rounds, as a mapping; nothing in it is run unless a test does so."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from rlaif.config import Pipeline, validate

RAW: dict[str, Any] = {
    "run": "out",
    "seed": 5,
    "rounds": {"n": 3, "prompts_per_round": 20},
    "engines": {
        "policy": {"engine": "transformers", "model": "shipped:data/tiny/policy", "adapter": "mine",
                   "dtype": "float32", "price": {"prompt": 2}},
        "judge": {"engine": "scripted", "default": "Verdict: A"},
    },
    "prompts": {"path": "shipped:data/tiny/prompts.jsonl", "skip": 7},
    "generate": {"samplers": [{"engine": "policy", "n": 2, "max_tokens": 16}]},
    "judge": {"rubric": "helpfulness"},
    "pair": {},
    "export": {},
    "train": {"dpo": {"model": "shipped:data/tiny/policy", "args": {"beta": 0.2}}},
    "evaluate": {"prompts": {"path": "shipped:data/tiny/heldout.jsonl", "limit": 9}, "policies": ["round-1"],
                 "each_other": True},
    "report": {"title": "Mine"},
}  # fmt: skip


def changed(**sections: Any) -> dict[str, Any]:
    """The mapping with some sections replaced, or taken out where they are None."""
    raw = {**copy.deepcopy(RAW), **sections}
    return {name: value for name, value in raw.items() if value is not None}


def config(raw: Mapping[str, Any] | None = None) -> Pipeline:
    return validate(Pipeline, dict(raw or changed()), "test")
