"""`--dry-run`: everything is checked, one prompt is shown as the judge would see it, nothing is sent."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rlaif.checks import check
from rlaif.config import Pipeline, Price
from rlaif.config.training import TRAINERS, OnlineSection, TrainerSection
from rlaif.engines.base import IN_PROCESS
from rlaif.judges import build
from rlaif.judges.base import Judge, planned
from rlaif.judges.revision import RevisionChain
from rlaif.records import Dropped, Message, Prompt, Request, Response
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.contest import contestants_of, matches_of
from rlaif.stages.generate import sampling_request
from rlaif.stages.judge import Pairs, count_lineups, tasks
from rlaif.stages.live import checks as live
from rlaif.stages.prompts import load_prompts
from rlaif.stages.table import RUN, stages_of
from rlaif.store import RunFolder, content_key

_CHARS_PER_TOKEN = 4  # where no tokenizer is at hand
_PLACEHOLDER = "(a response that is not written yet)"
_SAMPLED = 50  # prompts whose tokens are counted, for the mean


class _Load(NamedTuple):
    """What a stage will ask for. `cost`: at most, in the unit of the engines' prices."""

    requests: int
    tokens_in: int
    tokens_out: int
    cost: float = 0.0

    def plus(self, other: _Load) -> _Load:
        return _Load(
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.cost + other.cost,
        )

    def times(self, n: int) -> _Load:
        return _Load(self.requests * n, self.tokens_in * n, self.tokens_out * n, self.cost * n)

    def priced(self, price: Price) -> _Load:
        return self._replace(cost=(self.tokens_in * price.prompt + self.tokens_out * price.completion) / 1e6)


def dry_run(config: Pipeline, stages: list[str] | None = None) -> str:
    """The plan as text. Errors: whatever the real run would refuse before its first request."""
    wanted = stages if stages is not None else stages_of(config)
    context = Context(config, RunFolder(config.run))
    check(config, context.folder, wanted)
    groups, lines = _candidates(context)
    lines = [f"run folder: {config.run}", f"stages: {' → '.join(wanted)}", *lines]
    loads: dict[str, _Load] = {}
    if config.generate and "generate" in wanted:
        loads["generate"] = _generate_load(context, [prompt for prompt, _ in groups])
    if config.revise and "revise" in wanted:
        chain = RevisionChain.from_section(config.revise, context.engine)
        by_role, messages = _judge_loads(context, chain, groups)
        loads["revise"] = by_role.get(config.revise.engine, _Load(0, 0, 0))
        lines += ["", "one request to the reviser:", *_shown(messages)]
    if config.judge and "judge" in wanted:
        judge = build(config.judge, context.engine)
        by_role, messages = _judge_loads(context, judge, groups, config.judge.pairs)
        several = len(by_role) > 1
        loads |= {f"judge: {role}" if several else "judge": load for role, load in by_role.items()}
        outlook: list[str] = getattr(judge, "outlook", list)()
        lines += ["", "one request to the judge:", *_shown(messages), *(f"judge: {line}" for line in outlook)]
    if config.calibrate and "calibrate" in wanted:
        loads |= _calibrate_loads(context)
    if config.audit and config.audit.injection and "audit" in wanted:
        loads |= _injection_loads(context, groups)
    for name in wanted:
        loads |= _guard_loads(context, name) if name in TRAINERS else {}
    if config.evaluate and "evaluate" in wanted:
        loads |= _evaluate_loads(context)
    for name in wanted:
        live, told = _live_loads(context, name, [prompt for prompt, _ in groups])
        loads |= live
        lines += told
    if any(name in TRAINERS for name in wanted):
        lines += _training(config, [name for name in wanted if name in TRAINERS])
    lines += ["", *_table(loads), *_missing_keys(config)]
    return "\n".join(lines)


def _missing_keys(config: Pipeline) -> list[str]:
    """Environment variables that the run will want. A plan may be made where the keys are not."""
    wanted = {str(spec.options().get("api_key_env") or "") for spec in config.engines.values()} - {""}
    missing = sorted(name for name in wanted if name not in os.environ)
    return [f"not set here, and needed for the run: the environment variable {name}" for name in missing]


def _candidates(context: Context) -> tuple[list[tuple[Prompt, list[Response]]], list[str]]:
    """Prompts with the responses they have or will have, and what was dropped while reading."""
    from rlaif import io

    config = context.config
    dropped: list[Dropped] = []
    groups: list[tuple[Prompt, list[Response]]] = []
    if config.prompts is not None and config.generate is not None:
        n = sum(sampler.n for sampler in config.generate.samplers)
        for prompt in load_prompts(config.prompts, dropped):
            groups.append((prompt, [_stand_in(prompt, index) for index in range(n)]))
    elif config.prompts is not None:
        groups = list(io.read_responses(config.prompts, dropped.append))[: config.prompts.limit]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in count_reasons(dropped).items())
    n_responses = sum(len(responses) for _, responses in groups)
    lines = [f"prompts: {len(groups):,} · responses: {n_responses:,}"]
    return groups, lines + ([f"dropped while reading: {reasons}"] if reasons else [])


def _stand_in(prompt: Prompt, index: int) -> Response:
    return Response(id=f"{prompt.id}-{index}", prompt_id=prompt.id, text=f"{_PLACEHOLDER[:-1]}, {index + 1})")


def _generate_load(context: Context, prompts: list[Prompt]) -> _Load:
    section = context.config.generate
    assert section is not None
    total = _Load(0, 0, 0)
    for sampler in section.samplers:
        count = _counter(context, sampler.engine)
        some = prompts[:_SAMPLED]
        mean = sum(
            count(sampling_request(prompt, sampler, 0, context.config.seed).messages) for prompt in some
        ) / max(1, len(some))
        n = len(prompts) * sampler.n
        load = _Load(n, round(mean * n), sampler.max_tokens * n).priced(context.engine_spec(sampler.engine).price)
        total = total.plus(load)
    return total


def _judge_loads(
    context: Context,
    judge: Judge | RevisionChain,  # its arity is 1
    groups: list[tuple[Prompt, list[Response]]],
    pairs: Pairs = "all",
) -> tuple[dict[str, _Load], list[Message]]:
    """The load of judging by role, at most, from what the first prompts may ask, and the first request's messages.

    What several tasks of a prompt ask in common is asked once.
    """
    some: list[tuple[Prompt, list[Response]]] = []
    n_sampled = 0
    for group in groups:  # whole prompts, since their tasks may share requests
        n_lineups = count_lineups(group[0], len(group[1]), judge.arity, pairs)
        if some and n_sampled + n_lineups > _SAMPLED:
            break
        some.append(group)
        n_sampled += n_lineups
    n_tasks = sum(count_lineups(prompt, len(responses), judge.arity, pairs) for prompt, responses in groups)
    scale = n_tasks / n_sampled if n_sampled else 0
    found: dict[str, dict[str, Request]] = {}
    for task in tasks(some, judge.arity, pairs, context.config.seed, []):
        for request in judge.plan(task) if isinstance(judge, RevisionChain) else planned(judge, task):
            found.setdefault(request.role, {})[content_key(request)] = request
    loads = {role: _load_of(context, role, list(requests.values()), scale) for role, requests in found.items()}
    first = next((request.messages for requests in found.values() for request in requests.values()), [])
    return loads, first


def _load_of(context: Context, role: str, requests: Sequence[Request], scale: float) -> _Load:
    """`requests`, of which there are `scale` times as many in all. Tokens are counted of the first few."""
    count = _counter(context, role)
    counted = [count(request.messages) for request in requests[: 2 * _SAMPLED]]
    tokens = sum(counted) / max(1, len(counted)) * len(requests)
    most_out = sum(request.max_tokens for request in requests)
    load = _Load(round(len(requests) * scale), round(tokens * scale), round(most_out * scale))
    return load.priced(context.engine_spec(role).price)


def _calibrate_loads(context: Context) -> dict[str, _Load]:
    """Each judge looks at all of gold."""
    from rlaif.stages import calibrate

    people = calibrate.read(context.config, [])
    loads = {}
    for name, section in calibrate.sections_of(context.config).items():
        judge = calibrate.judge_of(context, name, section)
        todo = calibrate.tasks_of(judge, people, context.config.seed)
        asked: dict[str, dict[str, Request]] = {}
        for task in todo[:_SAMPLED]:
            for request in planned(judge, task):
                asked.setdefault(request.role, {})[content_key(request)] = request
        scale = len(todo) / max(1, min(len(todo), _SAMPLED))
        for role, requests in asked.items():
            named = f"calibrate: {name}" if len(asked) == 1 else f"calibrate: {name}: {role}"
            loads[named] = _load_of(context, role, list(requests.values()), scale)
    return loads


