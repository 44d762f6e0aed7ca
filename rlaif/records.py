"""The records that everything passes round, their ids, and their symmetries.

    Prompt → Response (→ Revision) → Judgment → Preference   what the stages read and write, one JSON object a row
    Request → Reply                                  what passes between judges (or generation) and engines

A record is immutable. Tables hold these records and nothing else; text is joined only at export.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 1

Message = dict[str, Any]  # {"role": "system" | "user" | "assistant", "content": str}
Status = Literal["ok", "unparsed", "refused", "truncated", "error"]
STATUSES: tuple[Status, ...] = ("ok", "unparsed", "refused", "truncated", "error")
FIRST, SECOND, TIE = "first", "second", "tie"  # pairwise verdicts, in the order shown
_MIRROR = {FIRST: SECOND, SECOND: FIRST}


def make_id(*parts: object) -> str:
    """16 hex digits that depend on every part and on their order."""
    data = [str(part).encode("utf-8", "surrogatepass") for part in parts]
    framed = b"".join(len(item).to_bytes(8, "little") + item for item in data)
    return hashlib.blake2b(framed, digest_size=8).hexdigest()


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


class Prompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a policy is asked: a conversation that ends with a user turn.

    `meta` holds every other column of the input and travels to the export.
    """

    id: str
    messages: list[Message]
    reference: str | None = None
    domain: str | None = None
    meta: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The conversation as one string, the way judges see it."""
        if len(self.messages) == 1:
            return str(self.messages[0]["content"])
        return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in self.messages)


class Response(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One candidate for one prompt. `source` names who wrote it (a model entry of the config, or a column)."""

    id: str
    prompt_id: str
    text: str
    source: str = ""
    sample: int = 0
    finish_reason: str | None = None
    thinking: str | None = None
    reply_key: str | None = None
    meta: dict[str, Any] = {}


class Judgment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One judgment of one or more responses, in the order shown.

    Anything but status "ok" has no verdict, no probabilities, no scores and no ranking.
    pairwise: `verdict` in first | second | tie, `probabilities` over these (they sum to 1).
    pointwise: `scores` per criterion (null = not judged), in its own unit; `distributions`: criterion → step →
    probability (from log-probs, or shares of draws), where the score is the mean of one.
    listwise: `ranking` of response ids, best first.
    """

    id: str
    prompt_id: str
    response_ids: list[str]
    kind: Literal["pairwise", "pointwise", "listwise"] = "pairwise"
    judge: str = "judge"  # the role, a key of `engines:` in the config
    member: str | None = None  # which judge of a panel or a cascade
    superseded: bool = False  # a later judge was asked instead: this one counts for nothing, and is kept
    model: str = ""
    rubric: str = ""  # "id@version"
    principle: str | None = None
    template_sha256: str = ""
    reply_keys: list[str] = []
    status: Status = "ok"
    verdict: str | None = None
    probabilities: dict[str, float] | None = None
    label_mass: float | None = None
    scores: dict[str, float | None] | None = None
    distributions: dict[str, dict[str, float]] | None = None
    ranking: list[str] | None = None
    rationale: str | None = None
    reason: str | None = None  # why the status is not ok
    usage: Usage = Usage()
    meta: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.status != "ok" and any(
            x is not None for x in (self.verdict, self.probabilities, self.scores, self.distributions, self.ranking)
        ):
            raise ValueError(f"judgment {self.id}: status {self.status!r} cannot carry a verdict")

    def swap(self) -> Judgment:
        """The same judgment with the two responses shown the other way round."""
        if self.kind != "pairwise":
            raise ValueError(f"only a pairwise judgment can be swapped, this is {self.kind}")
        mirrored = None
        if self.probabilities is not None:
            mirrored = {_MIRROR.get(k, k): v for k, v in self.probabilities.items()}
        return msgspec.structs.replace(
            self,
            response_ids=self.response_ids[::-1],
            verdict=_MIRROR.get(self.verdict, self.verdict) if self.verdict else None,
            probabilities=mirrored,
        )


class Lineup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Two responses that were chosen to be judged. `by`: the rule that chose; `batch`: in which run, from 0."""

    prompt_id: str
    response_ids: list[str]
    by: str
    batch: int = 0


