"""Sections about engines, candidates, exported datasets and budgets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaif.config.base import Section


class Price(Section):
    """Money per million tokens, in whatever currency the budget is in."""

    prompt: float = Field(default=0.0, ge=0)
    completion: float = Field(default=0.0, ge=0)


_OF_ITS_MODEL = ("revision", "adapter", "lora")  # keys that belong to one model's weights


class EngineSpec(BaseModel):
    """One entry of `engines:`. Every key that is not named here is handed to the engine as it is."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    engine: str
    price: Price = Price()

    def options(self) -> dict[str, Any]:
        """What `engines.base.load` takes."""
        return {"engine": self.engine, **(self.model_extra or {})}

    def serving(self, model: str) -> EngineSpec:
        """The same engine with another model: a folder that was trained from this one's."""
        options = {name: value for name, value in self.options().items() if name not in _OF_ITS_MODEL}
        return EngineSpec(**{**options, "model": model, "price": self.price})


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


KINDS = ("pair", "unpaired", "sft", "revised", "scores", "ranking")


def dataset_folder(kind: str) -> str:
    """Where a kind of export lies in the run folder."""
    return "dataset" if kind == "pair" else f"dataset-{kind}"


class ExportSection(Section):
    # What to write: pair into dataset/, each other kind into dataset-KIND/
    kinds: list[Literal["pair", "unpaired", "sft", "revised", "scores", "ranking"]] = Field(
        default=["pair"], min_length=1
    )
    formats: list[Literal["parquet", "jsonl"]] = Field(default=["parquet"], min_length=1)
    test_fraction: float = Field(default=0.1, ge=0, lt=1)  # of the prompts, never of the rows
    threshold: float | None = None  # unpaired: good from this mean pointwise score on, instead of by preferences
    trl_margin: bool = False  # pair: also write `margin`; TRL's reward trainer then subtracts it in its loss


class Budget(Section):
    max_requests: int | None = Field(default=None, ge=0)  # sent, not read from the journal
    max_requests_of: dict[str, Annotated[int, Field(ge=0)]] = {}  # a key of `engines:` → the same for it, in a stage
    max_cost: float | None = Field(default=None, ge=0)  # in the unit of the engines' prices
    concurrency: int | None = Field(default=None, ge=1)  # requests in flight; default: what the engine wants
    retries: int = Field(default=6, ge=0)  # tries again after a transient fault
