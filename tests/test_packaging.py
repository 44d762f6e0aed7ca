"""The wheel holds everything that ships and works from an empty folder; the core needs neither torch nor datasets."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ["torch", "transformers", "trl", "datasets", "accelerate", "peft", "vllm", "pandas", "pyarrow", "matplotlib"]


def python(code: str, cwd: Path = ROOT, **env: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_core_and_the_command_line_imports_nothing_heavy() -> None:
    found = python(f"import sys, rlaif, rlaif.cli; print(sorted(set({HEAVY}) & set(sys.modules)))")
    assert found == "[]"


def test_judging_over_http_needs_no_torch() -> None:
    modules = "rlaif.cli, rlaif.pipeline, rlaif.driver, rlaif.store, rlaif.engines.openai, rlaif.stages.judge"
    absent = [name for name in HEAVY if name not in ("pandas", "pyarrow")]
    python(f"import sys; sys.modules.update(dict.fromkeys({absent})); import {modules}")


def test_help_is_instant() -> None:
    """CPU seconds, so that a busy machine does not fail this; the best of three, so that a cold disk does not."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "rlaif", "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
    ]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("rlaif-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, timeout=300)
    return target


@pytest.mark.integration  # builds a wheel
def test_the_wheel_holds_prompts_pipelines_models_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    shipped = {name.removeprefix("rlaif/_shipped/") for name in names if name.startswith("rlaif/_shipped/")}
    tracked = subprocess.run(
        ["git", "ls-files", "prompts", "pipelines", "data"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert {"pipelines/quickstart.yaml", "data/tiny/judge/model.safetensors"} <= shipped
    assert set(tracked) <= shipped
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    sources = {
        str(path.relative_to(ROOT)) for path in (ROOT / "rlaif").rglob("*") if path.suffix in (".py", ".jinja")
    }
    assert sources <= names


@pytest.mark.integration  # installs the wheel into an empty folder
def test_the_wheel_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = python("import rlaif; print(rlaif.__file__)", cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(where).is_relative_to(installed)
    for arguments in (["--help"], ["rubric", "list"], ["run", "quickstart", "--dry-run"]):
        done = subprocess.run(
            [sys.executable, "-m", "rlaif", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        assert done.stdout
