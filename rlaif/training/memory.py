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
    output head      TRL's fused head: tiles of logits, and the head's own float32 gradient
    gathered         of shared weights, the two layers that are whole at a time, and the embeddings
    buckets          of DDP, which copies the gradients to send them

The peak is at the end of the forward pass or at the end of the backward pass, since activations go as gradients come:
weights + optimiser + buckets + gathered + max(activations + head, gradients); a sum where gradients are accumulated.

Not counted: the CUDA context and libraries (about 0.5 to 1 GiB), fragmentation, models of more modalities, experts
(counted as if all were used by every token's weights, and activations as of one MLP).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_TILE_TOKENS, _TILE_WORDS = 4096, 32768  # of TRL's fused head
_TILES = 3  # logits, their exponentials and their gradient, float32
MOMENTS = {"adamw": 8, "adamw_8bit": 2, "sgd": 0, "adafactor": 0}  # bytes per float32 weight that is trained


class Shape(NamedTuple):
    """A decoder's sizes. Widths in elements per token; `queries` over all heads."""

    n_parameters: int
    n_trained: int  # those of LoRA's matrices, or all
    n_layers: int
    hidden: int
    mlp: int
    queries: int
    vocabulary: int
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
    one has gradients and moments of its own; its activations are not there at the same time as the policy's.
    """
    others, b = others or {}, setting.weight_bytes
    frozen = b if setting.frozen_bytes is None else setting.frozen_bytes
    found = {"policy": (frozen * (shape.n_parameters - shape.n_trained) + b * shape.n_trained) / setting.shards}
    n_trained = shape.n_trained
    for name, (n_parameters, is_trained) in others.items():
        found[name] = b * n_parameters / setting.shards
        n_trained += n_parameters if is_trained else 0
    found["gradients"] = b * n_trained / setting.shards
    found["optimiser"] = setting.moments * b / 4 * n_trained / setting.shards
    found["activations"] = setting.tokens * _activations(shape, setting)
    tile = min(setting.tokens, _TILE_TOKENS) * min(shape.vocabulary, _TILE_WORDS) * 4 * _TILES
    whole = shape.n_trained == shape.n_parameters
    found["output head"] = tile + (shape.vocabulary * shape.hidden * 4 if whole else 0)
    layer = (shape.n_parameters - shape.n_embedding) / shape.n_layers
    found["gathered"] = b * (2 * layer + shape.n_embedding) if setting.shards > 1 else 0
    found["buckets"] = b * n_trained if setting.ddp else 0
    kept = sum(found.values()) - found["gradients"] - found["activations"] - found["output head"]
    passing, coming = found["activations"] + found["output head"], found["gradients"]
    together = passing + coming if setting.accumulation > 1 else max(passing, coming)
    return {**{name: int(value) for name, value in found.items() if value}, "total": int(kept + together)}


def _activations(shape: Shape, setting: Setting) -> float:
    """Bytes per token."""
    layer = layer_bytes(shape, setting)
    residual = max(2.0, setting.weight_bytes)
    last = 3 * residual * shape.hidden  # the last norm, and what the head reads
    if setting.checkpointing:
        return shape.n_layers * residual * shape.hidden + layer + last
    return shape.n_layers * layer + last


def shape_of(model: str, lora: Mapping[str, Any] | None = None) -> Shape:
    """Of a folder with a config.json, or a hub id: exact counts, of a model that is built without memory.

    Errors: OSError, ValueError (no such config).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(model))
    text = config.get_text_config()
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
        n_parameters = sum(p.numel() for p in built.parameters())
        n_layer = sum(p.numel() for name, p in built.named_parameters() if ".layers." in name or ".h." in name)
        n_trained = n_parameters
        if lora is not None:
            from peft import LoraConfig, get_peft_model

            adapted = get_peft_model(built, LoraConfig(**{"task_type": "CAUSAL_LM", **lora}))
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
        vocabulary=text.vocab_size,
        n_embedding=n_parameters - n_layer,
    )


def has_config(model: str) -> bool:
    """Whether `model` is a folder whose config can be read here."""
    return (Path(model) / "config.json").is_file()
