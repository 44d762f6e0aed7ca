"""The guard of one training: probes the policy, stops the trainer, and gives the kept weights back to the model."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from rlaif.config.guarding import PROBES, GuardSection
from rlaif.errors import ConfigError, DataError, StoreError
from rlaif.process import is_main
from rlaif.training import processes, tokens
from rlaif.training.guard import monitors, records, sampling
from rlaif.training.guard.decision import Decision, Probe, Rules, Values, broken_at_start, decide
from rlaif.training.guard.probes import ProbeJudge, Probes, Written, measured, rewards_of, wins
from rlaif.training.guard.store import Store

log = logging.getLogger("rlaif.training")
_MAX_TOKENS = 256  # of a response, where neither the guard nor the training says it
_SHOWN, _SHOWN_CHARS = 4, 500  # responses of each probe that the record shows


def rollout_steps(config: Any) -> int:
    """Optimizer steps between two points at which a training can be probed: a whole rollout of an online trainer."""
    if not hasattr(config, "steps_per_generation"):
        return 1
    passes = int(config.steps_per_generation * config.num_iterations)
    return max(1, passes // int(config.gradient_accumulation_steps))


class Guard:
    """Made before the trainer, `attach`ed to it; after the training `finish` puts the kept weights into the model.

    judge: P(a response is better than the start's own), None where it did not say. Of several processes the main one
    probes, and the others wait for what it decides.
    """

    def __init__(
        self, section: GuardSection, probes: Probes, *, method: str, where: str, seed: int, judge: ProbeJudge | None
    ) -> None:
        if section.judge is not None and judge is None:
            raise ConfigError(
                f"{where}.judge: {section.judge}: the engines of a pipeline judge its probes; from Python pass a "
                "function as judge="
            )
        self.section, self.probes, self._where, self._seed, self._judge = section, probes, where, seed, judge
        self._limits = section.all_limits(kl=method != "sft")
        self._refuses = monitors.refuser(section.refusals)
        self._history: list[Probe] = []
        self._shown: dict[str, list[str]] = {}
        self._starts: list[str] = []
        self._decision: Decision | None = None
        self._seconds = 0.0

    def check(self, config: Any) -> None:
        """Whether TRL's config fits. Errors: ConfigError."""
        every, unit = self.section.every, rollout_steps(config)
        if every is not None and every % unit:
            nearest = max(1, round(every / unit)) * unit
            raise ConfigError(
                f"{self._where}.every: {every}: a probe must fall on the end of a rollout, every {unit} steps: "
                f"take {nearest}"
            )

    def attach(self, trainer: Any, folder: Path, *, resumed: bool) -> None:
        """Errors: ConfigError (weights that are shared out, a reward model that cannot score), DataError."""
        if getattr(trainer, "is_fsdp_enabled", False) or getattr(trainer, "is_deepspeed_enabled", False):
            raise ConfigError(
                f"{self._where}: the weights are shared out over the processes (FSDP, DeepSpeed), and a probe needs "
                "them whole; train with DDP or in one process, or leave the guard out"
            )
        self._trainer, self._store, self._resumed = trainer, Store(folder), resumed
        if not resumed and is_main():
            self._store.clear()
        tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        self._tokenizer, args = tokenizer, trainer.args
        self._max_tokens = self.section.max_tokens or getattr(args, "max_completion_length", None) or _MAX_TOKENS
        self._temperature = self.section.temperature or float(getattr(args, "temperature", None) or 1.0)
        self._choose_prompts()
        self._reward_names, self._reward = rewards_of(self.section, trainer, f"{self._where}.rewards")
        by = self.section.by or ("win_rate" if self._judge else "reward" if self._reward else None)
        if by == "reward" and self._reward is None:
            raise ConfigError(f"{self._where}.by: reward: no reward is watched here: name models as guard.rewards")
        n, each = len(self._ids), self.section.samples
        self._of_prompt = [prompt for prompt in range(n) for _ in range(each)]
        self._rules = Rules(self._limits, by, self.section.fall, self.section.patience, self._of_prompt, self._seed)
        trainer.add_callback(_Watch(self))

    def _choose_prompts(self) -> None:
        """Those that fit with a response into the model."""
        config = self._model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        ids = [tokens.encode(self._tokenizer, prompt, "", finished=False).prompt for prompt in self.probes.prompts]
        fit = [at for at, row in enumerate(ids) if row and (limit is None or len(row) + self._max_tokens <= limit)]
        if not fit:
            raise DataError(
                f"{self._where}.probes: no prompt fits in {limit} tokens with {self._max_tokens} of a response: "
                f"lower {self._where}.max_tokens"
            )
        self._too_long = len(ids) - len(fit)
        self._ids = [ids[at] for at in fit]
        columns = {name: [values[at] for at in fit] for name, values in self.probes.columns.items()}
        prompts = [self.probes.prompts[at] for at in fit]
        domains = [self.probes.domains[at] for at in fit]
        self.probes = self.probes._replace(prompts=prompts, domains=domains, columns=columns)

    @property
    def _model(self) -> Any:
        return self._trainer.accelerator.unwrap_model(self._trainer.model)

    # -- while the trainer runs ------------------------------------------------------------------------------------

    def begin(self, state: Any) -> None:
        """The probe of the start, or what a killed run has left of its probes up to this checkpoint."""
        self._weights = {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}
        unit = rollout_steps(self._trainer.args)
        self._every = self.section.every or max(1, round(state.max_steps / PROBES / unit)) * unit
        self._saved = state.global_step
        self._decision = processes.from_main(lambda: self._begin(state.global_step))

    def _begin(self, step: int) -> Decision:
        probes, more = self._store.read() if self._resumed else ([], {})
        self._history = [probe for probe in probes if probe.step <= step]
        if self._resumed and not self._history:
            raise StoreError(
                f"{self._store.folder}: the probes of this training are not there: delete the folder above it"
            )
        self._shown, self._starts = more.get("shown", {}), more.get("starts", [])
        if self._history:
            return decide(self._history, self._rules)
        decision = self._probe(step)
        broken = broken_at_start(self._history[0], self._limits)
        if broken:
            raise ConfigError(f"{self._where}.limits: the starting policy breaks them: {'; '.join(broken)}")
        return decision

    def step(self, state: Any) -> bool:
        """Whether to stop, after a step; probes where it is time."""
        if self._decision is not None and self._decision.stop:
            return True  # decided before this run was killed
        if state.global_step % self._every and state.global_step < state.max_steps:
            return False
        self._decision = processes.from_main(lambda: self._probe(state.global_step))
        if self._decision.stop:
            log.warning("guard: stopped at step %d: %s", state.global_step, self._decision.why)
        return self._decision.stop

    def saved(self, step: int) -> None:
        """A checkpoint is whole."""
        self._saved = step
        if is_main():
            self._prune()

    def _probe(self, step: int) -> Decision:
        started = time.monotonic()
        with sampling.untouched(self._model):
            with self._trainer.accelerator.autocast():
                written = self._written(at_start=not self._history)
            probe = self._measured(step, written)
        self._history.append(probe)
        decision = decide(self._history, self._rules)
        newest = len(self._history) - 1
        if newest in (0, decision.best) or (decision.stop and self.section.keep == "last"):
            self._store.save_weights(step, self._weights)
        self._store.write(self._history, {"shown": self._shown, "starts": self._starts})
        self._decision = decision
        self._prune()
        self._seconds += time.monotonic() - started
        log.info("guard: step %d: %s", step, records.in_words(probe.figures))
        return decision

    def _prune(self) -> None:
        """Keeps the start, the best now, the best when the newest checkpoint was written, and where it stopped."""
        then = [probe for probe in self._history if probe.step <= self._saved]
        keep = {self._history[0].step, self._history[decide(self._history, self._rules).best].step}
        keep |= {then[decide(then, self._rules).best].step} if then else set()
        if self._decision is not None and self._decision.stop:
            keep.add(self._history[-1].step)
        self._store.prune(keep)

    # -- one probe ---------------------------------------------------------------------------------------------------

    def _written(self, *, at_start: bool) -> Written:
        model, each, batch = self._model, self.section.samples, self.section.batch_size
        pad = int(self._tokenizer.pad_token_id)
        prompt_ids = [self._ids[prompt] for prompt in self._of_prompt]
        draws = np.stack([
            sampling.uniforms(self._seed, row // each, row % each, self._max_tokens) for row in range(len(prompt_ids))
        ])  # fmt: skip
        ends = self._ends(model)
        completions = sampling.write(
            model, prompt_ids, draws, temperature=self._temperature, ends=ends, pad=pad, batch_size=batch
        )

        def logps() -> list[list[float]]:
            return sampling.logps(
                model, prompt_ids, completions, temperature=self._temperature, pad=pad, batch_size=batch
            )

        ours = logps()
        starts = ours if at_start else self._as_the_start(logps)
        samples = sampling.as_samples(completions, self._of_prompt, ours, starts, ends=ends, decode=self._decoded)
        columns = {name: [values[at] for at in self._of_prompt] for name, values in self.probes.columns.items()}
        prompts = [self.probes.prompts[at] for at in self._of_prompt]
        return Written(prompts, prompt_ids, completions, samples, columns)

    def _as_the_start(self, of: Any) -> Any:
        """What `of` returns while the model has the starting policy's weights: no second model is held for it."""
        here = {name: weight.detach().to("cpu", copy=True) for name, weight in self._weights.items()}
        try:
            self._store.load_weights(self._history[0].step, self._weights)
            return of()
        finally:
            for name, weight in self._weights.items():
                weight.data.copy_(here[name])

    def _ends(self, model: Any) -> list[int]:
        """Token ids that end a response."""
        told = getattr(model.generation_config, "eos_token_id", None)
        told = [] if told is None else [told] if isinstance(told, int) else list(told)
        return sorted({*told, int(self._tokenizer.eos_token_id)})

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _measured(self, step: int, written: Written) -> Probe:
        texts = [sample.text for sample in written.samples]
        self._starts = self._starts or texts
        self._shown[str(step)] = [text[:_SHOWN_CHARS] for text in texts[:: self.section.samples][:_SHOWN]]
        values: dict[str, Values] = {}
        if self._reward is not None:
            values["reward"] = [None if x is None else float(x) for x in self._reward(written)]
        if self._judge is not None:
            values["win_rate"] = wins(self._judge, written.prompts, self._starts, texts)
        domains = [self.probes.domains[prompt] for prompt in self._of_prompt]
        return Probe(step, measured(written.samples, values, domains, self._refuses), values)

    # -- afterwards --------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Puts the weights that are to be written into the model, in every process."""
        step = processes.from_main(self._kept_step)
        if step is not None:
            self._store.load_weights(step, self._weights)

    def _kept_step(self) -> int | None:
        """None: the weights that the model has."""
        assert self._decision is not None
        if self.section.keep == "best":
            return self._history[self._decision.best].step
        return self._history[-1].step if self._decision.stop else None

    def record(self) -> dict[str, Any]:
        """What training.json says about it."""
        return processes.from_main(self._record)

    def _record(self) -> dict[str, Any]:
        assert self._decision is not None
        facts = {
            **self.section.model_dump(mode="json", exclude={"refusals", "limits"}),
            "n": len(self._ids), "probes_too_long": self._too_long, "every": self._every,
            "max_tokens": self._max_tokens, "temperature": self._temperature, "rewards": self._reward_names,
        }  # fmt: skip
        kept = self._kept_step()
        kept = self._history[-1].step if kept is None else kept
        told = records.told(self._history, self._decision, self._rules, kept, keep_best=self.section.keep == "best")
        examples = records.examples(self._history, self._decision, self.probes.prompts, self._shown)
        return {**facts, **told, "seconds": round(self._seconds, 2), "examples": examples}


class _Watch(TrainerCallback):  # type: ignore[misc]
    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._guard.begin(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._guard.step(state):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._guard.saved(state.global_step)
