"""What the engines that hold a model themselves share: the model folder and its identity, and its chat format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlaif.digests import model_sha256
from rlaif.engines.chat import END_THINK, THINK, fold_system, split_thinking
from rlaif.errors import EngineError, RequestFailed, one_line
from rlaif.paths import resolve
from rlaif.records import Message, Reply, Request, TokenLogprob, Usage

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_THINK_TAIL = 12  # tokens that an opening tag and white space after it may take
_SHORT_DIGEST = 32  # hex digits of sha256 that an identity shows


def find_folder(model: str, where: str) -> Path | None:
    """The local folder that `model` names (`shipped:…`, or a path from the working folder), or None for a hub id.

    Errors: EngineError when it is neither, or a folder without config.json.
    """
    folder = resolve(model, Path.cwd())
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise EngineError(f"{where}: {model!r} is no model folder: it has no config.json")
        return folder
    if folder.exists() or model.startswith("shipped:") or not _HUB_ID.fullmatch(model):
        raise EngineError(f"{where}: model {model!r}: no such folder, and it is not a hub id ('owner/name') either")
    return None


def check_folder(folder: Path, where: str) -> None:
    """Errors: EngineError when the weights are not safetensors, or nothing says how to render a chat."""
    if not any(folder.glob("*.safetensors")):
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        found = f"only {pickled[0].name}, which can run code when loaded" if pickled else "none"
        raise EngineError(f"{where}: {str(folder)!r}: weights must be *.safetensors, found {found}")
    if not has_chat_template(folder):
        raise EngineError(
            f"{where}: {str(folder)!r} has no chat template: neither chat_template.jinja nor a chat_template key "
            "in tokenizer_config.json"
        )


def has_chat_template(folder: Path) -> bool:
    return any(folder.glob("chat_template.*")) or bool(
        read_json(folder / "tokenizer_config.json").get("chat_template")
    )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object at `path`, or an empty one where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def context_of(folder: Path | None) -> int | None:
    """Tokens that the model's config allows for prompt and reply together."""
    config = read_json(folder / "config.json") if folder else {}
    text_config = config.get("text_config") if isinstance(config.get("text_config"), dict) else None
    found = (text_config or config).get("max_position_embeddings")
    return found if isinstance(found, int) else None


def model_identity(model: str, folder: Path | None, revision: str | None, changes: Mapping[str, Any]) -> str:
    """What the model is, for keys: the sha256 of a folder's files, or id@revision for a hub id.

    `changes`: whatever else changes a reply (dtype, quantisation, adapter's sha256, …); empty values are left out.
    """
    base = f"sha256:{model_sha256(folder)[:_SHORT_DIGEST]}" if folder else f"{model}@{revision or 'main'}"
    kept = {key: value for key, value in changes.items() if value not in (None, "", {}, [])}
    return base + (" " + json.dumps(kept, sort_keys=True, default=str) if kept else "")


def adapter_identity(adapter: str | None, where: str) -> tuple[Path | None, str | None]:
    """The folder of a PEFT adapter and its sha256. Errors: EngineError."""
    if adapter is None:
        return None, None
    folder = resolve(adapter, Path.cwd())
    if not (folder / "adapter_config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise EngineError(
            f"{where}: adapter {adapter!r}: expected a folder with adapter_config.json and *.safetensors"
        )
    return folder, model_sha256(folder)[:_SHORT_DIGEST]


