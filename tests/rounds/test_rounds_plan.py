"""What a plan of rounds counts, what is checked before anything is paid, and what `--limit` means there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from rounds_config import RAW, changed, config

from rlaif import cli
from rlaif.checks import check
from rlaif.errors import ConfigError
from rlaif.plan import dry_run
from rlaif.records import Message, Reply, Request
from rlaif.store import RunFolder


class Counting:
    """An engine of one's own for which every prompt has ten tokens."""

    def __init__(self, model: str, **_: Any) -> None:
        from rlaif.engines.base import Capabilities

        self.model, self.identity = model, f"counting:{model}"
        self.capabilities = Capabilities(logprobs=False, concurrency=1)

    async def start(self) -> None:
        raise AssertionError("a plan starts nothing")

    async def close(self) -> None:
        raise AssertionError("what was not started")

    async def complete(self, request: Request, seed: int) -> Reply:
        raise AssertionError("a plan asks nothing")

    def count_tokens(self, messages: list[Message]) -> int:
        return 10


MINE: dict[str, Any] = {
    "policy": {"engine": "test_rounds_plan:Counting", "model": "m", "price": {"prompt": 2.0, "completion": 10.0}},
    "judge": RAW["engines"]["judge"],
}


def requests(plan: str) -> dict[str, int]:
    found = re.findall(r"^  (\S.*?) +([\d,]+) requests", plan, re.MULTILINE)
    return {name: int(number.replace(",", "")) for name, number in found}


def test_all_rounds_and_the_last_comparison_are_counted(tmp_path: Path) -> None:
    plan = dry_run(config(changed(engines=MINE, run=str(tmp_path / "run"))))
    assert requests(plan) == {
        "3 rounds: generate": 3 * 20 * 2,
        "3 rounds: judge": 3 * 20 * 2,  # one pair, both orders
        "3 rounds: evaluate: answers": 3 * 9 * 2,
        "3 rounds: evaluate: judge": 3 * 9 * 2,
        "evaluate: answers": 9 * 3,  # the first, the last, and round-1
        "evaluate: judge": 9 * 2 * 3,  # every two of them
    }
    sampled, answered = 120, 54 + 27
    cost = (sampled + answered) * 10 * 2e-6 + (sampled * 16 + answered * 512) * 10e-6
    assert f"cost at most about {cost:.4g}, in the unit" in plan
    assert "3 rounds: prompts → generate → judge → pair → export → dpo → evaluate → report" in plan
    assert not (tmp_path / "run").exists()


def test_rounds_that_share_all_prompts_are_counted_alike(tmp_path: Path) -> None:
    prompts = {"path": "shipped:data/tiny/prompts.jsonl", "limit": 6}
    plan = dry_run(config(changed(engines=MINE, run=str(tmp_path), rounds=2, prompts=prompts, evaluate=None)))
    assert requests(plan) == {"2 rounds: generate": 2 * 6 * 2, "2 rounds: judge": 2 * 6 * 2}


@pytest.mark.parametrize(("limit", "expected"), [(4, 3 * 4 * 2), (40, 3 * 20 * 2)])
def test_limit_is_of_each_round(
    limit: int, expected: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(changed(engines=MINE, run=str(tmp_path / "run"), evaluate=None)))
    assert cli.main(["plan", str(path), "--limit", str(limit)]) == 0
    assert requests(capsys.readouterr().out)["3 rounds: generate"] == expected


def test_limit_is_of_the_prompts_where_rounds_share_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(changed(engines=MINE, run=str(tmp_path / "run"), evaluate=None, rounds=2)))
    assert cli.main(["plan", str(path), "--limit", "4"]) == 0
    assert requests(capsys.readouterr().out)["2 rounds: generate"] == 2 * 4 * 2


def test_what_a_later_round_would_refuse_is_found_at_once(tmp_path: Path) -> None:
    def checked(**sections: Any) -> None:
        mine = config(changed(run=str(tmp_path), **sections))
        check(mine, RunFolder(tmp_path), ["rounds"])

    gates = {"n": 2, "gates": {"win_rate.jury": {"min": 0.5}}}
    with pytest.raises(ConfigError, match=r"win_rate.JUDGE, judges here: judge"):
        checked(engines=MINE, rounds=gates)
    scripted = {**MINE, "policy": {"engine": "scripted", "default": "x"}}
    with pytest.raises(
        ConfigError, match="rounds: engine 'scripted' of 'policy' cannot serve the folder that a round"
    ):
        checked(engines=scripted, evaluate=None)
    checked(engines=scripted, evaluate=None, rounds=1)
    with pytest.raises(ConfigError, match=r"pair.select"):
        checked(engines=MINE, pair={"select": "nosuch"})
    with pytest.raises(ConfigError, match=r"rounds.prompts_per_round: 3 rounds of 400"):
        checked(engines=MINE, rounds={"n": 3, "prompts_per_round": 400})
