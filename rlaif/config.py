"""The shape of pipelines/*.yaml. An unknown key is an error; every key has a comment with its unit.

Paths in a config are relative to the working folder; `shipped:NAME/…` is a file that ships with rlaif.
A stage runs when its section is there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlaif.errors import ConfigError

_Model = TypeVar("_Model", bound=BaseModel)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Source(Section):
    """Where rows come from: JSONL, Parquet, CSV, or a Hugging Face dataset (a folder or a hub id)."""

    path: str
    split: str = "train"  # only for Hugging Face datasets
    config_name: str | None = None  # likewise
    columns: dict[str, str] = {}  # our name → the column's name: prompt, id, reference, domain, responses, …
    limit: int | None = Field(default=None, ge=1)  # rows, from the top


class Price(Section):
    """Money per million tokens, in whatever currency the budget is in."""

    prompt: float = Field(default=0.0, ge=0)
    completion: float = Field(default=0.0, ge=0)


class EngineSpec(BaseModel):
    """One entry of `engines:`. Every key that is not named here is handed to the engine as it is."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    engine: str
    price: Price = Price()

    def options(self) -> dict[str, Any]:
        """What `engines.base.load` takes."""
        return {"engine": self.engine, **(self.model_extra or {})}


class Sampler(Section):
    """One model that writes candidates."""

    engine: str  # a key of `engines:`
    n: int = Field(default=4, ge=1)  # samples per prompt
    name: str | None = None  # what responses call their source; default: the engine's key
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    stop: list[str] = []
    system: str | None = None  # system prompt put before the conversation
    extra: dict[str, Any] = {}  # passed to the engine with every request

    @model_validator(mode="after")
    def _samples_differ(self) -> Sampler:
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"n: {self.n} at temperature 0 asks for one reply {self.n} times; set n: 1")
        return self


class GenerateSection(Section):
    samplers: list[Sampler] = Field(min_length=1)


class JudgeSection(Section):
    engine: str = "judge"  # a key of `engines:`
    judge: str = "pairwise"  # a built-in name or an import path "package.module:Class"
    rubric: str | None = None  # a rubric: shipped name or file
    constitution: str | None = None  # or a constitution: shipped name or file
    principles: Literal["one", "all"] = "one"  # of a constitution: one sampled per comparison, or every one
    orders: Literal["both", "random"] = "both"  # both shown orders, or one picked at random per comparison
    pairs: Literal["all", "adjacent"] = "all"  # which of a prompt's responses meet: all, or i with i+1 around a ring
    read: Literal["auto", "logprobs", "text"] = "auto"  # where the verdict comes from
    ties: bool = False  # whether the judge may answer with a tie (text verdicts)
    frame: str | None = None  # a .jinja file; default: the one that the rubric or constitution names
    max_tokens: int | None = Field(default=None, ge=1)  # default: 512 for text verdicts, 1 for log-prob ones;
    # a judge that thinks first needs room for it in both; 2 catches one that begins a sentence with the article "A"
    temperature: float = Field(default=0.0, ge=0)
    min_label_mass: float = Field(default=0.5, ge=0, le=1)  # below it a log-prob verdict is unparsed
    extra: dict[str, Any] = {}  # passed to the engine with every request
    options: dict[str, Any] = {}  # passed to a custom judge's constructor

    @model_validator(mode="after")
    def _one_standard(self) -> JudgeSection:
        if self.rubric and self.constitution:
            raise ValueError("name a rubric or a constitution, not both")
        return self


class PairSection(Section):
    select: str = "best_vs_worst"  # or all_pairs, or an import path
    min_margin: float = Field(default=0.0, ge=0, le=0.5)  # |p − ½| below this is dropped
    principle_weights: dict[str, float] = {}  # override the constitution's weights


class ExportSection(Section):
    formats: list[Literal["parquet", "jsonl"]] = Field(default=["parquet"], min_length=1)
    test_fraction: float = Field(default=0.1, ge=0, lt=1)  # of the prompts, never of the rows
    trl_margin: bool = False  # also write `margin`; TRL's reward trainer then subtracts it in its loss


class DPOSection(Section):
    """Arguments of `trl.DPOConfig` go under `args` by their own names; unknown ones are errors."""

    model: str  # starting policy: a folder or a hub id
    dataset: str | None = None  # default: what this run exported
    args: dict[str, Any] = {}
    lora: dict[str, Any] | None = None  # arguments of `peft.LoraConfig`
    soft_labels: bool = False  # weigh each pair by `probability` (expected loss) instead of treating it as certain


class TrainSection(Section):
    dpo: DPOSection | None = None