def load_tokenizer(
    model: str, folder: Path | None, revision: str | None, where: str, *, offline: bool = False
) -> Any:
    """A Hugging Face tokenizer. `offline`: look for a hub id in the local cache only. Errors: EngineError."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise EngineError(f"{where}: needs the train extra (pip install 'rlaif[train]'): {error}") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder or model),
            revision=None if folder else revision,
            trust_remote_code=False,
            local_files_only=offline or folder is not None,
        )
    except Exception as error:  # transformers lets errors of every file format through
        raise EngineError(f"{where}: cannot load the tokenizer of {model!r}: {one_line(error)}") from None
    # Prompts that are too long are refused one by one; its own warning speaks of indexing errors to come.
    getattr(tokenizer, "deprecation_warnings", {})["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def reject_unknown_extra(request: Request, allowed: Sequence[str], where: str) -> None:
    """Errors: EngineError. A sampling parameter that is silently ignored would change what a run means."""
    unknown = sorted(set(request.extra) - set(allowed))
    if unknown:
        raise EngineError(f"{where}: extra has unknown {', '.join(unknown)}; allowed: {', '.join(allowed)}")


class ChatFormat:
    """A tokenizer as the engines use it: messages to token ids, label variants, thinking apart."""

    def __init__(self, tokenizer: Any, where: str) -> None:
        self.tokenizer = tokenizer
        template = getattr(tokenizer, "chat_template", None)
        if not template:
            raise EngineError(f"{where}: the tokenizer has no chat template")
        self._thinks = THINK in str(template)
        self._folds_system = not self._takes_system()
        self._token_texts: dict[int, str] = {}
        self._by_label: dict[str, list[int]] | None = None

    def encode(self, request: Request) -> list[int]:
        """Prompt token ids. A conversation that ends with an assistant turn is continued, not answered.

        Errors: RequestFailed("bad_messages") when the model's template refuses the conversation.
        """
        return self.encode_messages(request.messages, request.extra.get("chat_template_kwargs") or {})

    def encode_messages(self, messages: list[Message], template_kwargs: Mapping[str, Any]) -> list[int]:
        turns = fold_system(messages) if self._folds_system else messages
        try:
            return self._render(turns, template_kwargs)
        except Exception as error:  # a template can raise anything that its expressions raise
            raise RequestFailed(
                "bad_messages", f"the model's chat template refuses this conversation: {one_line(error)}"
            ) from None

    def _render(self, messages: list[Message], template_kwargs: Mapping[str, Any]) -> list[int]:
        continued = bool(messages) and messages[-1]["role"] == "assistant"
        ids: list[int] = self.tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=not continued,
            continue_final_message=continued,
            tokenize=True,
            return_dict=False,
            **template_kwargs,
        )
        return ids

    def _takes_system(self) -> bool:
        """Some templates raise on a system message, others drop it without a word."""
        probe = [{"role": "system", "content": "Zebra 47"}, {"role": "user", "content": "Hi"}]
        try:
            return "Zebra 47" in self.tokenizer.apply_chat_template(probe, tokenize=False, add_generation_prompt=True)
        except Exception:  # the refusal itself: templates raise jinja errors of their own making
            return False

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """Whether the template itself has opened the thinking, so that the reply only closes it."""
        if not self._thinks:
            return False
        return str(self.tokenizer.decode(list(prompt_ids[-_THINK_TAIL:]))).rstrip().endswith(THINK)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def token_text(self, token_id: int) -> str:
        """The token's own text; a sentencepiece word start keeps its space, so that "A" and " A" stay two tokens."""
        text = self._token_texts.get(token_id)
        if text is None:
            text = str(self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False))
            piece = self.tokenizer.convert_ids_to_tokens(token_id)
            if isinstance(piece, str) and piece.startswith("▁") and not text.startswith(" "):
                text = " " + text
            self._token_texts[token_id] = text
        return text

    def top(self, logprobs: Mapping[int, float]) -> list[tuple[str, float]]:
        """(text, log-prob), best first. Two tokens with one text become one entry, so that no reader loses mass."""
        by_text: dict[str, float] = {}
        for token_id, logprob in logprobs.items():
            text = self.token_text(token_id)
            by_text[text] = float(np.logaddexp(by_text[text], logprob)) if text in by_text else logprob
        return sorted(by_text.items(), key=lambda item: -item[1])

    def label_ids(self, label: str) -> list[int]:
        """Every single token that reads as the label once white space is stripped; empty if it needs several."""
        if self._by_label is None:
            self._by_label = {}
            for token_id in range(len(self.tokenizer)):
                text = self.token_text(token_id).strip()
                if text:
                    self._by_label.setdefault(text, []).append(token_id)
        return self._by_label.get(label.strip(), [])

    def thinking_tokens(self, ids: Sequence[int], opened: bool) -> int:
        """How many of the reply's first tokens are thinking, the closing tag included."""
        text = self.decode(ids)
        if not opened and not text.lstrip().startswith(THINK):
            return 0
        if END_THINK not in text:
            return len(ids)
        low, high = 0, len(ids)
        while low < high:  # the shortest prefix that holds the closing tag
            middle = (low + high) // 2
            low, high = (low, middle) if END_THINK in self.decode(ids[:middle]) else (middle + 1, high)
        return low


def build_reply(
    chat: ChatFormat,
    request: Request,
    *,
    model: str,
    prompt_ids: Sequence[int],
    reply_ids: Sequence[int],
    text: str,
    finish_reason: str,
    logprobs: list[TokenLogprob] | None,
    cached_tokens: int = 0,
) -> Reply:
    """A Reply with the thinking, and its log-probs, apart; cut before the first stop string."""
    opened = chat.opens_thinking(prompt_ids)
    thinking, text = split_thinking(text, opened)
    if logprobs is not None and thinking is not None:
        logprobs = logprobs[chat.thinking_tokens(reply_ids, opened) :]
    return Reply(
        text=text[: min([len(text), *(at for at in map(text.find, request.stop) if at >= 0)])],
        thinking=thinking,
        finish_reason=finish_reason,
        logprobs=logprobs,
        usage=Usage(prompt_tokens=len(prompt_ids), completion_tokens=len(reply_ids), cached_tokens=cached_tokens),
        model=model,
    )


def check_length(n_prompt: int, max_tokens: int, context: int | None) -> None:
    """Errors: RequestFailed("prompt_too_long"). A prompt is never cut."""
    if context is not None and n_prompt + max_tokens > context:
        raise RequestFailed(
            "prompt_too_long",
            f"{n_prompt} prompt tokens + {max_tokens} for the reply > context of {context} tokens",
        )
