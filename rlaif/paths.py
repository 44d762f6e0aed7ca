"""Where files lie: those that ship with rlaif, in the checkout or inside the installed wheel, and a run's models."""

from __future__ import annotations

from pathlib import Path

RUN = "run:"  # `model: run:sft` is what this run trained as sft
_PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """The shipped folder `name`: one of prompts, pipelines, data."""
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def shipped_pipeline(name: str) -> Path | None:
    """The pipeline that ships under this name, if any: `quickstart`, or the same with `pipelines/` or `.yaml`."""
    stem = name.removeprefix("shipped:").removeprefix("pipelines/").removesuffix(".yaml")
    path = shipped("pipelines") / f"{stem}.yaml"
    return path if "/" not in stem and path.is_file() else None


def resolve(value: str, base: Path) -> Path:
    """A path from a config: `shipped:NAME/…` is a shipped file, else relative to `base` (the config's folder).

    A shipped config may live in site-packages, so what users name on the command line is resolved
    against the working folder by the caller passing that as `base`.
    """
    if value.startswith("shipped:"):
        name, _, rest = value.removeprefix("shipped:").partition("/")
        return shipped(name) / rest
    path = Path(value).expanduser()
    return path if path.is_absolute() else base / path


def located(value: str, folder: Path) -> Path:
    """A `model:` or `dataset:` of a config as a path: `run:NAME` is what the run in `folder` trained as NAME."""
    return folder / "models" / value.removeprefix(RUN) if value.startswith(RUN) else resolve(value, Path())
