"""Reads the user's file into prompts.jsonl and, when it already holds candidates, responses.jsonl."""

from __future__ import annotations

from itertools import islice
from typing import Any

from rlaif import io
from rlaif.config import Source
from rlaif.errors import ConfigError, DataError
from rlaif.records import Dropped, Prompt, Response
from rlaif.stages.base import Context, count_reasons


def run(context: Context) -> dict[str, Any]:
    config = context.config
    if config.prompts is None:
        raise ConfigError("prompts: this config names no prompts to read")
    dropped: list[Dropped] = []
    with_responses = config.generate is None and config.labels
    if not with_responses:
        prompts = load_prompts(config.prompts, dropped)
        responses: list[Response] = []
    else:
        pairs = list(islice(io.read_responses(config.prompts, dropped.append), config.prompts.limit))
        prompts = [prompt for prompt, _ in pairs]
        responses = [response for _, answers in pairs for response in answers]
    if not prompts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in count_reasons(dropped).items()) or "it is empty"
        raise DataError(f"{config.prompts.path}: no usable prompt ({reasons})")
    context.folder.write("prompts", prompts)
    if with_responses:
        context.folder.write("responses", responses)
    context.folder.drop("prompts", dropped)
    return {"prompts": len(prompts), "responses": len(responses), "dropped": count_reasons(dropped)}


def load_prompts(source: Source, dropped: list[Dropped]) -> list[Prompt]:
    """At most `source.limit` usable prompts."""
    return list(islice(io.read_prompts(source, dropped.append), source.limit))
