"""What a changed config asks again, and what budgets, --retry, --limit and --dry-run do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_helpers import (
    REPO,
    http_config,
    manifest,
    rlaif,
    rows,
    succeed,
    tables,
    tiny_config,
    write_config,
    write_prompts,
)
from stub_server import StubHandle

pytestmark = pytest.mark.integration  # whole runs in processes of their own

PROMPTS, N = 8, 3
GENERATED = PROMPTS * N
JUDGED = PROMPTS * 3 * 2  # three pairs a prompt, in both orders


@pytest.fixture(scope="module")
def _finished_once(tmp_path_factory: pytest.TempPathFactory, _stub_process: StubHandle) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_prompts(folder / "prompts.jsonl", PROMPTS)
    shutil.copy(REPO / "prompts" / "rubrics" / "helpfulness.yaml", folder / "mine.yaml")
    for name in ("pairwise.jinja", "_blocks.jinja"):
        shutil.copy(REPO / "prompts" / "judges" / name, folder / name)
    _stub_process.reset()
    config = http_config(_stub_process.url, n=N)
    del config["engines"]["policy"]["name"]  # so that its address is what it is
    config["judge"] |= {"rubric": "mine.yaml", "frame": "pairwise.jinja"}
    write_config(folder / "p.yaml", config)
    succeed("run", "p.yaml", "--quiet", cwd=folder)
    assert _stub_process.stats()["requests"] == GENERATED + JUDGED
    return folder


@pytest.fixture
def finished(tmp_path: Path, _finished_once: Path) -> Path:
    """The working folder of a finished run, with a rubric and a frame of its own."""
    shutil.copytree(_finished_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


def replace(name: str, old: str, new: str) -> Callable[[Path], list[str]]:
    def change(folder: Path) -> list[str]:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")
        return []

    return change


def override(*settings: str) -> Callable[[Path], list[str]]:
    return lambda _: [part for setting in settings for part in ("--set", setting)]


SAMPLER = "generate.samplers.0"
CHANGES: dict[str, tuple[Callable[[Path], list[str]], int]] = {
    "nothing": (override(), 0),
    "pairing": (override("pair.select=best_vs_worst"), 0),
    "margin": (override("pair.min_margin=0.2"), 0),
    "export": (override("export.test_fraction=0.5", "export.formats=[parquet]"), 0),
    "report": (override("report.title=Mine"), 0),
    "concurrency": (override("budget.concurrency=3"), 0),
    "name of a sampler": (override(f"{SAMPLER}.name=other"), 0),
    "rubric wording": (
        replace("mine.yaml", "The response does what was asked", "The answer does what was asked"),
        JUDGED,
    ),
    "comment in a rubric": (replace("mine.yaml", "\n", "\n# a remark\n"), 0),
    "text of a frame": (replace("pairwise.jinja", "You compare two", "You look at two"), JUDGED),
    "comment in a frame": (replace("pairwise.jinja", "Two responses, one", "Two texts, one"), 0),
    "text of what a frame imports": (
        replace("_blocks.jinja", "Length is not quality", "Size is not quality"),
        JUDGED,
    ),
    "sampling temperature": (override(f"{SAMPLER}.temperature=0.7"), GENERATED + JUDGED),
    "one sample more": (override(f"{SAMPLER}.n=4"), PROMPTS + PROMPTS * 3 * 2),
    "one sample less": (override(f"{SAMPLER}.n=2"), 0),
    "a new seed": (override("seed=8"), GENERATED + JUDGED),
    "system prompt": (override(f"{SAMPLER}.system=Be brief."), GENERATED + JUDGED),
    "one order": (override("judge.orders=random"), 0),
    "text verdicts": (override("judge.read=text"), JUDGED),
    "judge's model": (override("engines.judge.model=other"), JUDGED),
    "judge's address, same name": (override("engines.judge.base_url=http://localhost:{port}/v1"), 0),
    # seeds come from keys, and an address without a name is in the key: other texts, other judgments
    "policy's address": (override("engines.policy.base_url=http://localhost:{port}/v1"), GENERATED + JUDGED),
    "fewer prompts": (override("prompts.limit=3"), 0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_only_what_a_change_touches_is_asked_again(finished: Path, server: StubHandle, name: str) -> None:
    change, expected = CHANGES[name]
    arguments = [part.replace("{port}", str(server.port)) for part in change(finished)]
    server.clear()
    succeed("run", "p.yaml", "--quiet", *arguments, cwd=finished)
    sent = server.stats()["requests"]
    assert sent == expected
    assert manifest(finished / "run")["last_run"]["sent"] == sent
    server.clear()
    succeed("run", "p.yaml", "--quiet", *arguments, cwd=finished)
    assert server.stats()["requests"] == 0, "and then it is recorded"
    if not arguments:
        return
    succeed("run", "p.yaml", "--quiet", cwd=finished)
    assert server.stats()["requests"] == 0, "the way back asks nothing"


def test_changed_weights_are_asked_again(tmp_path: Path) -> None:
    """The weights of a local folder are its identity: another file, other replies."""
    shutil.copytree(REPO / "data" / "tiny" / "policy", tmp_path / "policy")
    config = tiny_config(prompts=4, n=2)
    config["engines"] = {"policy": {"engine": "transformers", "model": str(tmp_path / "policy"), "dtype": "float32"}}
    path = write_config(tmp_path / "p.yaml", config, judge=None, pair=None, export=None)
    succeed("run", path, "--quiet", cwd=tmp_path)
    assert manifest(tmp_path / "run")["last_run"]["sent"] == 8
    weights = tmp_path / "policy" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(bytes(data))
    succeed("run", path, "--quiet", cwd=tmp_path)
    assert manifest(tmp_path / "run")["last_run"]["sent"] == 8
    succeed("run", path, "--quiet", cwd=tmp_path)
    assert manifest(tmp_path / "run")["last_run"]["sent"] == 0


# -- budgets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, server: StubHandle) -> Path:
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    write_config(tmp_path / "p.yaml", http_config(server.url, n=N))
    return tmp_path


@pytest.mark.parametrize("most", [0, 5, GENERATED, GENERATED + 7])
def test_max_requests(folder: Path, server: StubHandle, most: int) -> None:
    """Over all stages together; the run that is allowed the rest finishes as an unbroken one."""
    stopped = rlaif("run", "p.yaml", "--quiet", "--max-requests", most, cwd=folder)
    assert stopped.code == 4 and server.stats()["requests"] == most
    assert re.search(rf"stopped at max_requests {most}: .* run the same command again", stopped.one_line)
    assert manifest(folder / "run")["last_run"]["sent"] == most
    rest = succeed("run", "p.yaml", "--quiet", cwd=folder)
    stats = server.stats()
    assert stats["requests"] == stats["unique"] == GENERATED + JUDGED
    assert "preferences" in rest.out
    write_config(folder / "q.yaml", http_config(server.url, n=N), run="unbroken")
    succeed("run", "q.yaml", "--quiet", cwd=folder)
    assert tables(folder / "run") == tables(folder / "unbroken")


def test_the_same_command_again_and_again_finishes(folder: Path, server: StubHandle) -> None:
    codes = [rlaif("run", "p.yaml", "--quiet", "--max-requests", 30, cwd=folder).code for _ in range(3)]
    assert codes == [4, 4, 0]
    assert server.stats()["requests"] == server.stats()["unique"] == GENERATED + JUDGED


def test_max_cost(folder: Path, server: StubHandle) -> None:
    config = http_config(server.url, n=N)
    for name in ("policy", "judge"):
        config["engines"][name] |= {"price": {"prompt": 1.0, "completion": 1000.0}, "concurrency": 2}
    write_config(folder / "p.yaml", config)
    stopped = rlaif("run", "p.yaml", "--quiet", "--max-cost", 0.2, cwd=folder)
    assert stopped.code == 4
    assert re.search(r"stopped at max_cost 0.2: 0\.2\d* spent; .* run the same command again", stopped.one_line)
    assert manifest(folder / "run")["last_run"]["cost"] >= 0.2
    assert 2 < server.stats()["requests"] < GENERATED
    succeed("run", "p.yaml", "--quiet", cwd=folder)
    assert server.stats()["requests"] == GENERATED + JUDGED


# -- retry, limit, dry run -------------------------------------------------------------------------------------------


def test_retry_error_asks_what_failed(folder: Path, server: StubHandle) -> None:
    server.set(always_fail="number 3?")
    first = succeed("run", "p.yaml", "--quiet", "--set", "budget.retries=1", cwd=folder)
    assert "generate: 8 prompts, 21 responses, dropped 3 server" in first.out, first.out
    dropped = rows(folder / "run" / "dropped.jsonl")
    assert [row["stage"] for row in dropped].count("generate") == N
    server.set(always_fail="")
    server.clear()
    succeed("run", "p.yaml", "--quiet", "--set", "budget.retries=1", cwd=folder)
    assert server.stats()["requests"] == 0, "what failed is asked again only on demand"
    succeed("run", "p.yaml", "--quiet", "--set", "budget.retries=1", "--retry", "error", cwd=folder)
    assert server.stats()["requests"] == N + 3 * 2
    assert not [row for row in rows(folder / "run" / "dropped.jsonl") if row["stage"] == "generate"]


def test_retry_error_of_judgments(folder: Path, server: StubHandle) -> None:
    succeed("generate", "p.yaml", "--quiet", cwd=folder)
    server.set(always_fail="number 3?")
    out = succeed("judge", "p.yaml", "--quiet", "--set", "budget.retries=1", cwd=folder).out
    assert "dropped 6 judgment_error" in out, out
    judgments = rows(folder / "run" / "judgments.jsonl")
    assert [row["status"] for row in judgments if row.get("status", "ok") != "ok"] == ["error"] * 6
    server.set(always_fail="")
    server.clear()
    succeed("judge", "p.yaml", "--quiet", "--retry", "error", cwd=folder)
    assert server.stats()["requests"] == 6
    assert len(rows(folder / "run" / "judgments.jsonl")) == JUDGED
    assert not [row for row in rows(folder / "run" / "judgments.jsonl") if row.get("status", "ok") != "ok"]


def test_retry_unparsed_asks_what_gave_no_verdict(folder: Path, server: StubHandle) -> None:
    succeed("generate", "p.yaml", "--quiet", cwd=folder)
    server.set(rate_rubbish=0.3)
    text = ["--set", "judge.read=text"]
    succeed("judge", "p.yaml", "--quiet", *text, cwd=folder)
    bad = [row for row in rows(folder / "run" / "judgments.jsonl") if row.get("status") == "unparsed"]
    assert 3 < len(bad) < JUDGED
    assert all("verdict" not in row and "probabilities" not in row for row in bad)
    server.set(rate_rubbish=0)
    server.clear()
    succeed("judge", "p.yaml", "--quiet", *text, cwd=folder)
    assert server.stats()["requests"] == 0
    succeed("judge", "p.yaml", "--quiet", *text, "--retry", "unparsed", cwd=folder)
    assert server.stats()["requests"] == len(bad)
    assert not [row for row in rows(folder / "run" / "judgments.jsonl") if row.get("status") == "unparsed"]
    succeed("judge", "p.yaml", "--quiet", *text, cwd=folder)
    assert server.stats()["requests"] == len(bad)


def test_limit(folder: Path, server: StubHandle) -> None:
    succeed("run", "p.yaml", "--quiet", "--limit", 2, cwd=folder)
    assert len(rows(folder / "run" / "prompts.jsonl")) == 2
    assert server.stats()["requests"] == 2 * (N + 3 * 2)
    succeed("run", "p.yaml", "--quiet", cwd=folder)
    stats = server.stats()
    assert stats["requests"] == stats["unique"] == GENERATED + JUDGED, "the first two are not asked again"


def test_dry_run_sends_nothing(folder: Path, server: StubHandle) -> None:
    plan = succeed("run", "p.yaml", "--dry-run", cwd=folder)
    assert server.stats()["requests"] == 0 and not (folder / "run").exists()
    assert plan.out.count("What is the use of thing number 0?") == 1, "one prompt, fully rendered"
    assert "## Response A" in plan.out and "{{" not in plan.out
    numbers = {line.split()[0]: line.split()[1] for line in plan.out.splitlines() if " requests   about" in line}
    assert numbers == {"generate": str(GENERATED), "judge": str(JUDGED)}


def test_dry_run_of_a_dead_server_succeeds(folder: Path) -> None:
    config = yaml.safe_load((folder / "p.yaml").read_text())
    config["engines"]["judge"]["base_url"] = "http://127.0.0.1:9/v1"
    write_config(folder / "p.yaml", config)
    succeed("run", "p.yaml", "--dry-run", cwd=folder)


def test_force_runs_what_is_up_to_date(folder: Path, server: StubHandle) -> None:
    succeed("run", "p.yaml", "--quiet", cwd=folder)
    before = tables(folder / "run")
    server.clear()
    again = succeed("run", "p.yaml", "--quiet", "--force", cwd=folder)
    assert "up to date" not in again.out and server.stats()["requests"] == 0
    assert tables(folder / "run") == before
    assert manifest(folder / "run")["last_run"]["from_journal"] == GENERATED + JUDGED


@pytest.mark.parametrize("name", ["prompts", "responses", "judgments", "preferences"])
def test_a_lost_table_is_made_again(folder: Path, server: StubHandle, name: str) -> None:
    succeed("run", "p.yaml", "--quiet", cwd=folder)
    before = tables(folder / "run")
    server.clear()
    (folder / "run" / f"{name}.jsonl").unlink()
    succeed("run", "p.yaml", "--quiet", cwd=folder)
    assert tables(folder / "run") == before and server.stats()["requests"] == 0


def test_a_damaged_journal_costs_what_was_damaged(folder: Path, server: StubHandle) -> None:
    succeed("run", "p.yaml", "--quiet", cwd=folder)
    before = tables(folder / "run")
    journal = folder / "run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = b"\x00" * (len(lines[3]) - 1) + b"\n"
    lines[-1] = lines[-1][:-20]  # torn
    journal.write_bytes(b"".join(lines))
    server.clear()
    again = succeed("run", "p.yaml", "--quiet", "--force", cwd=folder)
    assert server.stats()["requests"] == 2
    assert "1 damaged row" in again.out
    assert tables(folder / "run") == before


def test_rows_of_the_journal_say_who_was_asked(folder: Path) -> None:
    succeed("run", "p.yaml", "--quiet", "--limit", 1, cwd=folder)
    entries = [json.loads(line) for line in (folder / "run" / "journal.jsonl").read_text().splitlines()]
    assert {entry["role"] for entry in entries} == {"policy", "judge"}
    assert len({entry["key"] for entry in entries}) == len(entries) == N + 3 * 2
    found: dict[str, Any] = entries[0]["reply"]
    assert found["text"] and found["usage"]
