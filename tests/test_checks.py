"""A wrong setting is one line before anything is asked, and a run folder keeps the config that it had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_helpers import http_config, manifest, rlaif, succeed, write_config, write_prompts
from stub_server import StubHandle

import rlaif as api
from rlaif import cli
from rlaif.checks import check
from rlaif.config import Pipeline, validate
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import ConfigError, StoreError
from rlaif.store import RunFolder

ROWS = [{"prompt": f"Question {i}?", "response_a": f"yes {i}", "response_b": f"no {i}"} for i in range(4)]


@pytest.fixture
def judged(tmp_path: Path, server: StubHandle, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a run on the user's own file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    engine = ["--engine", "openai", "--model", "m", "--base-url", server.url]
    assert cli.main(["judge", "rows.jsonl", "--run", "run", "--rubric", "helpfulness", *engine, "--quiet"]) == 0
    return tmp_path


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["pair", "run", "--set", "pair.select=best_vs_wurst"], "did you mean 'best_vs_worst'?"),
        (["judge", "run", "--rubric", "helpfullness"], "did you mean 'helpfulness'?"),
        (["judge", "run", "--set", "engines.judge.tempo=3"], "tempo"),
        (["evaluate", "run"], "evaluate: this config has no such section"),
        (["generate", "run"], "generate: this config has no such section"),
        (["pair", "run", "--limit", "2"], "--limit: rlaif pair takes what the run folder holds"),
        (["pair", "run", "--set", "pair.min_marg=0.1"], "run/manifest.json with --set: pair.min_marg: unknown key"),
        (["pair", "rows.jsonl"], "rows.jsonl: rlaif pair needs a run folder"),
        (["train", "dpo", "rows.jsonl", "--run", "t"], "name the starting model with --model"),
        (["train", "sft", "run"], "train.sft: this config has no such section"),
        (
            ["train", "dpo", "run", "--model", "m", "--set", "train.dpo.label_smoothing=0.5"],
            "label_smoothing: Input sh",
        ),
        (
            ["train", "kto", "run", "--model", "m", "--set", "export.kinds=[pair]"],
            "train.kto: reads dataset-unpaired/, which export does not write: add unpaired to export.kinds",
        ),
    ],
)
def test_a_wrong_command_is_one_line_and_changes_nothing(
    command: list[str], said: str, judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = manifest(judged / "run")
    assert cli.main([*command, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert manifest(judged / "run") == before
    assert cli.main(["pair", "run", "--quiet"]) == 0


def test_a_late_stages_mistake_is_found_before_anything_is_asked(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 3)
    config = http_config(server.url, n=2)
    config["pair"]["select"] = "nope"
    write_config(tmp_path / "p.yaml", config)
    for more in ([], ["--dry-run"]):
        outcome = rlaif("run", "p.yaml", *more, cwd=tmp_path)
        assert outcome.code == 2 and "unknown selector 'nope'" in outcome.err
    assert server.stats()["requests"] == 0


def to_evaluate(folder: Path, start: dict[str, object], after: str = "trained") -> Pipeline:
    """Evaluation alone: only the starting policy and what is compared with it matter here."""
    engines = {"start": start, "judge": {"engine": "scripted", "default": "A"}}
    engines |= {"served": {"engine": "openai", "model": "m"}, "tuned": {"engine": "vllm", "model": "run/policy"}}
    evaluate = {"prompts": {"path": "held.jsonl"}, "before": "start", "after": after}
    raw = {"run": str(folder), "engines": engines, "judge": {"rubric": "helpfulness"}, "evaluate": evaluate}
    return validate(Pipeline, raw, "p.yaml")


SERVED = {"engine": "openai", "model": "m"}
SCRIPTED = {"engine": "scripted", "default": "x"}


@pytest.mark.parametrize("start", [SERVED, SCRIPTED, {"engine": "replay", "path": "replies.jsonl"}])
def test_an_engine_that_cannot_serve_what_is_trained_is_refused(start: dict[str, object], tmp_path: Path) -> None:
    row = {"v": 1, "key": "0" * 32, "content": "0" * 32, "model": "m", "reply": {"text": "x"}}
    (tmp_path / "replies.jsonl").write_text(json.dumps(row) + "\n")
    if "path" in start:
        start = {**start, "path": str(tmp_path / "replies.jsonl")}
    with pytest.raises(ConfigError, match=r"engine '\w+' of 'start' cannot serve .* may name another") as refused:
        check(to_evaluate(tmp_path, start), RunFolder(tmp_path), ["evaluate"])
    assert "\n" not in str(refused.value)
    for after in ("served", "tuned", "start"):
        check(to_evaluate(tmp_path, start, after), RunFolder(tmp_path), ["evaluate"])


@pytest.mark.parametrize("engine", [f"{__name__}:OwnEngine", "transformers", "vllm"])
def test_an_engine_that_loads_a_folder_serves_what_is_trained(engine: str, tmp_path: Path) -> None:
    start = {"engine": engine, "model": "shipped:data/tiny/policy"}
    check(to_evaluate(tmp_path, start), RunFolder(tmp_path), ["evaluate"])


def test_it_is_refused_before_anything_is_asked(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 3)
    config = write_config(
        tmp_path / "p.yaml", http_config(server.url, n=2), evaluate={"prompts": {"path": "prompts.jsonl"}}
    )
    for more in ([], ["--dry-run"]):
        outcome = rlaif("run", config, *more, cwd=tmp_path)
        assert outcome.code == 2 and "evaluate.after: trained" in outcome.one_line
    assert server.stats()["requests"] == 0 and not (tmp_path / "run" / "manifest.json").exists()


def test_limit_is_about_the_prompts_that_the_command_reads(tmp_path: Path) -> None:
    from rlaif.cli_config import config_from

    config = http_config("http://localhost:1/v1") | {"evaluate": {"prompts": {"path": "h.jsonl"}, "before": "policy"}}
    write_config(tmp_path / "p.yaml", config)
    target = str(tmp_path / "p.yaml")
    limits = {}
    for command in ("run", "evaluate"):
        given = [command, target, "--limit", "3"]
        config_ = config_from(cli.build_parser(given).parse_args(given))
        assert config_.prompts and config_.evaluate
        limits[command] = (config_.prompts.limit, config_.evaluate.prompts.limit)
    assert limits == {"run": (3, None), "evaluate": (None, 3)}


def test_the_plan_says_what_it_may_cost(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 10)
    config = http_config("http://localhost:1/v1", n=2, max_tokens=50)
    config["engines"]["policy"]["price"] = {"completion": 1000.0}
    write_config(tmp_path / "p.yaml", config)
    plan = succeed("run", "p.yaml", "--dry-run", cwd=tmp_path).out
    assert "at most 1,000 out, cost at most about 1\n" in plan  # 10 prompts × 2 samples × 50 tokens × 1000 / 10⁶
    assert plan.endswith("cost at most about 1, in the unit of the engines' prices\n")


def test_a_judge_that_fails_says_why_on_the_terminal(judged: Path, server: StubHandle, capsys) -> None:
    server.set(status=400, error="the context is 8 tokens long")
    assert cli.main(["judge", "run", "--rubric", "honesty", "--quiet"]) == 0
    assert "for example: " in capsys.readouterr().out


def test_the_api_takes_shipped_names_and_refuses_an_engine_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nope: unknown key"):  # it was found, then checked
        api.run("quickstart", overrides=["nope=1"])
    with pytest.raises(ConfigError, match="engine: expected a mapping"):
        api.judge(ROWS, engine="openai", rubric="helpfulness")  # type: ignore[arg-type]


class OwnEngine(ScriptedEngine):
    """A person's own, which may load any folder."""

    def __init__(self, model: str) -> None:
        super().__init__(default=model)


