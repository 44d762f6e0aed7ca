"""A Hugging Face causal LM in this process: micro-batches by length, exact label log-probs, one seed per request."""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import os
from pathlib import Path
from typing import Any

import msgspec

from rlaif.engines import local
from rlaif.engines.base import Capabilities
from rlaif.engines.batching import MicroBatcher
from rlaif.engines.transformers_batch import Row, State, families_of, pick_tokens, read_logprobs, stops
from rlaif.errors import EngineError, RequestFailed, one_line
from rlaif.records import Message, Reply, Request

_WHERE = "engine transformers"
_EXTRA = ("chat_template_kwargs",)
_KEEP_SHARE = 0.75  # finished rows leave the batch once fewer than this share of its rows is alive


class TransformersEngine:
    """`model`: a folder, `shipped:…`, or a hub id (with `revision`). Weights must be safetensors; code is never run.

    `dtype: auto` is the checkpoint's own, but float32 on a CPU, where half precision is slower.
    `batch_tokens` bounds rows × (longest prompt + longest reply) of a batch, `max_batch` its rows.
    `quantization` holds the arguments of `transformers.BitsAndBytesConfig`; with a `method` key, those of that
    class of transformers instead (`{"method": "TorchAoConfig", …}`). `adapter`: a PEFT folder. `threads`: CPU
    threads of torch, for the whole process. Other keyword arguments go to `from_pretrained` as they are.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        device_map: str | dict[str, Any] | None = None,
        quantization: dict[str, Any] | None = None,
        adapter: str | None = None,
        batch_tokens: int = 16384,
        max_batch: int = 128,
        context_tokens: int | None = None,
        attn_implementation: str | None = None,
        threads: int | None = None,
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self._folder = local.find_folder(model, _WHERE)
        if self._folder:
            local.check_folder(self._folder, _WHERE)
        self._adapter, adapter_sha256 = local.adapter_identity(adapter, _WHERE)
        self._revision, self._dtype, self._device, self._device_map = revision, dtype, device, device_map
        self._quantization, self._attention = quantization, attn_implementation
        self._batch_tokens, self._max_batch, self._threads = batch_tokens, max_batch, threads
        self._model_kwargs = model_kwargs or {}
        self.identity = local.model_identity(
            model,
            self._folder,
            revision,
            {
                "dtype": dtype if dtype != "auto" else "",
                "quantization": quantization,
                "adapter": adapter_sha256,
                "model_kwargs": model_kwargs,
            },
        )
        self.capabilities = Capabilities(
            logprobs=True,
            exact_labels=True,
            context_tokens=context_tokens or local.context_of(self._folder),
            concurrency=4 * max_batch,
        )
        self._chat: local.ChatFormat | None = None
        self._lm: Any = None
        self._batcher: MicroBatcher[Row] = MicroBatcher(self._plan, self._run)

    async def start(self) -> None:
        await asyncio.to_thread(self._load)

    async def complete(self, request: Request, seed: int) -> Reply:
        if self._chat is None or self._lm is None:
            raise EngineError(f"{_WHERE}: not started")
        if request.json_schema is not None:
            raise EngineError(f"{_WHERE}: cannot hold a reply to a JSON schema; the vllm and openai engines can")
        local.reject_unknown_extra(request, _EXTRA, _WHERE)
        ids = self._chat.encode(request)
        local.check_length(len(ids), request.max_tokens, self.capabilities.context_tokens)
        row = Row(request, ids, seed, {i for label in request.labels for i in self._chat.label_ids(label)})
        await self._batcher.submit(row)
        return self._reply(row)

    def count_tokens(self, messages: list[Message]) -> int | None:
        if self._chat is None:
            try:
                self._load_chat(offline=True)
            except EngineError:
                return None
        assert self._chat is not None
        return len(self._chat.encode_messages(messages, {}))

    async def close(self) -> None:
        await self._batcher.close()
        self._lm = None
        gc.collect()
        try:
            import torch
        except ImportError:
            return
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # Loading

    def _load_chat(self, offline: bool = False) -> None:
        if self._chat is None:
            tokenizer = local.load_tokenizer(self.model, self._folder, self._revision, _WHERE, offline=offline)
            self._chat = local.ChatFormat(tokenizer, _WHERE)

    def _load(self) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve each other on shared cores
        try:
            import torch
            import transformers
        except ImportError as error:
            raise EngineError(f"{_WHERE}: needs the train extra (pip install 'rlaif[train]'): {error}") from None
        transformers.utils.logging.disable_progress_bar()
        if self._threads:
            torch.set_num_threads(self._threads)
        self._load_chat()
        try:
            lm = transformers.AutoModelForCausalLM.from_pretrained(
                str(self._folder or self.model), **self._arguments()
            )
            if self._adapter:
                lm = _with_adapter(lm, self._adapter)
            if self._device_map is None and self._quantization is None:
                lm = lm.to(self._torch_device())
        except Exception as error:  # transformers, torch and accelerate raise errors of every kind here
            raise EngineError(f"{_WHERE}: cannot load {self.model!r}: {one_line(error)}") from None
        self._lm = lm.eval().requires_grad_(False)
        self._takes = set(inspect.signature(_base(lm).forward).parameters)
        self._eos = _eos_ids(lm, self._chat.tokenizer) if self._chat else set()
        if self.capabilities.context_tokens is None:
            context = getattr(lm.config.get_text_config(), "max_position_embeddings", None)
            self.capabilities = msgspec.structs.replace(self.capabilities, context_tokens=context)

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "dtype": "float32" if self._dtype == "auto" and self._on_cpu() else self._dtype,
            "use_safetensors": True,
            "trust_remote_code": False,
            "revision": None if self._folder else self._revision,
            "device_map": self._device_map,
            "attn_implementation": self._attention,
        }
        if self._quantization:
            import transformers

            options = dict(self._quantization)
            config = getattr(transformers, options.pop("method", "BitsAndBytesConfig"))
            arguments["quantization_config"] = config(**options)
        return {k: v for k, v in arguments.items() if v is not None} | self._model_kwargs

    def _on_cpu(self) -> bool:
        """Where half precision saves memory but costs speed: `dtype: auto` means float32 there."""
        return self._device_map is None and self._quantization is None and self._torch_device() == "cpu"

    def _torch_device(self) -> str:
        import torch

        if self._device != "auto":
            return self._device
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"

    # Batches (worker thread)

    def _plan(self, rows: list[Row]) -> list[list[Row]]:
        """Batches of one kind, of similar length, within the budget; prompts that begin alike stay together.

        A kind's rows share one way of sampling.
        """
        batches: list[list[Row]] = []
        families = families_of(sorted(rows, key=lambda row: (row.kind, row.ids)))
        for family in sorted(families, key=lambda f: (f.rows[0].kind, max(len(row.ids) for row in f.rows))):
            for row in family.rows:
                batch = batches[-1] if batches else []
                longest = max(len(r.ids) + r.request.max_tokens for r in [*batch, row])
                fits = len(batch) < self._max_batch and (len(batch) + 1) * longest <= self._batch_tokens
                if batch and batch[0].kind == row.kind and fits:
                    batch.append(row)
                else:
                    batches.append([row])
        return batches

    def _run(self, rows: list[Row], halved: bool = False) -> list[Any]:
        import torch

        try:
            with torch.inference_mode():
                self._decode(rows)
        except torch.OutOfMemoryError:
            if halved or len(rows) == 1:
                n_tokens = sum(len(row.ids) for row in rows)
                raise EngineError(
                    f"{_WHERE}: out of memory with {len(rows)} prompts of {n_tokens} tokens in all; "
                    f"lower batch_tokens (now {self._batch_tokens})"
                ) from None
            torch.cuda.empty_cache()
            for row in rows:
                row.reset()
            half = len(rows) // 2
            return self._run(rows[:half], True) + self._run(rows[half:], True)
        except Exception as error:
            raise RequestFailed("engine_failure", f"{type(error).__name__}: {one_line(error)}") from error
        return rows

    def _decode(self, rows: list[Row]) -> None:
        """Fill `row.out`, `row.logprobs` and `row.finish_reason` of rows of one kind."""
        import torch

        logits, state = self._prefill(rows)
        alive, step = list(range(len(rows))), 0  # alive[i]: the row that tensor row i belongs to
        while True:
            batch = [rows[i] for i in alive]
            tokens = pick_tokens(logits, batch, step)
            self._note(logits, tokens, batch)
            if all(row.finish_reason for row in batch):
                return
            if sum(not row.finish_reason for row in batch) < _KEEP_SHARE * len(batch):
                keep = [i for i, row in enumerate(batch) if not row.finish_reason]
                alive = [alive[i] for i in keep]
                state.select(torch.tensor(keep, device=self._lm.device))
                batch = [batch[i] for i in keep]
            # Rows that are done but not yet dropped go on with their last token; what they draw is thrown away.
            logits = self._forward([row.out[-1:] for row in batch], state)
            step += 1

    def _prefill(self, rows: list[Row]) -> tuple[Any, State]:
        """Next-token logits (B, V) after the prompts. What several of them begin with goes through the model once."""
        import torch

        families = families_of(rows)
        if len(families) == len(rows) or not all(family.shared for family in families):
            state = State(self._lm.device, cached=any(row.request.max_tokens > 1 for row in rows))
            return self._forward([row.ids for row in rows], state), state
        state = State(self._lm.device, cached=True)
        self._forward([family.rows[0].ids[: family.shared] for family in families], state)
        index = [i for i, family in enumerate(families) for _ in family.rows]
        state.select(torch.tensor(index, device=self._lm.device))
        tails = [row.ids[family.shared :] for family in families for row in family.rows]  # in the order of `rows`
        return self._forward(tails, state), state

    def _forward(self, blocks: list[list[int]], state: State) -> Any:
        """Next-token logits (B, V) in float32 after another block of tokens per row, padded on the left."""
        ids = state.extend(blocks)
        arguments = {"input_ids": ids, "attention_mask": state.mask, "use_cache": state.cached}
        if state.cache is not None:
            arguments["past_key_values"] = state.cache
        if "position_ids" in self._takes:
            arguments["position_ids"] = state.positions(ids.shape[1])
        if "logits_to_keep" in self._takes:
            arguments["logits_to_keep"] = 1
        output = self._lm(**arguments)
        state.cache = output.past_key_values if state.cached else None
        return output.logits[:, -1, :].float()

    def _note(self, logits: Any, tokens: Any, batch: list[Row]) -> None:
        """Append each living row's token and, where asked, its log-probs; see who is done."""
        assert self._chat is not None
        notes = read_logprobs(logits, tokens, batch, self._chat) if batch[0].wants_logprobs else [None] * len(batch)
        for row, token, note in zip(batch, tokens.tolist(), notes, strict=True):
            if row.finish_reason:
                continue
            row.out.append(token)
            if note is not None:
                row.logprobs.append(note)
            if token in self._eos or (row.request.stop and stops(self._chat, row)):
                row.finish_reason = "stop"
            elif len(row.out) >= row.request.max_tokens:
                row.finish_reason = "length"

    def _reply(self, row: Row) -> Reply:
        assert self._chat is not None
        ended = bool(row.out) and row.out[-1] in self._eos
        return local.build_reply(
            self._chat,
            row.request,
            model=self.model,
            prompt_ids=row.ids,
            reply_ids=row.out,
            text=self._chat.decode(row.out[: len(row.out) - ended]),
            finish_reason=row.finish_reason,
            logprobs=row.logprobs if row.wants_logprobs else None,
        )


def _base(lm: Any) -> Any:
    """The model under a PEFT wrapper: its forward names the arguments it takes."""
    return lm.get_base_model() if hasattr(lm, "get_base_model") else lm


def _with_adapter(lm: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise EngineError(f"{_WHERE}: adapter needs the peft extra (pip install 'rlaif[peft]')") from None
    return PeftModel.from_pretrained(lm, str(adapter))


def _eos_ids(lm: Any, tokenizer: Any) -> set[int]:
    """Every id that ends a turn: the generation config's, the config's and the tokenizer's."""
    ids: set[int] = set()
    for source in (lm.generation_config, lm.config.get_text_config(), tokenizer):
        value = getattr(source, "eos_token_id", None)
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    return {i for i in ids if not math.isnan(i)}
