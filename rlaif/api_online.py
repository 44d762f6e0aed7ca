"""`rlaif.train_ppo` and `rlaif.train_grpo`: rewards of every kind, judges with a run folder among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from rlaif import config as configs
from rlaif.config import Pipeline
from rlaif.errors import ConfigError

Reward = Mapping[str, Any] | Callable[..., Any]


class Online(NamedTuple):
    """A checked section, and the training of it: `train(section, dataset, out, seed)`."""

    section: Any
    train: Callable[[Any, str, Path, int], dict[str, Any]]


def online(
    train: Callable[..., dict[str, Any]],
    name: str,
    kind: type[Any],
    given: dict[str, Any],
    rewards: Sequence[Reward],
    watching: Mapping[str, Any],
    judging: Mapping[str, Mapping[str, Any] | None],
    run: str | Path | None,
) -> Online:
    """`name`: of the trainer; `given`: its section without rewards; `watching`: its callbacks and its guard's judge;
    `judging`: keys of a pipeline that judges among the rewards need; `run`: their run folder. Errors: ConfigError."""
    from rlaif.engines.base import import_path

    where = f"train_{name}"
    functions: dict[str, Callable[..., Any]] = {}
    sources: list[Mapping[str, Any]] = []
    for reward in rewards:
        if callable(reward):
            path = f"{reward.__module__}:{getattr(reward, '__name__', type(reward).__name__)}"
            functions[path] = reward
            sources.append({"function": path})
        else:
            sources.append(reward)
    given = {**given, "rewards": sources}
    checked = configs.validate(kind, given, where)
    functions = {path: functions.get(path) or import_path(path, f"{where}.rewards") for path in checked.code}
    judged = any(source.judge is not None for source in checked.rewards)

    def work(section: Any, dataset: str, out: Path, seed: int) -> dict[str, Any]:
        raw = {"run": str(run), "seed": seed, "train": {name: given}}
        raw |= {key: dict(value) for key, value in judging.items() if value is not None}
        none: AbstractContextManager[Mapping[int, Any]] = nullcontext({})
        with _judges(raw, name, run is not None) if judged else none as judges:
            return train(section, dataset, out, seed, functions=functions, judges=judges, **watching)

    return Online(checked, work)


@contextmanager
def _judges(raw: dict[str, Any], name: str, has_run: bool) -> Iterator[Mapping[int, Any]]:
    from rlaif.stages.base import Context
    from rlaif.stages.live.checks import check
    from rlaif.stages.live.session import judges
    from rlaif.store import RunFolder

    where = f"train_{name}"
    if not has_run:
        raise ConfigError(f"{where}: run: a judge among the rewards needs a run folder, where every reply is kept")
    config = configs.validate(Pipeline, raw, where)
    with RunFolder(config.run) as folder:
        folder.refuse_foreign()
        context = Context(config, folder, quiet=True)
        check(context, name)
        with judges(context, name) as found:
            yield found
