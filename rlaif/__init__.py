"""rlaif: AI-labelled preference data you can trust, and training on it.

The functions here are those of `rlaif.api`, imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "agenerate",
    "ajudge",
    "apreferences",
    "audit",
    "calibrate",
    "evaluate",
    "export",
    "generate",
    "judge",
    "pair",
    "preferences",
    "report",
    "revise",
    "run",
    "train_dpo",
    "train_grpo",
    "train_kto",
    "train_ppo",
    "train_reward",
    "train_sft",
]

if TYPE_CHECKING:
    from rlaif.api import (
        agenerate,
        ajudge,
        apreferences,
        audit,
        calibrate,
        evaluate,
        export,
        generate,
        judge,
        pair,
        preferences,
        report,
        revise,
        run,
        train_dpo,
        train_grpo,
        train_kto,
        train_ppo,
        train_reward,
        train_sft,
    )


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rlaif' has no attribute {name!r}")
    from rlaif import api

    return getattr(api, name)
