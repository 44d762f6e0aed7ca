"""Who may import whom (docs/architecture.md), what stays out of an instant start, and that shipped pipelines plan."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif import cli
from rlaif.paths import shipped

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rlaif"
MODULES = sorted(PACKAGE.rglob("*.py"))

# heavy module → the only places that may import it, anywhere in the file
ONLY_IN = {
    "torch": ("training/", "world/", "engines/transformers", "engines/vllm.py"),
    "transformers": ("training/", "world/", "engines/", "rubric_cli.py", "rubric_"),
    "trl": ("training/",),
    "peft": ("training/", "engines/transformers"),
    "datasets": ("training/", "io/", "api.py"),
    "pandas": ("training/", "io/", "api.py"),
    "pyarrow": ("io/", "stages/export.py"),
    "vllm": ("engines/vllm.py",),
    "aiohttp": ("engines/openai",),
    "jinja2": ("templates.py",),
    "scipy": ("metrics/", "judges/", "training/"),
    "sklearn": ("metrics/", "judges/"),
    "krippendorff": ("metrics/",),
}
# package part → what it may not import
FORBIDDEN = {
    "judges/": ("rlaif.driver", "rlaif.store", "rlaif.stages", "rlaif.pipeline", "asyncio", "rlaif.io"),
    "training/": ("rlaif.judges", "rlaif.stages", "rlaif.driver", "rlaif.engines", "rlaif.store", "rlaif.pipeline"),
    "driver.py": ("rlaif.judges", "rlaif.stages", "rlaif.pipeline"),
    "store.py": ("rlaif.engines", "rlaif.driver", "rlaif.judges", "rlaif.stages", "rlaif.pipeline"),
    "metrics/": ("rlaif.store", "rlaif.io", "rlaif.stages", "rlaif.config", "pandas", "asyncio"),
    "records.py": ("rlaif.store", "rlaif.config", "rlaif.engines", "rlaif.stages"),
    "stages/": ("rlaif.pipeline", "rlaif.cli", "rlaif.rounds"),
    "rounds/": ("rlaif.pipeline", "rlaif.cli", "rlaif.engines", "rlaif.training", "rlaif.driver"),
    "recordings/": ("rlaif.driver", "rlaif.store", "rlaif.stages", "rlaif.pipeline", "rlaif.engines"),
    "engines/": ("rlaif.judges", "rlaif.stages", "rlaif.driver", "rlaif.pipeline"),
}


def imported(path: Path, *, top_level: bool = False) -> set[str]:
    """Dotted names a file imports; `top_level`: only what importing the file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _unguarded(tree) if top_level else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _unguarded(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if not isinstance(node, ast.If)]


def where(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=where)
def test_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    for name in imported(path):
        rooms = ONLY_IN.get(name.partition(".")[0])
        assert rooms is None or where(path).startswith(rooms), f"{where(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=where)
def test_rooms_do_not_reach_up(path: Path) -> None:
    names = imported(path)
    assert where(path) in ("cli.py", "__main__.py") or not {"rlaif.cli", "rlaif.cli_config"} & names
    for part, banned in FORBIDDEN.items():
        if where(path).startswith(part):
            reached = {name for name in names for bad in banned if name == bad or name.startswith(bad + ".")}
            assert not reached, f"{where(path)} imports {sorted(reached)}"


def test_only_lazy_code_imports_what_is_heavy() -> None:
    for path in MODULES:
        if not where(path).startswith(("training/", "world/")):
            heavy = {"torch", "transformers", "trl", "datasets", "pandas", "vllm", "pyarrow", "peft"}
            heavy |= {"scipy", "sklearn", "krippendorff"}
            found = {name for name in imported(path, top_level=True) if name.partition(".")[0] in heavy}
            assert not found, f"{where(path)} imports {sorted(found)} when it is imported"


def test_help_is_light() -> None:
    program = (
        "import sys; from rlaif.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'datasets', 'pydantic', 'numpy', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_no_function_is_over_80_lines() -> None:
    long = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and node.end_lineno - node.lineno + 1 > 80:
                long.append(f"{where(path)}:{node.name}")
    assert not long


PIPELINES = sorted(shipped("pipelines").glob("*.yaml"))


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_shipped_pipelines_pass_a_dry_run(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["run", str(path), "--dry-run", "--set", f"run={tmp_path / 'run'}"])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "requests to expect" in out
    assert not (tmp_path / "run").exists(), "a dry run writes nothing"


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_a_pipelines_first_line_is_the_command_that_runs_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert f"rlaif run pipelines/{path.name}" in first
