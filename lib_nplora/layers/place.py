"""Where in a model a layer stands, and what it does there, by its canonical name."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BLOCKS = (
    (r"lora_te(\d+)_|lora_te_", "text"),
    (r"down_blocks_(\d+)_", "down"),
    (r"mid_block_", "mid"),
    (r"up_blocks_(\d+)_", "up"),
    (r"(?<!single_)transformer_blocks_(\d+)_", "double"),
    (r"single_transformer_blocks_(\d+)_", "single"),
    (r"", "other"),
)
"""What a name holds -> its block, with the block's number; the first that fits, in the order of the model."""

_KINDS = (
    (r"self_attn_q_proj|(attn|attn1)_to_q", "self q"),
    (r"self_attn_k_proj|(attn|attn1)_to_k", "self k"),
    (r"self_attn_v_proj|(attn|attn1)_to_v", "self v"),
    (r"add_qkv", "text qkv"),
    (r"qkv", "self qkv"),
    (r"self_attn_out_proj|(attn|attn1)_to_out", "self out"),
    (r"attn2_to_q", "cross q"),
    (r"attn2_to_k", "cross k"),
    (r"attn2_to_v", "cross v"),
    (r"attn2_to_out", "cross out"),
    (r"to_add_out", "text out"),
    (r"(^|_)ff_|_mlp_", "feed-forward"),
    (r"time_emb|time_text", "time"),
    (r"proj_(in|out)", "projection"),
    (r"conv|samplers", "convolution"),
    (r"", "other"),
)
"""What a name holds -> its kind, the first that fits."""


def block_of(name: str) -> str:
    """`text 1`, `down 1`, `mid`, `up 2`, `double 4`, `single 17`; `other` for the model's ends and what is unknown."""
    match, label = _first(_BLOCKS, name)
    number = match[1] if match.re.groups else None
    return f"{label} {number}" if number else label


def kind_of(name: str) -> str:
    """`self q`, `cross out`, `feed-forward`, `convolution`, ...; `other` for what is unknown."""
    return _first(_KINDS, name)[1]


def in_model_order(blocks: Iterable[str]) -> list[str]:
    """Text encoders first, then the diffusion model from its input on."""
    order = [label for _, label in _BLOCKS]

    def place(block: str) -> tuple[int, int]:
        label, _, number = block.partition(" ")
        return order.index(label), int(number or 0)

    return sorted(blocks, key=place)


def in_usual_order(kinds: Iterable[str]) -> list[str]:
    """Attention first."""
    order = [label for _, label in _KINDS]
    return sorted(kinds, key=order.index)


def _first(table: tuple[tuple[str, str], ...], name: str) -> tuple[re.Match[str], str]:
    return next((match, label) for pattern, label in table if (match := re.search(pattern, name)))
