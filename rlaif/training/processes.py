"""What the processes of one training do together: one of them works on the output folder, the others wait for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from rlaif.config.training import LaunchSection
from rlaif.errors import ConfigError
from rlaif.process import is_launched, is_main, n_processes

_T = TypeVar("_T")
_Row = TypeVar("_Row")
_TIMEOUT_S = 1800.0  # transformers' own default of ddp_timeout


def check(launch: LaunchSection | None, where: str) -> None:
    """Whether this process is what `launch` asked for. Errors: ConfigError."""
    if launch is None:
        return
    if not is_launched():
        raise ConfigError(
            f"{where}: is for a pipeline's stages, whose processes rlaif starts; from Python, leave it out and start "
            "the script with `accelerate launch`"
        )
    if launch.num_processes not in (None, n_processes()):
        raise ConfigError(
            f"{where}.num_processes: {launch.num_processes}, but `accelerate launch` started {n_processes()}: its "
            "config_file must name a distributed_type of several processes (MULTI_GPU, also on CPUs; FSDP; DEEPSPEED)"
        )


def join(args: Mapping[str, Any]) -> None:
    """Start the process group that the trainer, with these arguments of its own, then takes over.

    Errors: ConfigError for FSDP on CPUs, where accelerate shares nothing out and says nothing of it.
    """
    if n_processes() == 1:
        return
    cpu = bool(args.get("use_cpu")) or _is_set("ACCELERATE_USE_CPU")
    if cpu and _is_set("ACCELERATE_USE_FSDP"):
        raise ConfigError(
            "launch: FSDP on CPUs: accelerate would train with DDP, every process holding the whole model; take "
            "distributed_type: MULTI_GPU for that (shipped:pipelines/accelerate/ddp.yaml), or GPUs"
        )
    from accelerate import PartialState

    timeout = timedelta(seconds=float(args.get("ddp_timeout") or _TIMEOUT_S))
    PartialState(cpu=cpu, backend=args.get("ddp_backend"), timeout=timeout)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")


def from_main(make: Callable[[], _T]) -> _T:
    """What `make` returns in the main process, in each of them. Errors: the main process's, in each of them."""
    if n_processes() == 1:
        return make()
    import torch.distributed

    told: list[Any] = [None, None]
    if is_main():
        try:
            told[0] = make()
        except Exception as error:
            told[1] = error
    torch.distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    made: _T = told[0]
    return made


def together(rows: Sequence[_Row], work: Callable[[list[_Row]], Sequence[_T]]) -> list[_T]:
    """`work` in the main process, on the rows of all of them in the order of their ranks; each gets back what is its
    own. Errors: the main process's, in each of them."""
    if n_processes() == 1:
        return list(work(list(rows)))
    import torch.distributed

    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, list(rows))
    made = from_main(lambda: list(work([row for part in parts for row in part])))
    start = sum(map(len, parts[: torch.distributed.get_rank()]))
    return made[start : start + len(rows)]


def wait() -> None:
    """Until all of them are here."""
    if n_processes() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


@contextmanager
def main_first() -> Iterator[None]:
    """The others begin when the main process is through: what it has cached, they find."""
    if n_processes() == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield
