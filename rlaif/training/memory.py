"""What a training needs of memory, from a model's config.json and the training's settings: no weights, no device.

Bytes on one device, at the peak of a step after the first. What is counted, with P parameters of which T are trained,
b bytes of a weight, N processes that share (FSDP, ZeRO-3; else 1):

    weights          b·P / N, of each role: the policy; a frozen reference, reward model; …
    gradients        b·T / N
    optimiser        2·b·T / N for AdamW's two moments (Rajbhandari et al. 2020, ZeRO, 1910.02054, §3.1; its 12 bytes
                     are these two and a float32 copy of 16-bit weights: here the weights themselves are float32)
    activations      what a layer saves for its backward pass, per token (after Korthikanti et al. 2022, 2205.05198,
                     §4, counted anew for RMSNorm, rotary embeddings, grouped keys and a gated MLP); with gradient
                     checkpointing each layer's input, and one layer whole
    output head      TRL's fused head (trl/kernels/chunked_logprob.py): a tile of logits with what its gradient is
                     made of, and the float32 gradients of the head and of what it reads; none in a reward model
    gathered         of shared weights, the two layers that are whole at a time, and the embeddings
    buckets          of DDP, which copies the gradients to send them

The peak is at the end of the forward pass or at the end of the backward pass, since activations go as gradients come:
weights + optimiser + buckets + gathered + max(activations + head, gradients); a sum where gradients are accumulated.

Not counted: the CUDA context and libraries (about 0.5 to 1 GiB), fragmentation, the cache of keys and values while
PPO generates, models of more modalities, experts (counted as if all were used by every token's weights, and
activations as of one MLP).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_TILE_TOKENS, _TILE_WORDS = 4096, 32768  # of TRL's fused head: TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE
# Without Triton a tile's gradient is made of whole tensors (`_backward_tile`). At the peak, beside the logits: y, z,
# log_p, p, grad, and of `grad_logprobs * (is_target - p)` the difference and the product, float32; is_target, bool.
_TILE_TEMPORARIES = 7 * 4 + 1
MOMENTS = {"adamw": 8, "adamw_8bit": 2, "sgd": 0, "adafactor": 0}  # bytes per float32 weight that is trained


class Shape(NamedTuple):
    """A decoder's sizes. Widths in elements per token; `queries` over all heads."""

    n_parameters: int
    n_trained: int  # those of LoRA's matrices, or all
    n_layers: int
    hidden: int
    mlp: int
    queries: int
    vocabulary: int  # 0: no logits, a reward model
    n_embedding: int  # parameters outside the layers


class Setting(NamedTuple):
    """tokens: of a batch on one device, padded (rows × sequences of a row × length). weight_bytes: 4 for float32.
    compute_bytes: 2 under bf16. moments: bytes of optimiser state per float32 weight, `MOMENTS`."""

    tokens: int
    weight_bytes: float = 4
    frozen_bytes: float | None = None  # of weights that are not trained; 0.5 for QLoRA; default: as the others
    compute_bytes: int = 4
    moments: int = 8
    checkpointing: bool = False
    accumulation: int = 1
    shards: int = 1
    ddp: bool = False
    triton: bool = False  # whether TRL's fused head runs as one kernel: on a GPU


def layer_bytes(shape: Shape, setting: Setting) -> int:
    """Saved by one layer per token. Elements:

    two norms: input, normalised and scaled, of which the last two only where weights of the layer are trained (of
    LoRA, the last); attention: rotated queries, keys, values and output, keys and values repeated for each query
    head; gated MLP: gate, its activation, up, and their product.
    """
    compute, residual = setting.compute_bytes, setting.weight_bytes if setting.weight_bytes >= 2 else 2
    lora = shape.n_trained < shape.n_parameters
    norm = (2 if lora else 3) * residual
    if compute < residual:
        norm += compute  # autocast's copy, which the projections save
    elif residual == 2:
        norm += 2  # the norm computes in float32 whatever the weights are
    attention = 4 * shape.queries * compute
    return int(2 * norm * shape.hidden + attention + 4 * shape.mlp * compute)


