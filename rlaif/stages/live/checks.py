"""What can be known of a judge among the rewards before anything is paid, and what the stage depends on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlaif.config import JudgeSection, OnlineSection, PairSection, Pipeline
from rlaif.config.training import RewardSource
from rlaif.errors import ConfigError
from rlaif.judges import build, find_files_of, find_standard
from rlaif.records import Prompt
from rlaif.rubric import Rubric
from rlaif.stages.base import Context
from rlaif.stages.live.groups import Known

_USED = ("order_policy", "panel", "panel_gold", "principle_weights")  # of `pair:`, in a score


def section_of(config: Pipeline, name: str) -> OnlineSection:
    """Errors: ConfigError where the config has no such section, or it has no rewards."""
    section = config.train.section(name) if config.train else None
    if not isinstance(section, OnlineSection):
        raise ConfigError(f"train.{name}: this config has no such section")
    return section


def where_of(name: str, at: int) -> str:
    return f"train.{name}.rewards[{at}].judge"


def settings_of(config: Pipeline) -> PairSection:
    """Of `pair:`, what makes one comparison of several judgments; selection and margins are for datasets."""
    given = config.pair or PairSection()
    return PairSection(**{name: getattr(given, name) for name in _USED})


def known_weights(pair: PairSection, source: RewardSource, section: JudgeSection) -> PairSection:
    """`pair.principle_weights` are the pipeline's judge's; another judge takes those that its standards know."""
    if not isinstance(source.judge, JudgeSection):
        return pair
    known = {item for leaf in section.leaves for item in _items(leaf)}
    weights = {name: weight for name, weight in pair.principle_weights.items() if name in known}
    return pair.model_copy(update={"principle_weights": weights})


def _items(section: JudgeSection) -> list[str]:
    standard = find_standard(section)
    if standard is None:
        return []
    return [item.id for item in (standard.criteria if isinstance(standard, Rubric) else standard.principles)]


def check(context: Context, name: str) -> None:
    """Errors: ConfigError, TemplateError."""
    config, section = context.config, section_of(context.config, name)
    for at, source in enumerate(section.rewards):
        if source.judge is None:
            continue
        where = where_of(name, at)
        judged_by = source.judged_by(config.judge)
        if judged_by is None:
            raise ConfigError(f"{where}: true, but this config has no judge section")
        arity = build(judged_by, context.engine, where=where).arity
        _check_pair(config, where)
        _check_against(context, section, source, arity, f"train.{name}.rewards[{at}].against")


def _check_pair(config: Pipeline, where: str) -> None:
    pair = settings_of(config)
    if pair.panel in ("weighted", "dawid_skene"):
        raise ConfigError(
            f"{where}: pair.panel: {pair.panel}: a rollout is too little to weigh members by what they say; use mean "
            "or majority"
        )
    if pair.panel_gold is not None and pair.panel_gold.endswith(".jsonl"):
        raise ConfigError(
            f"{where}: pair.panel_gold: {pair.panel_gold}: its pairs are not those of a rollout; name the .json with "
            "each member's count"
        )


def _check_against(context: Context, section: OnlineSection, source: RewardSource, arity: int, where: str) -> None:
    config, folder = context.config, context.folder
    if arity == 1:
        if source.against != "group":
            raise ConfigError(f"{where}: {source.against}: this judge looks at single responses; leave it out")
        return
    if source.against == "group" and where.startswith("train.ppo") and section.args.get("num_generations", 1) == 1:
        raise ConfigError(
            f"{where}: group, but PPO writes one completion for a prompt: set `against: responses` (what this run's "
            "starting policy wrote) or `against: reference`, or args.num_generations, or use a pointwise judge"
        )
    if source.against == "responses":
        written = config.generate is not None or config.prompts is not None
        if not written and not folder.table("responses").exists():
            raise ConfigError(f"{where}: responses: this run has no responses.jsonl, and nothing that writes it")


def files(config: Pipeline, name: str) -> Iterator[Path]:
    """What the judges read, and the responses that they compare with."""
    section = section_of(config, name)
    for judged_by in section.judges(config.judge).values():
        yield from find_files_of(judged_by)
    if any(source.against == "responses" for source in section.rewards):
        yield from (Path(config.run) / f"{table}.jsonl" for table in ("prompts", "responses"))
    gold = config.pair.panel_gold if config.pair else None
    if gold and section.judges(config.judge):
        yield Path(gold)


def prompts_of(dataset: str) -> list[Prompt]:
    """Of a dataset that lies here, for a plan; [] of one that does not. Errors: DataError."""
    import tempfile

    from rlaif.training.data import located
    from rlaif.training.prompts import load_prompts

    path = Path(located(dataset))
    if not path.exists():
        return []
    known = Known()
    with tempfile.TemporaryDirectory(prefix="rlaif-") as cache:
        return [known.prompt(row) for row in load_prompts(path, Path(cache)).train]


def depends_on(config: Pipeline, name: str) -> Any:
    """The parts of the config beside the trainer's own that can change a score; None without a judge."""
    judged_by = section_of(config, name).judges(config.judge)
    if not judged_by:
        return None
    sections = {str(at): section.model_dump(mode="json") for at, section in judged_by.items()}
    return [sections, settings_of(config).model_dump(mode="json")]
