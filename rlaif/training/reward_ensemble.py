"""Several reward models from one dataset. Where they disagree, none of them is to be trusted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rlaif.config import RewardSection
from rlaif.training import common, fitting
from rlaif.training.data import located
from rlaif.training.reward import Reward, write_description
from rlaif.training.reward_data import SEQUENCES, encoded, that_fit
from rlaif.training.reward_measure import figures
from rlaif.training.scoring import REWARD_VERSION, RewardScorer, load_reward, read_reward_file
from rlaif.training.workspace import TRAINING_FILE, Workspace


def train_members(section: RewardSection, dataset: Path | str, out: Path, seed: int) -> dict[str, Any]:
    """out/member-i for each, and the index. A killed training keeps the members that are done.

    Returned and written as out/training.json: each member's seed and figures, and what all together are worth.
    Errors: as for `fitting.train`; nothing stands in `out` then.
    """
    common.prepare_environment()
    workspace = Workspace(out)
    done = workspace.root / "members"
    try:
        records = [
            _member(section, number, dataset, done / f"member-{number}", seed) for number in range(section.ensemble)
        ]
        if not _is_main_process():
            return {"n_train": records[0]["n_train"], "steps": sum(found["steps"] for found in records)}
        done.rename(workspace.model)
        index = _index(section, dataset, workspace)
        record = _record(section, records, index)
        workspace.publish(record)
    except BaseException:
        if not done.is_dir() or not any(done.iterdir()):
            shutil.rmtree(workspace.root, ignore_errors=True)
        raise
    return record


def _member(section: RewardSection, number: int, dataset: Path | str, folder: Path, seed: int) -> dict[str, Any]:
    """Train one, or read the record of one that an earlier, killed run of the same training finished."""
    given = {**section.args, "seed": int(section.args.get("seed", seed)) + number}
    member = section.model_copy(update={"ensemble": 1, "args": given})
    try:
        record: dict[str, Any] = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return fitting.train(Reward(), member, dataset, folder, given["seed"])
    splits = Reward().load(member, located(str(dataset)), folder.parent.parent / "cache", given["seed"])
    local = member.model_copy(update={"model": located(member.model)})
    wanted = json.loads(json.dumps(fitting.plan(Reward(), local, member.model, str(dataset), splits, given)))
    if any(record.get(name) != value for name, value in wanted.items()):
        return fitting.train(Reward(), member, dataset, folder, given["seed"])
    return record


def _index(section: RewardSection, dataset: Path | str, workspace: Workspace) -> dict[str, Any]:
    """reward.json of the ensemble, in the folder that becomes the output."""
    first = read_reward_file(workspace.model / "member-0") or {}
    index: dict[str, Any] = {
        "version": REWARD_VERSION,
        "members": [f"member-{number}" for number in range(section.ensemble)],
        **{name: first[name] for name in ("kind", "heads", "tokenizer", "max_length")},
    }
    write_description(workspace.model, index)
    method = Reward()
    splits = method.load(section, located(str(dataset)), workspace.cache, 0)
    scorer = load_reward(workspace.model, normalise=False)
    for name, rows in (("held_out", splits.test), ("human", method.human)):
        index[name] = _worth(section, rows, scorer, first["max_length"])
    write_description(workspace.model, index)
    return index


def _worth(section: RewardSection, rows: Any, scorer: RewardScorer, limit: int | None) -> dict[str, Any] | None:
    """What the mean of the members is worth on these rows."""
    if rows is None:
        return None
    dataset = that_fit(encoded(rows, scorer.tokenizer, section, scorer.heads, None), limit)
    if not len(dataset):
        return None
    scores = scorer.score_sequences([ids for row in dataset[SEQUENCES] for ids in row])
    found = figures(section.kind, dataset, scores.heads, scorer.heads)
    found["disagreement"] = {"mean": float(scores.disagreement.mean()), "max": float(scores.disagreement.max())}
    return found


def _record(section: RewardSection, records: list[dict[str, Any]], index: dict[str, Any]) -> dict[str, Any]:
    first = records[0]
    alike = ("version", "method", "model", "model_sha256", "dataset", "n_train", "heads", "history", "versions")
    return {
        **{name: first[name] for name in alike},
        "ensemble": section.ensemble,
        "steps": sum(found["steps"] for found in records),
        "seconds": round(sum(found["seconds"] for found in records), 2),
        "held_out": index["held_out"],
        "human": index["human"],
        "members": [{"seed": found["given_args"]["seed"], "held_out": found["held_out"]} for found in records],
    }


def _is_main_process() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)
