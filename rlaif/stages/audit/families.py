"""Which family a model belongs to, by its name. A rule of thumb: `audit.families` of the config goes before it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rlaif.config import Pipeline

# The first pattern found anywhere in the lower-cased name decides. A fine-tune belongs to the model it started from.
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("deepseek", r"deepseek"),
    ("gpt", r"(?:chat)?gpt|davinci|(?<![a-z0-9])o[1345](?![a-z0-9])"),
    ("claude", r"claude"),
    ("gemini", r"gemini|gemma|palm-?2|(?<![a-z])bard(?![a-z])"),
    ("llama", r"llama|vicuna|alpaca|guanaco"),
    ("mistral", r"mistral|mixtral|ministral|zephyr"),
    ("qwen", r"qwen|(?<![a-z])qwq"),
    ("phi", r"(?<![a-z])phi-?[0-9]"),
    ("command", r"command-?[ra]|(?<![a-z])aya(?![a-z])"),
    ("grok", r"grok"),
    ("olmo", r"olmo|tulu"),
)
_COMPILED = tuple((family, re.compile(pattern)) for family, pattern in _PATTERNS)


class Families:
    """`given`: name → family, before the rule. `models`: source of responses → the name of the model behind it."""

    def __init__(self, given: Mapping[str, str] | None = None, models: Mapping[str, str] | None = None) -> None:
        self._given = dict(given or {})
        self._models = dict(models or {})

    def of_model(self, name: str) -> str:
        """The family of a model's name; "" for no name. An unknown name's family is how its last part begins."""
        if name in self._given:
            return self._given[name]
        lowered = name.lower()
        for family, pattern in _COMPILED:
            if pattern.search(lowered):
                return family
        last = lowered.rstrip("/").rpartition("/")[2]
        found = re.match(r"[^\W\d_]+", last)
        return found.group() if found else last

    def of_source(self, source: str) -> str:
        """The family of who wrote a response: of the model behind a sampler, else of the source's own name."""
        if source in self._given:
            return self._given[source]
        return self.of_model(self._models.get(source, source))


def families_of(config: Pipeline) -> Families:
    """The rule, the config's exceptions, and the models behind its samplers."""
    models: dict[str, str] = {}
    for sampler in config.generate.samplers if config.generate else []:
        entry = config.engines.get(sampler.engine)
        model = entry.options().get("model") if entry else None
        if model:
            models[sampler.name or sampler.engine] = str(model)
    return Families(config.audit.families if config.audit else None, models)
