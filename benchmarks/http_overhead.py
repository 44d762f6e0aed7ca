"""What a judgment over HTTP costs beside the model: rlaif against raw aiohttp, on the same stub server.

    python benchmarks/http_overhead.py [--n 5000] [--repeats 3] [--quick]

Every client runs in a process of its own against one stub process; clients take turns, the median of the repeats
counts. CPU seconds are the client's alone, without imports. Rates swing with the machine's load: compare ratios
within one run. Two settings:

- `steady`: about 300 tokens a judgment, 64 in flight, every reply after 20 ms;
- `tail`: 2 % of the replies take 20 times as long; `ideal` is what the same latencies would take with all 64 places
  always in use.

Clients: `raw` is aiohttp in a bounded worker pool with a journal and no more; `engine` is the openai engine in the
same worker pool; `rlaif` is the whole road: judge, driver, engine, journal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

CONCURRENCY = 64
CLIENTS = ("raw", "engine", "rlaif")
SETTINGS = {
    "steady": {"latency_ms": 20, "jitter": 0, "tail": 0},
    "tail": {"latency_ms": 100, "jitter": 0.5, "tail": 0.02},
}
PRINCIPLE = "Which response is better? Prefer the one that follows the question and is right, complete and clear."
TEMPLATE = (
    "Question:\n```\n{{ question }}\n```\nResponse A:\n```\n{{ a }}\n```\nResponse B:\n```\n{{ b }}\n```\n"
    + PRINCIPLE
    + "\nAnswer with one letter: A or B."
)
WORDS = ["the", "of", "and", "to", "in", "that", "was", "river", "stone", "answer", "which", "one", "you", "were"]


Comparison = tuple[str, str, str]  # question, response, response


def comparisons(n: int) -> list[Comparison]:
    """The same every time."""
    rng = random.Random(7)

    def text(n_words: int) -> str:
        return " ".join(rng.choices(WORDS, k=n_words))

    return [(f"{index} {text(80)}", text(80), text(80)) for index in range(n)]


# ---------------------------------------------------------------- clients: each judges every item in both orders


def run_raw(url: str, items: list[Comparison], journal: Path) -> int:
    """The floor: render, post, decode, append."""
    import aiohttp
    import jinja2
    import msgspec

    render = jinja2.Environment().from_string(TEMPLATE).render
    done = 0

    async def main() -> None:
        headers = {"Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=0)
        with journal.open("ab", buffering=0) as file:
            async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

                async def judge(prompt: str) -> None:
                    nonlocal done
                    body = {
                        "model": "stub", "messages": [{"role": "user", "content": prompt}], "max_tokens": 1,
                        "temperature": 0.0, "logprobs": True, "top_logprobs": 20,
                    }  # fmt: skip
                    async with session.post(f"{url}/chat/completions", data=msgspec.json.encode(body)) as response:
                        payload = await response.read()
                    choice = msgspec.json.decode(payload)["choices"][0]
                    row = {"prompt": prompt, "text": choice["message"]["content"], "logprobs": choice["logprobs"]}
                    file.write(msgspec.json.encode(row) + b"\n")
                    done += 1

                await _pool(_prompts(render, items), judge)

    _uvloop_run(main())
    return done


def run_engine(url: str, items: list[Comparison], journal: Path) -> int:
    """The openai engine alone, in the same pool, without judge, driver and journal."""
    import jinja2

    from rlaif.engines.openai import OpenAIEngine
    from rlaif.records import Request

    render = jinja2.Environment().from_string(TEMPLATE).render
    engine = OpenAIEngine("stub", url, concurrency=CONCURRENCY)
    done = 0

    async def judge(prompt: str) -> None:
        nonlocal done
        messages = [{"role": "user", "content": prompt}]
        request = Request(
            role="judge", messages=messages, max_tokens=1, temperature=0.0, labels=["A", "B"], top_logprobs=20
        )
        reply = await engine.complete(request, 1)
        done += bool(reply.logprobs)

    async def main() -> None:
        await engine.start()
        await _pool(_prompts(render, items), judge)
        await engine.close()

    _uvloop_run(main())
    return done


def run_rlaif(url: str, items: list[Comparison], journal: Path) -> int:
    """The whole road."""
    from rlaif.config import Budget
    from rlaif.driver import Driver
    from rlaif.engines.openai import OpenAIEngine
    from rlaif.judges.base import Task
    from rlaif.judges.pairwise import PairwiseJudge
    from rlaif.judges.verdicts import Choice
    from rlaif.paths import shipped
    from rlaif.records import Prompt, Response
    from rlaif.rubric import Constitution, Principle
    from rlaif.store import Journal
    from rlaif.templates import load_frame

    principle = Principle(id="better", texts=[PRINCIPLE])
    constitution = Constitution(id="bench", version=1, name="b", description="b", principles=[principle])
    frame = load_frame(shipped("prompts") / "judges" / "pairwise_compact.jinja")
    judge = PairwiseJudge(frame=frame, choice=Choice(), constitution=constitution)

    def task(index: int, question: str, texts: Iterable[str]) -> Task:
        prompt = Prompt(id=f"p{index}", messages=[{"role": "user", "content": question}])
        responses = [Response(id=f"r{index}-{k}", prompt_id=prompt.id, text=text) for k, text in enumerate(texts)]
        return Task(prompt=prompt, responses=responses)

    engine = OpenAIEngine("stub", url, concurrency=CONCURRENCY)
    store = Journal(journal)
    driver = Driver({"judge": engine}, store, budget=Budget(concurrency=CONCURRENCY))
    jobs = (judge(task(i, question, texts)) for i, (question, *texts) in enumerate(items))
    done = sum(judgment.status == "ok" for judgments in driver.run(jobs) for judgment in judgments)
    store.close()
    return done


def _prompts(render: Callable[..., str], items: list[Comparison]) -> Iterator[str]:
    for question, a, b in items:
        yield render(question=question, a=a, b=b)
        yield render(question=question, a=b, b=a)


async def _pool(prompts: Iterator[str], judge: Callable[[str], Awaitable[None]]) -> None:
    async def worker() -> None:
        for prompt in prompts:
            await judge(prompt)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


def _uvloop_run(main: Any) -> None:
    import uvloop

    uvloop.run(main)


# ---------------------------------------------------------------- measuring


def measure(client: str, url: str, n: int) -> dict[str, float]:
    """In this process: one run of one client."""
    import aiohttp  # noqa: F401 - imports are not what is measured
    import jinja2  # noqa: F401

    import rlaif.driver
    import rlaif.engines.openai
    import rlaif.judges  # noqa: F401

    items = comparisons(n // 2)
    run = {"raw": run_raw, "engine": run_engine, "rlaif": run_rlaif}[client]
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        done = run(url, items, Path(folder) / "journal.jsonl")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if done != n:
        raise SystemExit(f"{client}: {done} of {n} judgments")
    return {"seconds": wall, "cpu_s": cpu}


def measure_apart(client: str, url: str, n: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--client", client, "--url", url, "--n", str(n)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(printed)
    return found


def compare(setting: str, n: int, repeats: int, server: Any) -> dict[str, dict[str, float]]:
    """client → medians over the repeats; the clients take turns."""
    server.set(**SETTINGS[setting])
    runs: dict[str, list[dict[str, float]]] = {client: [] for client in CLIENTS}
    for _ in range(repeats):
        for client, found in runs.items():
            server.clear()
            measured = measure_apart(client, server.url, n)
            ideal_s = server.stats()["latency_sum_s"] / CONCURRENCY
            found.append(
                {
                    "per_s": n / measured["seconds"],
                    "cpu_s_per_1000": measured["cpu_s"] / n * 1000,
                    "of_ideal": ideal_s / measured["seconds"],
                }
            )
    medians = {
        client: {key: round(statistics.median(run[key] for run in found), 3) for key in found[0]}
        for client, found in runs.items()
    }
    for figures in medians.values():
        figures["cpu_of_raw"] = round(figures["cpu_s_per_1000"] / medians["raw"]["cpu_s_per_1000"], 2)
    return medians


def show(setting: str, medians: dict[str, dict[str, float]]) -> None:
    print(f"{setting}: {SETTINGS[setting]}")
    print(f"  {'client':8} {'judgments/s':>12} {'CPU s/1,000':>12} {'CPU of raw':>11} {'of ideal':>9}")
    for client, found in medians.items():
        per_s, cpu, of_raw, of_ideal = (found[k] for k in ("per_s", "cpu_s_per_1000", "cpu_of_raw", "of_ideal"))
        print(f"  {client:8} {per_s:12,.0f} {cpu:12.3f} {of_raw:11.2f} {of_ideal:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=5000, help="judgments per run (even)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="600 judgments, once: does it run at all?")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        print(json.dumps(measure(args.client, args.url, args.n)))
        return
    n, repeats = (600, 1) if args.quick else (args.n, args.repeats)

    from stub_server import stub

    results = {}
    with stub() as server:
        for setting in SETTINGS:
            results[setting] = compare(setting, n, repeats, server)
            show(setting, results[setting])
    print(json.dumps({"n": n, "repeats": repeats, "concurrency": CONCURRENCY, **results}))


if __name__ == "__main__":
    main()