def memory(shape: Shape, setting: Setting, others: Mapping[str, tuple[int, bool]] | None = None) -> dict[str, int]:
    """Bytes by what they are for, and "total". The module says what they are.

    others: models beside the policy: name → (parameters, whether it is trained): reference, reward, value. A trained
    one has gradients, moments and activations of its own (of PPO, both models' are there until the one backward
    pass), the last as many as the policy's, by its size.
    """
    others, b = others or {}, setting.weight_bytes
    frozen = b if setting.frozen_bytes is None else setting.frozen_bytes
    found = {"policy": (frozen * (shape.n_parameters - shape.n_trained) + b * shape.n_trained) / setting.shards}
    n_trained, passed = shape.n_trained, 1.0
    for name, (n_parameters, is_trained) in others.items():
        found[name] = b * n_parameters / setting.shards
        n_trained += n_parameters if is_trained else 0
        passed += n_parameters / shape.n_parameters if is_trained else 0
    found["gradients"] = b * n_trained / setting.shards
    found["optimiser"] = setting.moments * b / 4 * n_trained / setting.shards
    found["activations"] = passed * setting.tokens * _activations(shape, setting)
    found["output head"] = _head(shape, setting)
    layer = (shape.n_parameters - shape.n_embedding) / shape.n_layers
    found["gathered"] = b * (2 * layer + shape.n_embedding) if setting.shards > 1 else 0
    found["buckets"] = b * n_trained if setting.ddp else 0
    kept = sum(found.values()) - found["gradients"] - found["activations"] - found["output head"]
    passing, coming = found["activations"] + found["output head"], found["gradients"]
    together = passing + coming if setting.accumulation > 1 else max(passing, coming)
    return {**{name: int(value) for name, value in found.items() if value}, "total": int(kept + together)}


def _head(shape: Shape, setting: Setting) -> float:
    """Bytes of TRL's fused head in its backward pass, which makes the logits again."""
    if not shape.vocabulary:
        return 0
    n_tokens, n_words = min(setting.tokens, _TILE_TOKENS), min(shape.vocabulary, _TILE_WORDS)
    if setting.triton:  # the gradient replaces the logits; the tile is that wide whatever the vocabulary
        tile = n_tokens * _TILE_WORDS * setting.compute_bytes
    else:
        tile = n_tokens * n_words * (setting.compute_bytes + _TILE_TEMPORARIES)
    gradients = setting.tokens * shape.hidden * 4
    if shape.n_trained == shape.n_parameters:
        gradients += shape.vocabulary * shape.hidden * 4
    cast = n_words * shape.hidden * setting.compute_bytes if setting.compute_bytes != setting.weight_bytes else 0
    return tile + gradients + cast


def _activations(shape: Shape, setting: Setting) -> float:
    """Bytes per token."""
    layer = layer_bytes(shape, setting)
    residual = max(2.0, setting.weight_bytes)
    last = 3 * residual * shape.hidden  # the last norm, and what the head reads
    if setting.checkpointing:
        return shape.n_layers * residual * shape.hidden + layer + last
    return shape.n_layers * layer + last


def shape_of(model: str, lora: Mapping[str, Any] | None = None, *, classifier: bool = False) -> Shape:
    """Of a folder with a config.json, or a hub id: exact counts, of a model that is built without memory.

    classifier: as the reward or value model that is made of it: one score in place of the vocabulary.
    Errors: OSError, ValueError (no such config).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(str(model))
    text = config.get_text_config()
    auto, task = (
        (AutoModelForSequenceClassification, "SEQ_CLS") if classifier else (AutoModelForCausalLM, "CAUSAL_LM")
    )
    if classifier:
        config.num_labels = 1
    with torch.device("meta"):
        built = auto.from_config(config)
        n_parameters = sum(p.numel() for p in built.parameters())
        n_layer = sum(p.numel() for name, p in built.named_parameters() if ".layers." in name or ".h." in name)
        n_trained = n_parameters
        if lora is not None:
            from peft import LoraConfig, get_peft_model

            adapted = get_peft_model(built, LoraConfig(**{"task_type": task, **lora}))
            n_trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
            n_parameters = sum(p.numel() for p in adapted.parameters())
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        n_parameters=n_parameters,
        n_trained=n_trained,
        n_layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        mlp=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        queries=head * text.num_attention_heads,
        vocabulary=0 if classifier else text.vocab_size,
        n_embedding=n_parameters - n_layer,
    )


def has_config(model: str) -> bool:
    """Whether `model` is a folder whose config can be read here."""
    return (Path(model) / "config.json").is_file()
