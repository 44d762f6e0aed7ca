"""Candidates: n samples per prompt from each sampler; duplicates are dropped and counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import fsum
from typing import Any, NamedTuple

from rlaif.config import Sampler
from rlaif.driver import Job
from rlaif.engines.base import IN_PROCESS
from rlaif.records import Dropped, Message, Prompt, Reply, Request, Response, make_id
from rlaif.stages.base import Context, count_reasons


class Candidates(NamedTuple):
    """What became of one prompt."""

    responses: list[Response]
    dropped: list[Dropped]


def run(context: Context) -> dict[str, Any]:
    section = context.config.generate
    assert section is not None
    prompts = list(context.folder.read("prompts", Prompt))
    dropped: list[Dropped] = []
    roles = sorted({sampler.engine for sampler in section.samplers})
    if len(roles) > 1:
        _one_model_at_a_time(context, prompts, section.samplers, roles)
    jobs = (candidates_job(prompt, section.samplers, context.config.seed) for prompt in prompts)

    def responses() -> Iterator[Response]:
        for candidates in context.drive("generate", roles, jobs, len(prompts)):
            dropped.extend(candidates.dropped)
            yield from candidates.responses

    n_responses = context.folder.write("responses", responses())
    context.folder.drop("generate", dropped)
    return {"prompts": len(prompts), "responses": n_responses, "dropped": count_reasons(dropped)}


def _one_model_at_a_time(context: Context, prompts: list[Prompt], samplers: list[Sampler], roles: list[str]) -> None:
    """Two models in this process may not fit together: each fills the journal alone, what follows is replay."""
    for role in roles:
        if context.engine_spec(role).engine in IN_PROCESS:
            mine = [sampler for sampler in samplers if sampler.engine == role]
            jobs = (candidates_job(prompt, mine, context.config.seed) for prompt in prompts)
            deque(context.drive(f"generate ({role})", [role], jobs, len(prompts)), maxlen=0)


def candidates_job(
    prompt: Prompt, samplers: list[Sampler], seed: int = 0, stage: str = "generate"
) -> Job[Candidates]:
    """All samplers' responses to one prompt. A repeated, empty or failed one is dropped with its reason."""
    requests, origins = [], []
    for sampler in samplers:
        for sample in range(sampler.n):
            requests.append(sampling_request(prompt, sampler, sample, seed))
            origins.append((sampler.name or sampler.engine, sample))
    replies = yield requests
    found = Candidates([], [])
    seen: set[str] = set()
    for (source, sample), reply in zip(origins, replies, strict=True):
        response_id = make_id(prompt.id, source, sample, reply.text)
        fault = _fault(reply, seen)
        if fault:
            found.dropped.append(Dropped(stage=stage, reason=fault[0], id=response_id, detail=fault[1]))
            continue
        seen.add(reply.text.strip())
        found.responses.append(response_of(response_id, prompt, source, sample, reply))
    return found


def sampling_request(prompt: Prompt, sampler: Sampler, sample: int, seed: int) -> Request:
    """`seed`: the run's. A greedy request draws nothing, so its key does not change with it."""
    messages: list[Message] = [{"role": "system", "content": sampler.system}] if sampler.system else []
    return Request(
        role=sampler.engine,
        messages=[*messages, *prompt.messages],
        max_tokens=sampler.max_tokens,
        temperature=sampler.temperature,
        top_p=sampler.top_p,
        stop=sampler.stop,
        top_logprobs=int(sampler.logprobs),
        sample=sample,
        seed=seed if sampler.temperature > 0 else 0,
        extra=sampler.extra,
    )


def _fault(reply: Reply, seen: set[str]) -> tuple[str, str] | None:
    if reply.error is not None:
        kind, _, detail = reply.error.partition(": ")
        return kind, detail
    if reply.finish_reason == "refusal":
        return "refused", "the engine reports a refusal"
    text = reply.text.strip()
    if not text:
        return "empty_response", f"finish reason {reply.finish_reason}"
    return ("duplicate_response", text[:80]) if text in seen else None


def response_of(response_id: str, prompt: Prompt, source: str, sample: int, reply: Reply) -> Response:
    """A reply as the response of `source` to the prompt."""
    return Response(
        id=response_id,
        prompt_id=prompt.id,
        text=reply.text,
        source=source,
        sample=sample,
        finish_reason=reply.finish_reason,
        thinking=reply.thinking,
        reply_key=reply.key,
        meta={} if reply.logprobs is None else {"logprob": fsum(token.logprob for token in reply.logprobs)},
    )