class HalfAnEngine:
    """What a person's own engine may lack."""

    identity = model = "half"


def test_an_engine_of_ones_own_that_lacks_a_part_is_told_which() -> None:
    with pytest.raises(ConfigError, match="has no capabilities, start, complete, count_tokens, close"):
        api.judge(ROWS, engine={"engine": f"{__name__}:HalfAnEngine"}, rubric="helpfulness")


def test_a_folder_of_something_else_is_left_alone(
    judged: Path, server: StubHandle, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ["--engine", "openai", "--model", "m", "--base-url", server.url, "--rubric", "helpfulness", "--quiet"]
    for name, text in (
        ("responses.jsonl", "mine"),
        ("dataset/mine.txt", "mine"),
        ("manifest.json", '{"name": "app"}'),
    ):
        folder = judged / name.replace("/", "-")
        file = folder / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
        assert cli.main(["judge", "rows.jsonl", "--run", str(folder), *engine]) == 2
        assert name.partition("/")[0] in capsys.readouterr().err
        assert file.read_text() == text
    (judged / "data").mkdir()
    (judged / "data" / "input.jsonl").write_text("mine")
    with pytest.raises(StoreError, match=r"input\.jsonl"):
        api.judge(ROWS, engine={"engine": "openai", "model": "m"}, rubric="helpfulness", run=judged / "data")
    assert (judged / "data" / "input.jsonl").read_text() == "mine"


def test_a_config_without_a_stage_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to run: the config has none of prompts, generate, revise, judge"):
        api.run({"run": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


def test_a_misspelled_argument_of_an_engine_has_a_hint() -> None:
    engine = {"engine": "openai", "model": "m", "api_key": "abc"}
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'api_key'; did you mean 'api_key_env'\?"):
        api.judge(ROWS, engine=engine, rubric="helpfulness")


def test_plan_is_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "preferences-hosted", "--dry-run"]) == 0
    wanted = capsys.readouterr().out
    assert cli.main(["plan", "preferences-hosted"]) == 0
    assert capsys.readouterr().out == wanted and "requests to expect" in wanted


def test_plan_of_one_training_needs_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "pairs.jsonl", "--trainer", "dpo", "--run", str(tmp_path / "run")]) == 2
    assert "rlaif train dpo pairs.jsonl: name the starting model with --model" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_plan_says_which_key_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HOSTED_API_KEY", raising=False)
    assert cli.main(["run", "preferences-hosted", "--dry-run"]) == 0
    assert "needed for the run: the environment variable HOSTED_API_KEY" in capsys.readouterr().out
    monkeypatch.setenv("HOSTED_API_KEY", "x")
    assert cli.main(["run", "preferences-hosted", "--dry-run"]) == 0
    assert "HOSTED_API_KEY" not in capsys.readouterr().out