def _live_loads(context: Context, name: str, prompts: list[Prompt]) -> tuple[dict[str, _Load], list[str]]:
    """What the judges among a trainer's rewards will be asked at most, and what a plan should say of them."""
    config = context.config
    section = config.train.section(name) if config.train else None
    judges = section.judges(config.judge) if isinstance(section, OnlineSection) else {}
    if not isinstance(section, OnlineSection) or not judges:
        return {}, []
    if importlib.util.find_spec("trl") is None:
        return {}, ["", f"train.{name}: TRL is not installed here: the requests of its judge were not counted"]
    from rlaif.training.on_policy import n_written

    if section.dataset is not None:
        prompts = live.prompts_of(section.dataset)
    if not prompts:
        return {}, ["", f"train.{name}: its prompts are not here yet: the requests of its judge were not counted"]
    n_groups, n_each = n_written(name, section, len(prompts))
    loads: dict[str, _Load] = {}
    for at, judged_by in judges.items():
        judge, source = build(judged_by, context.engine), section.rewards[at]
        lone = judge.arity == 1 or source.against == "group"
        n_met = n_each if lone else 1 + (source.n_against if source.against == "responses" else 1)
        repeated = itertools.islice(itertools.cycle(prompts), n_groups if lone else n_groups * n_each)
        asked = [(prompt, [_stand_in(prompt, index) for index in range(n_met)]) for prompt in repeated]
        pairs = judged_by.pairs if lone else "adjacent"
        for role, load in _judge_loads(context, judge, asked, pairs)[0].items():
            named = f"{name}: judge {role}"
            loads[named] = loads.get(named, _Load(0, 0, 0)).plus(load)
    in_process = {role for judge in judges.values() for role in judge.roles} & {
        role for role, spec in config.engines.items() if spec.engine in IN_PROCESS
    }
    beside = [f"train.{name}: loads {role} beside the policy: not in the memory below" for role in sorted(in_process)]
    return loads, ["", f"train.{name}: {n_groups * n_each:,} completions to judge, at most", *beside]


def _injection_loads(context: Context, groups: list[tuple[Prompt, list[Response]]]) -> dict[str, _Load]:
    """Every attack on every pair. The run's own pairs as they are have been judged already; a file's have not."""
    from rlaif.stages.audit import injection

    section, judging = context.config.audit, context.config.judge
    assert section is not None and section.injection is not None and judging is not None
    _, judge, attacks = injection.prepared(context)
    if section.injection.pairs is not None or context.folder.table("preferences").exists():
        pairs = [(task.prompt, list(task.responses)) for task in injection.tasks(context, section.injection)]
    else:
        pairs = [(prompt, responses[:2]) for prompt, responses in groups if len(responses) > 1]
        pairs = pairs[: section.injection.n]
    asked = [(prompt, injection.stand_ins(responses, attack)) for prompt, responses in pairs for attack in attacks]
    if section.injection.pairs is not None or judging.orders != "both":
        asked = [*pairs, *asked]
    by_role, _ = _judge_loads(context, judge, asked)
    return {f"audit: injection: {role}" if len(by_role) > 1 else "audit: injection": x for role, x in by_role.items()}


