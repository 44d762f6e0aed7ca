"""What every stage is given: the config, the run folder, and drivers over the config's engines.

A stage is a function `run(context) -> dict` that reads tables, writes one kind of output, and returns counts for the
manifest. It can be run again at any time: what it asked before is answered from the journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from rlaif.config import EngineSpec, Pipeline, Price
from rlaif.driver import Driver, Job
from rlaif.engines import base as engines
from rlaif.errors import ConfigError
from rlaif.progress import Progress, Stats
from rlaif.records import Dropped, Prompt
from rlaif.store import RunFolder

_T = TypeVar("_T")
Drive = Callable[[Iterable[Job[Any]]], Iterator[Any]]


class Enough(Exception):
    """A process that was to serve one role only has served it; the replies are in the journal."""


class Context:
    """One stage's view of its run. `until`: stop (raise Enough) once this role has answered everything."""

    def __init__(self, config: Pipeline, folder: RunFolder, *, quiet: bool = False, until: str | None = None) -> None:
        self.config = config
        self.folder = folder
        self.quiet = quiet
        self.until = until
        self.stats: dict[str, Stats] = {}
        self._engines: dict[str, engines.Engine] = {}

    def engine(self, role: str) -> engines.Engine:
        """The engine of `role`, built but not started; one object per role."""
        if role not in self._engines:
            self._engines[role] = engines.load(self.engine_spec(role).options(), f"engines.{role}")
        return self._engines[role]

    def engine_spec(self, role: str) -> EngineSpec:
        """The entry of `engines:`. A trainer's name, `trained` for the last one's, or `round-NUMBER`, is the starting
        policy's entry with the model that this run trained."""
        if role in self.config.engines:
            return self.config.engines[role]
        trained = self.config.trained_folder(role)
        if trained is not None:
            return self.config.engines[self.starting_policy].serving(str(self.folder.path / trained))
        raise ConfigError(f"no engine {role!r} under engines: (there: {', '.join(sorted(self.config.engines))})")

    @property
    def starting_policy(self) -> str:
        """The engine key of the policy before training. Errors: ConfigError where the config names none."""
        if self.config.starting_policy is None:
            raise ConfigError("evaluate.before: name the starting policy's engine (there is no generate section)")
        return self.config.starting_policy

    def drive(self, label: str, roles: Iterable[str], jobs: Iterable[Job[_T]], total: int | None) -> Iterator[_T]:
        """Results of `jobs` in order; what the engines did is added to `stats`."""
        roles = set(roles)
        driver = self._driver(
            roles,
            reasks=self.folder.reasks,
            progress=Progress(label, total, quiet=self.quiet),
            only=self.until if self.until in roles else None,
        )
        with self._counted(driver):
            yield from driver.run(jobs)
        if self.until in roles:
            raise Enough

    @contextmanager
    def session(self, roles: Iterable[str]) -> Iterator[Drive]:
        """`drive`, as often as wanted over the same engines. Replies that the user wants asked again (`--retry`) are
        not: whoever asks in the midst of something else must find what was answered before."""
        driver = self._driver(set(roles))
        with self._counted(driver), driver.session() as drive:
            yield drive

    def _driver(self, roles: set[str], **more: Any) -> Driver:
        spent = msgspec.structs.replace(self._before)
        for stats in self.stats.values():
            spent.add(stats)
        return Driver(
            {role: self.engine(role) for role in sorted(roles)},
            self.folder.journal,
            budget=self.config.budget,
            spent=spent,
            prices=self._prices,
            **more,
        )

    @contextmanager
    def _counted(self, driver: Driver) -> Iterator[None]:
        try:
            yield
        finally:
            for role, stats in driver.stats_by_role().items():
                self.stats.setdefault(role, Stats()).add(stats)

    @cached_property
    def _before(self) -> Stats:
        """What the stages before this one sent in this run: the budget is one for all."""
        run = self.folder.manifest.get("last_run", {})
        return Stats(sent=run.get("sent", 0), cost=run.get("cost", 0.0))

    @cached_property
    def _prices(self) -> Mapping[str, Price]:
        return {role: spec.price for role, spec in self.config.engines.items()}


def prompts_by_id(folder: RunFolder) -> dict[str, Prompt]:
    return {prompt.id: prompt for prompt in folder.read("prompts", Prompt)}


def count_reasons(rows: Iterable[Dropped]) -> dict[str, int]:
    """How many rows were dropped for each reason, for the manifest."""
    return dict(sorted(Counter(row.reason for row in rows).items()))