class EvaluateSection(Section):
    """The trained policy against the starting policy on held-out prompts."""

    prompts: Source
    before: str | None = None  # engine key of the starting policy; default: the first sampler's
    after: str = "trained"  # engine key; "trained" is the policy this run trained
    judges: list[str] = []  # engine keys; default: the labelling judge
    n: int = Field(default=1, ge=1)  # responses per prompt and policy that are judged against each other
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    metrics: list[str] = []  # import paths of fn(prompt, response) -> {name: number or None}: measure, never label


class ReportSection(Section):
    title: str | None = None
    examples: int = Field(default=12, ge=0)  # pairs shown in full


class Budget(Section):
    max_requests: int | None = Field(default=None, ge=0)  # sent, not read from the journal
    max_cost: float | None = Field(default=None, ge=0)  # in the unit of the engines' prices
    concurrency: int | None = Field(default=None, ge=1)  # requests in flight; default: what the engine wants
    retries: int = Field(default=6, ge=0)  # tries again after a transient fault


class Pipeline(Section):
    run: str = Field(min_length=1)  # the run folder
    seed: int = 0
    engines: dict[str, EngineSpec] = {}
    prompts: Source | None = None
    generate: GenerateSection | None = None
    judge: JudgeSection | None = None
    pair: PairSection | None = None
    export: ExportSection | None = None
    train: TrainSection | None = None
    evaluate: EvaluateSection | None = None
    report: ReportSection | None = None
    budget: Budget = Budget()

    @property
    def starting_policy(self) -> str | None:
        """The engine key of the policy before training."""
        if self.evaluate and self.evaluate.before:
            return self.evaluate.before
        return self.generate.samplers[0].engine if self.generate else None

    @model_validator(mode="after")
    def _engines_exist(self) -> Pipeline:
        used: list[tuple[str, str]] = []
        if self.generate:
            used += [(f"generate.samplers[{i}].engine", s.engine) for i, s in enumerate(self.generate.samplers)]
        if self.judge:
            used.append(("judge.engine", self.judge.engine))
        if self.evaluate:
            used += [("evaluate.judges", name) for name in self.evaluate.judges]
            used += [("evaluate.before", self.evaluate.before)] if self.evaluate.before else []
            used += [("evaluate.after", self.evaluate.after)] if self.evaluate.after != "trained" else []
        for key, name in used:
            if name not in self.engines:
                known = ", ".join(sorted(self.engines)) or "none"
                raise ValueError(f"{key}: no engine {name!r} under engines: (there: {known})")
        return self


def load(path: str | Path, overrides: list[str] | None = None) -> Pipeline:
    """Read a pipeline file and apply `--set a.b=value` overrides (values are YAML).

    Errors: ConfigError with the file, the key, what came and what was allowed.
    """
    path = Path(path)
    raw = read_yaml(path)
    for override in overrides or []:
        apply_override(raw, override)
    return validate(Pipeline, raw, str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, safe-loaded. Errors: ConfigError with the line."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, got {type(raw).__name__}")
    return raw


def validate(model: type[_Model], raw: dict[str, Any], where: str) -> _Model:
    """`raw` as `model`. Errors: ConfigError, one line for the first fault, naming `where` and the key."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_fault(error, model)}") from None


def telling_fault(error: ValidationError) -> Any:
    """The fault to name: a misspelled key rather than the missing one that it causes."""
    faults = error.errors()
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])


def _first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    fault = telling_fault(error)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    key = ".".join(str(part) for part in fault["loc"]) or "top level"
    if fault["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(model, fault["loc"][:-1]))
        return f"{key}: unknown key; allowed here: {allowed}{more}"
    message = fault["msg"].removeprefix("Value error, ")
    came = fault.get("input")
    shown = "" if fault["type"] in ("missing", "value_error") else f", got {str(came)[:80]!r}"
    return f"{key}: {message}{shown}{more}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the model nested at `location`."""
    current: Any = model
    for part in location:
        if isinstance(part, str) and hasattr(current, "model_fields") and part in current.model_fields:
            current = _inner_model(current.model_fields[part].annotation) or current
    return list(current.model_fields)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one dotted key, in place. Errors: ConfigError."""
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(
            f"--set {override!r}: expected key=value with a dotted key, for example judge.orders=random"
        )
    node: Any = raw
    *parents, last = key.split(".")
    for part in parents:
        node = _descend(node, part, override)
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: the value is not YAML") from None
    if isinstance(node, list):
        _descend(node, last, override)
        node[int(last)] = parsed
    else:
        node[last] = parsed


def _descend(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        if not part.isdigit() or int(part) >= len(node):
            raise ConfigError(f"--set {override!r}: {part!r} is not an index into a list of {len(node)}")
        return node[int(part)]
    if node.get(part) is None:
        node[part] = {}
    if not isinstance(node[part], dict | list):
        raise ConfigError(f"--set {override!r}: {part!r} holds {node[part]!r}, not a mapping")
    return node[part]