def _guard_loads(context: Context, name: str) -> dict[str, _Load]:
    """What the judge of a trainer's guard is asked over all probes but the first, which asks nothing."""
    from rlaif.config.guarding import PROBES
    from rlaif.stages.probing import seat_of

    section = context.config.train.section(name) if context.config.train else None
    guard = section.guard if section is not None else None
    if section is None or guard is None or guard.judge is None:
        return {}
    steps = section.args.get("max_steps")
    n_probes = -(-int(steps) // guard.every) if guard.every and isinstance(steps, int) and steps > 0 else PROBES
    prompt = Prompt(id="probe", messages=[{"role": "user", "content": _PLACEHOLDER}])
    judge = seat_of(context, name, guard.judge).build(context.engine)
    by_role, _ = _judge_loads(context, judge, [(prompt, [_stand_in(prompt, 0), _stand_in(prompt, 1)])])
    return {f"{name}: guard: {role}": x.times(guard.n * guard.samples * n_probes) for role, x in by_role.items()}


def _evaluate_loads(context: Context) -> dict[str, _Load]:
    """All policies answer, then each judge compares."""
    from rlaif.stages import evaluate

    config = context.config
    section = config.evaluate
    assert section is not None
    if section.prompts is None:
        return {}
    prompts = load_prompts(section.prompts, [])
    contestants = contestants_of(config, context.starting_policy)
    n_matches = len(matches_of(section, contestants))
    n_answers = len(prompts) * section.n * sum(row.best_of for row in contestants)
    count = _counter(context, context.starting_policy)
    some = prompts[:_SAMPLED]
    mean = sum(count(prompt.messages) for prompt in some) / max(1, len(some))
    answers = _Load(n_answers, round(n_answers * mean), n_answers * section.max_tokens)
    loads = {"evaluate: answers": answers.priced(context.engine_spec(context.starting_policy).price)}
    for seat in evaluate.judges_of(config):
        judge = seat.build(context.engine)
        stand_ins = [(prompt, [_stand_in(prompt, 0), _stand_in(prompt, 1)]) for prompt in prompts]
        by_role, _ = _judge_loads(context, judge, stand_ins)
        for asked, load in by_role.items():
            named = f"evaluate: {seat.name}" if list(by_role) == [seat.name] else f"evaluate: {seat.name}: {asked}"
            loads[named] = load.times(section.n * n_matches)
    return loads


def _training(config: Pipeline, wanted: list[str]) -> list[str]:
    """Checks the names of the training arguments where TRL is installed; what memory the trainings take."""
    if importlib.util.find_spec("trl") is None:
        return ["", "train: TRL is not installed here, its arguments were not checked (pip install 'rlaif[train]')"]
    from rlaif.training.fitting import check_arguments
    from rlaif.training.methods import method

    lines: list[str] = []
    for name in wanted:
        section = config.train.section(name) if config.train else None
        if section is not None:
            check_arguments(method(name), section)
            lines += _memory(name, section.with_models(lambda value, _: _planned(config, value)))
    return ["", *lines] if lines else []


def _planned(config: Pipeline, value: str) -> str:
    """The model that `run:NAME` will have been trained from, which has its shape where it is not there yet."""
    seen = set()
    while value.startswith(RUN) and value not in seen:
        seen.add(value)
        section = config.train.section(value.removeprefix(RUN)) if config.train else None
        value = section.model if section else value
    return value


def _memory(name: str, section: TrainerSection) -> list[str]:
    """What it takes on each device, where the model's config lies here: nothing is fetched for a plan."""
    from rlaif.training.data import located
    from rlaif.training.memory import has_config
    from rlaif.training.memory_plan import told

    return [told(name, section)] if has_config(located(section.model)) else []


def _counter(context: Context, role: str) -> Callable[[list[Message]], int]:
    engine = context.engine(role)

    def count(messages: list[Message]) -> int:
        exact = engine.count_tokens(messages)
        return exact if exact is not None else sum(len(str(m["content"])) for m in messages) // _CHARS_PER_TOKEN

    return count


def _shown(messages: list[Message]) -> list[str]:
    lines = []
    for message in messages:
        lines += [f"  [{message['role']}]", *(f"  {line}" for line in str(message["content"]).splitlines())]
    return lines or ["  (no pair to judge)"]


def _table(loads: dict[str, _Load]) -> list[str]:
    if not loads:
        return ["requests to expect: none"]
    lines = ["requests to expect, at most (fewer where the journal has the reply or responses repeat):"]
    for stage, load in loads.items():
        lines.append(
            f"  {stage:<24}{load.requests:>10,} requests   about {load.tokens_in:,} tokens in, "
            f"at most {load.tokens_out:,} out" + (f", cost at most about {load.cost:,.4g}" if load.cost else "")
        )
    total = sum(load.cost for load in loads.values())
    return lines + ([f"cost at most about {total:,.4g}, in the unit of the engines' prices"] if total else [])