class Revision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One round of critique and revision of a response.

    `source_id`: what was revised: the response itself, or the revision of the round before. Anything but status "ok"
    has no `text`. `changed`: whether the text differs from what was revised, by more than white space around it.
    """

    id: str
    prompt_id: str
    response_id: str  # the original
    source_id: str
    round: int  # from 1
    role: str = ""  # a key of `engines:` in the config
    model: str = ""
    standard: str = ""  # "id@version" of the rubric or constitution
    principle: str | None = None
    critique: str | None = None
    text: str | None = None
    changed: bool | None = None
    reply_keys: list[str] = []
    status: Status = "ok"
    reason: str | None = None
    usage: Usage = Usage()

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.text is not None):
            raise ValueError(f"revision {self.id}: a text belongs to status 'ok' and to no other")


class Preference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """chosen is better than rejected with `probability`; `judge_margin` is in the judge's own unit.

    For pairwise judges the margin is 2·probability − 1, in (0, 1]; for pointwise judges the score difference.
    `consistent`: whether every order, taken alone, named the same winner (null when one order was asked, or neither
    named one).
    """

    id: str
    prompt_id: str
    chosen_id: str
    rejected_id: str
    probability: float
    judge_margin: float
    judgment_ids: list[str]
    by_principle: dict[str, float] = {}
    consistent: bool | None = None

    def __post_init__(self) -> None:
        if self.chosen_id == self.rejected_id:
            raise ValueError(f"preference {self.id}: chosen and rejected are both {self.chosen_id}")

    def swap(self) -> Preference:
        """The same preference told from the other response's side."""
        return msgspec.structs.replace(
            self,
            chosen_id=self.rejected_id,
            rejected_id=self.chosen_id,
            probability=1 - self.probability,
            judge_margin=-self.judge_margin,
            by_principle={k: 1 - v for k, v in self.by_principle.items()},
        )


class Gold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people (or a known truth) say of one pair or of one response.

    `response_ids`: two for a pair, one for a score. `labels`: one per rater, null where a rater gave none; for pairs
    first | second | tie in the order of `response_ids`, for scores numbers. `raters`: their names, in that order;
    empty where they have none. `slices`: column → value, to report by.
    """

    prompt_id: str
    response_ids: list[str]
    labels: list[str | float | None]
    raters: list[str] = []
    slices: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.raters and len(self.raters) != len(self.labels):
            raise ValueError(f"gold for {self.prompt_id}: {len(self.labels)} labels of {len(self.raters)} raters")

    def swap(self) -> Gold:
        """The same labels told with the two responses the other way round."""
        if len(self.response_ids) != 2:
            raise ValueError("only gold for a pair can be swapped")
        mirrored = [_MIRROR.get(label, label) if isinstance(label, str) else label for label in self.labels]
        return msgspec.structs.replace(self, response_ids=self.response_ids[::-1], labels=mirrored)


class Dropped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that left the pipeline: where, and why."""

    stage: str
    reason: str  # a short word for counting
    id: str
    detail: str = ""


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call for one reply. Everything here can change the reply, so everything here is in its key,
    except `role` and `subject`. `role` says which engine serves it (the engine's identity is in the key instead).
    `subject` says what is judged: the prompt's id, then the responses' ids in the order shown; replies that others
    recorded under other words are found by it (where an engine answers by it, its part of the key holds it).

    `labels`: the verdict labels whose log-probabilities are wanted at every position of the reply. An engine that
    can read them exactly adds them to `TokenLogprob.top`; the others give their `top_logprobs` best.
    `seed`: the run's, for requests that draw: another seed is another draw. `sample` and `attempt` number draws.
    `json_schema`: structured output, through the engine's own means. `extra`: passed to the engine as it is.
    """

    role: str
    messages: list[Message]
    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    stop: list[str] = []
    labels: list[str] = []
    top_logprobs: int = 0
    json_schema: dict[str, Any] | None = None
    sample: int = 0
    seed: int = 0
    attempt: int = 0
    extra: dict[str, Any] = {}
    subject: tuple[str, ...] = ()


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """One token of a reply: itself, its log-probability (natural log), and its alternatives at that position."""

    token: str
    logprob: float
    top: list[tuple[str, float]] = []


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an engine answered. `text` never holds the thinking.

    `finish_reason`: stop | length | refusal (also content filters) | whatever else the engine said.
    `error`: set when there is no answer ("kind: message"); such a reply is never cached.
    `key`: set by the driver.
    """

    text: str = ""
    thinking: str | None = None
    finish_reason: str = "stop"
    logprobs: list[TokenLogprob] | None = None
    usage: Usage = Usage()
    model: str = ""
    error: str | None = None
    key: str = ""
