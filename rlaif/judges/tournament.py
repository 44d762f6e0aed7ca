"""A tournament: all of a prompt's responses, few comparisons, the best and the worst found.

Each round asks a pairwise judge about the pairs that tell most, given what the rounds before said. All pairwise
judgments are returned, and nothing else: what becomes of them is decided by `pair` (`select: bradley_terry`, since
the mean P(win) of responses that met different opponents cannot be compared).
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges.base import Judge, JudgeRun, Task, lead, planned, together
from rlaif.judges.section import EngineOf
from rlaif.records import Judgment, Reply, Request

if TYPE_CHECKING:
    from rlaif.metrics.ranking import BradleyTerry

Scheme = Literal["best_worst", "swiss", "random"]
_SCHEMES: tuple[Scheme, ...] = ("best_worst", "swiss", "random")
Pair = tuple[int, int]


class TournamentJudge:
    """Ranks N responses with `calls` requests at most.

    `judge`: compares two (arity 2). With `orders: random` it must ask about the two in the order that it is given:
    the tournament draws which is shown first, and shows each response first about as often as second. With
    `orders: both` it asks both, and every comparison costs twice as much.
    `scheme`: "best_worst" looks for the two ends only: after a round in which all meet somebody, the two responses
    that may yet be the best by their upper confidence bounds meet, and likewise at the other end (bounds of a
    Bradley–Terry model, one standard deviation up; the idea is that of duelling bandits: Zoghi et al. 2014, arXiv
    1312.3393). "swiss": every round pairs neighbours in strength that met least, which ranks all. "random": pairs at
    random, for comparison.
    `calls`: requests for one prompt, every request counted, also one whose reply is no verdict. A comparison is begun
    only if what it will cost is left; a judge that asks in several steps shows its price only when its first
    comparison ends, so only the first round can go over. Default: 2(N−1) comparisons in one order, or N−1 in both,
    which is what two knock-outs cost, one for each end; of all N(N−1) ordered pairs that is the share 2/N (a quarter
    at N = 8).
    """

    arity = 0

    @classmethod
    def from_section(cls, section: JudgeSection, engine_of: EngineOf, *, role: str, where: str) -> TournamentJudge:
        """The judge that a config describes: its one member compares, or the section itself as a pairwise judge.

        `options`: scheme, calls. One drawn order is the default here. Errors: ConfigError.
        """
        from rlaif.judges import build

        if len(section.members) > 1:
            raise ConfigError(f"{where}.members: a tournament has one judge inside, not {len(section.members)}")
        orders = section.orders if "orders" in section.model_fields_set else "random"
        if orders == "given":
            raise ConfigError(f"{where}.orders: given: a tournament draws who is shown first, or asks both orders")
        inside = section.last_word if not section.members else section.member(next(iter(section.members)))
        if orders == "random" and inside.judge != "pairwise":
            raise ConfigError(
                f"{where}.orders: random: a tournament asks only a pairwise judge in one order; set orders: both for "
                f"{inside.judge}"
            )
        inside = inside.model_copy(update={"orders": "given" if orders == "random" else "both"})
        member = f"{where}.members.{next(iter(section.members))}" if section.members else where
        judge = build(inside, engine_of, role=None if section.members else role, where=member)
        try:
            return cls(judge=judge, orders=orders, **section.options)
        except ConfigError as error:
            raise ConfigError(f"{where}.{error}") from None

    def __init__(
        self,
        *,
        judge: Judge,
        scheme: Scheme = "best_worst",
        calls: int | None = None,
        orders: Literal["both", "random"] = "random",
    ) -> None:
        if scheme not in _SCHEMES:
            raise ConfigError(f"options.scheme: unknown scheme {scheme!r}; known: {', '.join(_SCHEMES)}")
        if calls is not None and (isinstance(calls, bool) or not isinstance(calls, int) or calls < 1):
            raise ConfigError(f"options.calls: a whole number of requests, 1 or more, got {calls!r}")
        if judge.arity != 2:
            raise ConfigError(f"members: a tournament needs a judge of two responses, not {type(judge).__name__}")
        self.judge, self.scheme, self.calls, self.both = judge, scheme, calls, orders == "both"

    def comparisons(self, n: int) -> int:
        """How many comparisons of `n` responses are made at most."""
        most = n * (n - 1) // (2 if self.both else 1)
        return most if self.calls is not None else min(most, (n - 1) * (1 if self.both else 2))

    def plan(self, task: Task) -> list[Request]:
        """As many requests as the task may make; which pairs they are about is not known before."""
        n = len(task.responses)
        pairs = [(i, j) for i in range(n) for j in range(n) if (i < j if self.both else i != j)]
        requests: list[Request] = []
        for i, j in pairs[: self.comparisons(n)]:
            one = msgspec.structs.replace(task, responses=[task.responses[i], task.responses[j]])
            found = planned(self.judge, one)
            if self.calls is not None and len(requests) + len(found) > self.calls:
                if not requests:
                    raise _too_few(self.calls, len(found))
                break
            requests += found
        return requests

    def outlook(self) -> list[str]:
        limit = f"{self.calls} requests a prompt" if self.calls is not None else "2(N−1) looks at N responses"
        return [f"tournament, {self.scheme}: {limit}, at most and typically; fewer where responses repeat"]

    def __call__(self, task: Task) -> JudgeRun:
        """The judgments of all comparisons, in the order of the rounds."""
        table = _Table(len(task.responses), task.rng(), both=self.both)
        left = self.comparisons(table.n)
        purse = _Purse(self.calls)
        judgments: list[Judgment] = []
        n_round = 0
        while pairs := _next_round(self.scheme, table, n_round)[:left]:
            pairs = [table.seat(*pair) for pair in pairs]
            tasks = [msgspec.structs.replace(task, responses=[task.responses[i] for i in pair]) for pair in pairs]
            runs = purse.begin([self.judge(one) for one in tasks])
            results = yield from together(runs)
            purse.note_prices()
            for pair, found in zip(pairs, results, strict=False):
                table.enter(pair, found, [response.id for response in task.responses])
                judgments += [_in_round(judgment, n_round) for judgment in found]
            left -= len(runs)
            n_round += 1
            if len(runs) < len(pairs):
                break
        return judgments


def _in_round(judgment: Judgment, n_round: int) -> Judgment:
    """An order that the tournament gave its judge was drawn, so it is random."""
    drawn = {"orders": "random"} if judgment.meta.get("orders") == "given" else {}
    return msgspec.structs.replace(judgment, meta={**judgment.meta, **drawn, "round": n_round})


class _Purse:
    """Counts the requests of comparisons, and starts those that can be paid for."""

    def __init__(self, calls: int | None) -> None:
        self.calls = calls
        self._spent: list[int] = []  # requests of each comparison so far
        self._price = 0  # of the dearest comparison that has ended

    def begin(self, runs: Sequence[JudgeRun]) -> list[JudgeRun]:
        """The first of `runs` that fit into what is left, as runs that are counted; the others are closed."""
        begun: list[JudgeRun] = []
        promised = sum(self._spent)
        for index, run in enumerate(runs):
            try:
                first: list[Request] | None = next(run)
                cost = max(len(first or ()), self._price)
            except StopIteration as stop:  # nobody needs to be asked
                begun.append(_answered(stop.value))
                continue
            if self.calls is not None and promised + cost > self.calls:
                if not self._spent:
                    raise _too_few(self.calls, cost)
                for other in runs[index:]:
                    other.close()
                break
            promised += cost
            self._spent.append(0)
            begun.append(self._counted(run, first or [], len(self._spent) - 1))
        return begun

    def note_prices(self) -> None:
        self._price = max(self._spent, default=0)

    def _counted(self, run: JudgeRun, first: list[Request], index: int) -> JudgeRun:
        requests = first
        try:
            while True:
                self._spent[index] += len(requests)
                replies = yield requests
                requests = run.send(replies)
        except StopIteration as stop:
            found: list[Judgment] = stop.value
            return found
        finally:
            run.close()


def _too_few(calls: int, cost: int) -> ConfigError:
    return ConfigError(f"options.calls: {calls} does not pay for one comparison, which takes {cost} requests")


def _answered(judgments: list[Judgment]) -> Generator[list[Request], list[Reply], list[Judgment]]:
    return judgments
    yield []  # never reached: it makes this a generator


class _Table:
    """Who met whom, in which order, and how strong that makes everybody."""

    def __init__(self, n: int, rng: random.Random, *, both: bool) -> None:
        self.n, self.rng, self._both = n, rng, both
        self._asked: set[Pair] = set()  # (shown first, shown second)
        self._balance = [0] * n  # times shown first, less times shown second
        self._met = [0] * n
        self._rows: list[tuple[int, int, float, float]] = []  # first, second, P(first better) + ½ P(tie), weight
        self._fit: BradleyTerry | None = None

    def is_open(self, i: int, j: int) -> bool:
        """Whether there is anything left to ask about these two: the same question again has the same answer."""
        return (i, j) not in self._asked or (j, i) not in self._asked

    def open_pairs(self) -> list[Pair]:
        return [(i, j) for i in range(self.n) for j in range(i + 1, self.n) if self.is_open(i, j)]

    def meetings(self, i: int, j: int) -> int:
        return ((i, j) in self._asked) + ((j, i) in self._asked)

    def seat(self, i: int, j: int) -> Pair:
        """Who is shown first: whoever was less often, by chance where that is equal. From now on it is asked."""
        ways = [way for way in ((i, j), (j, i)) if way not in self._asked]
        lean = self._balance[i] - self._balance[j]
        way = ways[0] if len(ways) == 1 or lean < 0 else ways[1] if lean > 0 else self.rng.choice(ways)
        self._asked |= {way, way[::-1]} if self._both else {way}
        for place, item in zip((1, -1), way, strict=True):
            self._balance[item] += 0 if self._both else place
            self._met[item] += 1
        return way

    def enter(self, pair: Pair, judgments: Sequence[Judgment], ids: Sequence[str]) -> None:
        """What the judge said of a pair; what is no verdict says nothing."""
        for way in (pair, pair[::-1]):
            shown = [ids[i] for i in way]
            leads = [lead(judgment) for judgment in judgments if judgment.response_ids == shown]
            usable = [d for d in leads if d is not None]
            self._rows += [(*way, (1 + d) / 2, 1 / len(usable)) for d in usable]
        self._fit = None

    def strengths(self) -> BradleyTerry:
        """Of all; whoever has met nobody is in the middle, and unsure."""
        from rlaif.metrics.ranking import bradley_terry

        if self._fit is None:
            first, second, scores, weights = zip(*self._rows, strict=True) if self._rows else ((), (), (), ())
            self._fit = bradley_terry(
                first, second, scores, self.n, weights=weights, order_effect=not self._both
            )  # one prior for all, at its default
        return self._fit

    def by_strength(self) -> list[int]:
        """Strongest first; equals in a random order."""
        strengths = self.strengths().strengths
        return sorted(range(self.n), key=lambda i: (-round(float(strengths[i]), 9), self.rng.random()))

    def sits_out(self) -> int:
        """Where the number is odd: who has met most, by chance where that is equal."""
        most = max(self._met)
        return self.rng.choice([i for i in range(self.n) if self._met[i] == most])


def _next_round(scheme: Scheme, table: _Table, n_round: int) -> list[Pair]:
    """Pairs to ask about at once; empty when everything has been asked."""
    if not table.open_pairs():
        return []
    if scheme == "random":
        return table.rng.sample(table.open_pairs(), len(table.open_pairs()))
    if scheme == "swiss" or n_round == 0:
        return _neighbours(table)
    return _both_ends(table)


def _neighbours(table: _Table) -> list[Pair]:
    """Everybody once, each with the nearest in strength that they met least; the ends first, if not all fit."""
    waiting = table.by_strength()
    if table.n % 2:
        waiting.remove(table.sits_out())
    pairs: list[Pair] = []
    while waiting:
        one = waiting.pop(0)
        other = min(waiting, key=lambda i: table.meetings(one, i))
        waiting.remove(other)
        pairs.append((one, other))
    ends_first = sorted(range(len(pairs)), key=lambda place: min(place, len(pairs) - 1 - place))
    found = [pairs[place] for place in ends_first if table.is_open(*pairs[place])]
    return found or [table.rng.choice(table.open_pairs())]


def _both_ends(table: _Table) -> list[Pair]:
    """One pair for the best, one for the worst, of four different responses."""
    fit = table.strengths()
    pairs: list[Pair] = []
    for sign in (1, -1):
        bound = sign * fit.strengths + fit.sd
        taken = {item for pair in pairs for item in pair}
        free = [pair for pair in table.open_pairs() if not taken & set(pair)]
        if free:
            table.rng.shuffle(free)  # equals by chance
            pairs.append(max(free, key=lambda pair: round(float(bound[pair[0]] + bound[pair[1]]), 9)))
    return pairs
