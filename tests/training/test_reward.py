"""Reward models on a random 60k-parameter Llama: each training takes about a second, importing TRL about six."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_data import build_model, pairs

from rlaif.config import RewardSection
from rlaif.errors import ConfigError, UserError
from rlaif.training.reward import train_reward

pytestmark = pytest.mark.integration  # trains

Write = Callable[..., Path]
QUICK: dict[str, Any] = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3}


def section(model: Path, *, args: dict[str, Any] | None = None, **options: Any) -> RewardSection:
    return RewardSection(model=str(model), args={**QUICK, **(args or {})}, **options)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a: dict[str, Any], b: dict[str, Any], tolerance: float = 0.0) -> bool:
    return a.keys() == b.keys() and all((a[name] - b[name]).abs().max() <= tolerance for name in a)


def scored(n: int) -> list[dict[str, Any]]:
    """`good` in the response raises one score, its length the other; a third of the scores is missing."""
    rows = []
    for i in range(n):
        good, words = i % 2, i % 5
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"is it {i % 3}"}],
                "response": [{"role": "assistant", "content": ("good " if good else "not ") + "very " * words}],
                "scores": {"nice": 1.0 + 3 * good if i % 3 else None, "long": float(10 * words)},
                "domain": "even" if good else "odd",
            }
        )
    return rows


def ranked(n: int) -> list[dict[str, Any]]:
    """The more `good`, the better; three or four candidates in mixed order."""
    rows = []
    for i in range(n):
        counts = [2, 0, 3, 1][: 3 + i % 2]
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"how good {i % 3}"}],
                "responses": [{"role": "assistant", "content": "good " * k + "not"} for k in counts],
                "ranking": sorted(range(len(counts)), key=lambda at: -counts[at]),
            }
        )
    return rows


def test_learns_and_writes_a_plain_classifier(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(train=pairs(32, domain="x"), test=[*pairs(6, domain="x"), *pairs(2, domain="y")])
    human = write_dataset("human", train=pairs(5))
    out = tmp_path / "run" / "reward"
    args = {"max_steps": 32, "learning_rate": "2e-3"}
    result = train_reward(section(tiny_model, args=args, human=str(human)), data, out, seed=1)

    assert json.loads((out / "training.json").read_text()) == result
    assert [path.name for path in out.parent.iterdir()] == ["reward"]
    assert not list(out.glob("*.bin"))
    assert result["steps"] == 32 and result["heads"] == ["reward"]
    assert {"loss", "accuracy", "margin", "mean_reward"} <= result["history"][0].keys()
    held_out = result["held_out"]
    assert held_out["accuracy"]["value"] == 1 and held_out["n"] == 8 and result["human"]["n"] == 5
    assert {name: table["n"] for name, table in held_out["by_domain"].items()} == {"x": 6, "y": 2}
    assert sum(table["n"] for table in held_out["by_length"].values()) == 8
    # chosen "yes (very)^(i%3) good", rejected "no (not)^(i%4) good" for i = 0…5 and 0, 1: words decide
    assert set(held_out["by_chosen_is"]) <= {"longer", "shorter", "as_long"}

    described = json.loads((out / "reward.json").read_text())
    assert described["heads"] == ["reward"] and described["dropped_too_long"] == {"train": 0, "test": 0, "human": 0}
    assert described["scores"]["reward"]["n"] == 64 and described["scores"]["reward"]["sd"] > 0

    doc = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    table = doc.split("## `models/reward/`")[1].split("\n## ")[0]
    assert list(described) == re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)

    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.num_labels == 1 and model.config.id2label == {0: "reward"}


@pytest.mark.parametrize("options", [{}, {"soft_labels": True}], ids=["hard", "soft"])
def test_certain_labels_are_trls_own_training(
    tiny_model: Path, write_dataset: Write, tmp_path: Path, options: dict[str, Any]
) -> None:
    """The same rows through bare TRL and through ours, with its centring: equal losses, equal weights.

    The template closes with the end token, so that TRL's ids and ours are the same.
    """
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    rows = pairs(16, probability=1.0)
    # plain gradient steps: Adam turns the last digit of a gradient near 0 into a whole step
    args = {**QUICK, "center_rewards_coefficient": 0.05, "logging_steps": 1, "optim": "sgd", "learning_rate": 0.1}
    ours = train_reward(section(tiny_model, args=args, **options), write_dataset(train=rows), tmp_path / "o", seed=1)
    config = RewardConfig(
        output_dir=str(tmp_path / "trl"), **args, seed=1, bf16=False, gradient_checkpointing=False,
        report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    plain = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows]
    trainer = RewardTrainer(
        model=str(tiny_model), args=config, train_dataset=Dataset.from_list(plain),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )  # fmt: skip
    trainer.train()
    theirs = [row for row in trainer.state.log_history if "loss" in row]
    for mine, bare in zip(ours["history"], theirs, strict=True):
        assert mine["loss"] == pytest.approx(bare["loss"], abs=1e-6)
        assert mine["accuracy"] == bare["accuracy"]
    trained = {name: weight.detach() for name, weight in trainer.model.state_dict().items()}
    assert same(weights(tmp_path / "o"), trained, 1e-6)


def test_uncertain_pairs_end_at_their_log_odds(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    """log(.75 / .25) = 1.10 is where a pair of probability .75 stops; a margin of 1 moves that by 1."""
    args = {"max_steps": 60, "learning_rate": 3e-3}
    data = write_dataset(train=pairs(16, probability=0.75, margin=1.0))
    for margin, expected in ((False, 1.0986), (True, 2.0986)):
        job = section(tiny_model, args=args, soft_labels=True, margin=margin)
        result = train_reward(job, data, tmp_path / f"o-{margin}", seed=1)
        assert result["history"][-1]["margin"] == pytest.approx(expected, abs=0.25)


def test_margin_column_counts_only_when_asked(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    for name, column, options in (
        ("a", {}, {}),
        ("b", {"margin": 9.0}, {}),
        ("c", {"margin": 9.0}, {"margin": True}),
    ):
        data = write_dataset(name, train=pairs(16, **column))
        train_reward(section(tiny_model, **options), data, tmp_path / f"o{name}", seed=1)
    a, b, c = (weights(tmp_path / f"o{name}") for name in "abc")
    assert same(a, b) and not same(a, c)


@pytest.mark.parametrize(
    "options", [{"loss": "forward", "flip_rate": 0.2}, {"loss": "backward", "flip_rate": 0.2}, {"loss": "symmetric"}]
)
def test_losses_for_noise_learn(
    tiny_model: Path, write_dataset: Write, tmp_path: Path, options: dict[str, Any]
) -> None:
    job = section(tiny_model, args={"max_steps": 24, "learning_rate": 3e-3}, **options)
    result = train_reward(job, write_dataset(train=pairs(32), test=pairs(8)), tmp_path / "o", seed=1)
    assert result["held_out"]["accuracy"]["value"] == 1


def test_one_head_a_criterion(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    from rlaif.training.scoring import Weights, load_reward

    data, out = write_dataset(train=scored(60), test=scored(20)), tmp_path / "o"
    args = {"max_steps": 120, "learning_rate": 3e-3, "per_device_train_batch_size": 8}
    result = train_reward(section(tiny_model, kind="scores", args=args), data, out, seed=1)
    assert result["heads"] == ["nice", "long"]
    heads = result["held_out"]["heads"]
    assert heads["nice"]["n"] == 13 and heads["long"]["n"] == 20  # i % 3 == 0 has no `nice`
    assert heads["nice"]["correlation"] > 0.95 and heads["long"]["correlation"] > 0.95
    assert heads["nice"]["rmse"] < 0.5 and heads["long"]["rmse"] < 5  # in the criteria's own units

    scorer = load_reward(out)
    question = [[{"role": "user", "content": "is it 1"}]] * 2
    responses = ["good very very", "not very very very very"]  # nice and middling; bad and long
    found = scorer.score(question, responses)
    assert found.heads[:, 0].tolist() == pytest.approx([4, 1], abs=0.6)
    assert found.heads[:, 1].tolist() == pytest.approx([20, 40], abs=6)
    scorer.use(Weights({"long": 1.0}))
    by_length = scorer.score(question, responses).reward
    scorer.use(Weights({"long": 1.0}, {"nice": 2.5}))
    within_floor = scorer.score(question, responses)
    assert by_length[1] > by_length[0] and within_floor.reward[0] > within_floor.reward[1]
    assert within_floor.violated.tolist() == [False, True]


@pytest.mark.parametrize(("kind", "make"), [("pair", pairs), ("scores", scored), ("ranking", ranked)])
def test_accumulated_batches_are_one_batch(
    tiny_model: Path, write_dataset: Write, tmp_path: Path, kind: Any, make: Callable[[int], list[dict[str, Any]]]
) -> None:
    """However rows fall on batches, also where only some of them are judged on a criterion."""
    data = write_dataset(train=make(16))
    for name, batch in (("whole", (8, 1)), ("parts", (2, 4))):
        sizes = dict(zip(("per_device_train_batch_size", "gradient_accumulation_steps"), batch, strict=True))
        args = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.1, **sizes}
        train_reward(section(tiny_model, kind=kind, args=args), data, tmp_path / name, seed=1)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"), 1e-6)
    assert not same(weights(tmp_path / "whole"), {**weights(tmp_path / "whole"), **weights(tiny_model)}, 1e-4)


def test_listwise(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(train=ranked(32), test=ranked(8))
    args = {"max_steps": 40, "learning_rate": 3e-3, "center_rewards_coefficient": 0.01}
    result = train_reward(section(tiny_model, kind="ranking", args=args), data, tmp_path / "o", seed=1)
    assert result["history"][0]["loss"] == pytest.approx(0.9, abs=0.25)  # (log 3 + log 2) / 2 and (log 24) / 3
    assert result["held_out"]["pair_accuracy"]["value"] == 1 and result["held_out"]["top"]["value"] == 1


def test_ensemble(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    from rlaif.training.scoring import load_reward

    data, out = write_dataset(train=pairs(16), test=pairs(6)), tmp_path / "run" / "reward"
    result = train_reward(section(tiny_model, ensemble=2), data, out, seed=1)
    assert sorted(path.name for path in out.iterdir()) == ["member-0", "member-1", "reward.json", "training.json"]
    assert [path.name for path in out.parent.iterdir()] == ["reward"]
    assert [member["seed"] for member in result["members"]] == [1, 2] and result["held_out"]["disagreement"][
        "max"
    ] > 0
    one = train_reward(section(tiny_model), data, tmp_path / "alone", seed=2)
    assert same(weights(out / "member-1"), weights(tmp_path / "alone"))
    assert one["held_out"] == result["members"][1]["held_out"]

    scorer, cautious = load_reward(out), load_reward(out, pessimism=1.0)
    alone = [load_reward(out / f"member-{i}") for i in (0, 1)]
    prompts, responses = ["is it good "] * 3, ["yes", "no not", "very"]
    found, low = scorer.score(prompts, responses), cautious.score(prompts, responses)
    apart = [each.score(prompts, responses).reward for each in alone]
    assert found.reward == pytest.approx((apart[0] + apart[1]) / 2)
    assert found.disagreement == pytest.approx(abs(apart[0] - apart[1]) / 2**0.5)  # sd of two, n − 1
    assert low.reward == pytest.approx(found.reward - found.disagreement)


def test_lora_trains_the_new_head(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    job = section(tiny_model, lora=lora, kind="scores", args={"learning_rate": 1e-2, "max_steps": 60})
    out = tmp_path / "o"
    result = train_reward(job, write_dataset(train=scored(30), test=scored(10)), out, seed=1)
    before, after = weights(tiny_model), weights(out)
    changed = {name for name in before if not (before[name] == after[name]).all()}
    assert changed == {f"model.layers.0.self_attn.{name}.weight" for name in ("q_proj", "v_proj")}
    assert after["score.weight"].shape == (2, 64)
    assert not (out / "adapter_config.json").exists()

    from rlaif.training.scoring import load_reward

    rows = scored(10)  # the merged folder says what was measured with the adapter
    found = load_reward(out).score([r["prompt"] for r in rows], [r["response"][0]["content"] for r in rows])
    told = [row["scores"]["long"] for row in rows]
    error = (sum((a - b) ** 2 for a, b in zip(found.heads[:, 1], told, strict=True)) / 10) ** 0.5
    assert error == pytest.approx(result["held_out"]["heads"]["long"]["rmse"], rel=1e-3)


KILLED = """
import os, signal, sys
from pathlib import Path
from transformers import Trainer
from rlaif.config import RewardSection
from rlaif.training.reward import train_reward

save, dead = Trainer._save_checkpoint, Path(sys.argv[3]).parent / "saves"
def save_and_die(self, *args, **kwargs):
    save(self, *args, **kwargs)
    with dead.open("a") as file:
        file.write("x")
    if len(dead.read_text()) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._save_checkpoint = save_and_die
train_reward(RewardSection.model_validate_json(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), seed=1)
"""


def test_goes_on_after_a_kill(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    """An ensemble killed in its second member: the first is kept, the second goes on from its checkpoint, and both
    have the weights of an unkilled run."""
    data = write_dataset(train=pairs(16))
    job = section(tiny_model, ensemble=2, args={"max_steps": 6, "save_strategy": "steps", "save_steps": 2})
    train_reward(job, data, tmp_path / "whole", seed=1)
    killed = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, job.model_dump_json(), str(data), str(killed), "5"],  # step 4 of member 1
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL and not killed.exists()
    first = tmp_path / ".killed.partial" / "members" / "member-0" / "model.safetensors"
    written = first.stat().st_mtime_ns
    train_reward(job, data, killed, seed=1)
    assert (killed / "member-0" / "model.safetensors").stat().st_mtime_ns == written
    assert json.loads((killed / "member-1" / "training.json").read_text())["resumed_from_step"] == 4
    for name in ("member-0", "member-1"):
        assert same(weights(tmp_path / "whole" / name), weights(killed / name))
    assert not (tmp_path / ".killed.partial").exists()


def test_long_rows_are_left_out_and_counted(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    rows = pairs(8)
    rows[0]["chosen"] = [{"role": "assistant", "content": "good " * 100}]
    data = write_dataset(train=rows, test=[*rows[:1], *pairs(2)])
    out = tmp_path / "o"
    result = train_reward(section(tiny_model, args={"max_length": 64}), data, out, seed=1)
    assert result["rows_dropped_too_long"] == 1 and result["held_out"]["n"] == 2
    assert json.loads((out / "reward.json").read_text())["dropped_too_long"] == {"train": 1, "test": 1}


def refused(job: RewardSection, data: Path, tmp_path: Path, message: str) -> None:
    out = tmp_path / "out" / "reward"
    with pytest.raises(UserError) as error:
        train_reward(job, data, out, seed=1)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list(out.parent.iterdir()) == []


def without(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in rows]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (without(pairs(4), "rejected"), {}, "(train): missing column rejected; columns there: prompt, chosen"),
        (without(pairs(4), "probability"), {"soft_labels": True}, "missing column probability"),
        (pairs(4), {"margin": True}, "missing column margin"),
        (pairs(4, margin=None), {"margin": True}, "row 0: margin must be a number, got None"),
        (pairs(4, probability=1.5), {}, "row 0: probability must be a number in [0, 1], got 1.5"),
        (pairs(4), {"kind": "scores"}, "missing column response, scores"),
        (
            scored(4),
            {"kind": "scores", "heads": ["nice", "kind"]},
            "scores.kind is not there; criteria there: nice, l",
        ),
        (
            [{**row, "scores": {"nice": None}} for row in scored(3)],
            {"kind": "scores"},
            "row 0: no criterion was judg",
        ),
        (
            [{**row, "ranking": [0, 0, 1]} for row in ranked(2)],
            {"kind": "ranking"},
            "row 0: ranking must hold the pl",
        ),
        (pairs(4), {"args": {"max_length": 4}}, "max_length: 4: every row is longer"),
        (pairs(16), {"args": {"learning_rate": 1e30, "max_grad_norm": 0}}, "training diverged"),
        (
            pairs(4),
            {"args": {"learning_rat": 1}},
            "train.reward.args.learning_rat: RewardConfig has no such argument",
        ),
        (scored(4), {"kind": "scores", "args": {"center_rewards_coefficient": 0.1}}, "not for kind: scores"),
        (pairs(4), {"lora": {"modules_to_save": ["x"]}}, "lora.modules_to_save: must hold 'score'"),
        ([], {}, "no rows"),
    ],
)
def test_bad_input(
    tiny_model: Path,
    write_dataset: Write,
    tmp_path: Path,
    rows: list[dict[str, Any]],
    options: dict[str, Any],
    message: str,
) -> None:
    refused(section(tiny_model, **options), write_dataset(train=rows), tmp_path, message)


def test_bad_input_of_an_ensemble_leaves_nothing(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    job = section(tiny_model, ensemble=2, args={"max_length": 4})
    refused(job, write_dataset(train=pairs(4)), tmp_path, "every row is longer")


def test_pad_token_must_not_be_the_end_token(write_dataset: Write, tmp_path: Path) -> None:
    model, data = build_model(tmp_path / "no_pad", pad=False), write_dataset(train=pairs(8))
    refused(section(model), data, tmp_path, "has no pad token of its own")
    refused(section(model), data, tmp_path, "for example <|pad|>")
    refused(section(model, pad_token="<|end|>"), data, tmp_path, "or is its end token")
    assert train_reward(section(model, pad_token="<|pad|>"), data, tmp_path / "o", seed=1)["steps"] == 4


def test_human_labels_are_checked_before_training(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    job = section(tiny_model, human=str(tmp_path / "nowhere"))
    refused(job, write_dataset(train=pairs(8)), tmp_path, "nowhere: no such dataset")


def test_sections_that_contradict_themselves() -> None:
    from rlaif.config import validate

    for raw, message in (
        ({"kind": "scores", "soft_labels": True}, "soft_labels: only for kind: pair"),
        ({"kind": "ranking", "loss": "symmetric"}, "loss: only for kind: pair"),
        ({"heads": ["a"]}, "heads: names of criteria, for kind: scores"),
        ({"loss": "forward"}, "flip_rate: loss: forward needs"),
        ({"flip_rate": 0.1}, "flip_rate: only loss"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate(RewardSection, {"model": "m", **raw}, "x")
