"""Where in a model a layer stands, and what it does there: the one place where names of layers are read.

Names are those of diffusers, of the original Stable Diffusion code (LDM, sgm), of Black Forest Labs and Stability AI,
of transformers and OpenCLIP, with dots or underscores, and with whatever a host or a file puts before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from .block import UNKNOWN, Block

Part = Literal["unet", "te"]
"""The diffusion model, or a text encoder."""

_ENCODERS = (
    (r"t5xxl_|(?:^|_)block_\d+_layer_\d|(?<!text_)encoder_(?:final_layer_norm|embed_tokens)$|(?:^|_)shared$", 3),
    (r"(?:^|_)(?:te|text_encoder_)3_", 3),
    (r"(?:^|_)(?:te|text_encoder_)2_|clip_g_|(?:^|_)\d_model_", 2),
    (r"", 1),
)
"""What a name in a text encoder holds -> the encoder's number, the first that fits."""

_COMING_IN = r"(?:img|txt|time|vector|guidance)_(?:in|emb|projection)(?:_|$)"

_BLOCKS: tuple[tuple[str, Callable[..., Block]], ...] = (
    (r"input_blocks_(\d{1,4})_\d_?", lambda number: Block("in", number)),
    (r"middle_block_\d_|mid_block_(?:resnets|attentions)_\d_", lambda: Block("mid")),
    (r"output_blocks_(\d{1,4})_\d_", lambda number: Block("out", number)),
    (r"down_blocks_(\d{1,4})_(?:resnets|attentions)_(\d)_", lambda block, layer: Block("in", 3 * block + layer + 1)),
    (r"down_blocks_(\d{1,4})_downsamplers_0_", lambda block: Block("in", 3 * block + 3)),
    (r"up_blocks_(\d{1,4})_(?:resnets|attentions)_(\d)_", lambda block, layer: Block("out", 3 * block + layer)),
    (r"up_blocks_(\d{1,4})_upsamplers_0_", lambda block: Block("out", 3 * block + 2)),
    (r"(?:^|_)conv_in$", lambda: Block("in", 0)),
    (r"single_(?:transformer_)?blocks_(\d{1,4})_", lambda number: Block("single", number)),
    (r"(?:double|joint|transformer)_blocks_(\d{1,4})_", lambda number: Block("double", number)),
    (r"(?:^|unet_|model_)(?:layers|blocks)_(\d{1,4})_", lambda number: Block("single", number)),
    (rf"embed|label_emb|txt_norm$|{_COMING_IN}|refiner|guidance|stream_modulation", lambda: Block("in")),
    (
        r"txt_?fusion|text_fusion|llm_adapter|(?:txt|t)mlp_\d$|tproj_\d$|text_proj$|(?:^|unet_|model_)first$",
        lambda: Block("in"),
    ),
    (r"(?:^|unet_|model_)adaln_modulation_1$", lambda: Block("in")),
    (
        r"conv_norm_out$|conv_out$|(?:^|_)out_[02]$|final_|norm_out_|(?:^|_)head_|(?:^|_)proj_out$|(?:^|_)last_linear$",
        lambda: Block("out"),
    ),
    (r"", lambda: Block(UNKNOWN)),
)
"""What a name in a diffusion model holds -> its block, by the numbers in the name; the first that fits.

A UNet's blocks are counted as in the original code, which has three for each of diffusers' (in SD 1, SD 2 and SDXL).
"""

_OF_A_TRANSFORMER = r"norm|proj_in|proj_out|transformer_blocks_.+"
"""A layer's name within a block of a UNet, if it is in the block's transformer and not in a resnet or a sampler."""

_KINDS = (
    (r"(?:norm|ln)_(?:added_)?[qk]$|(?:query|key|[qk])_norm(?:_|$)", "attention norm"),
    (r"(?:txt|context_block)_attn_(qkv|proj)$|attn_(?:to_)?add_(qkv|q|k|v|out)(?:_proj)?$", "text {}"),
    (r"(?:attn2|cross_attn)_(?:to_|w)?(q|k|v|output|out|o)(?:_proj|_0)?$", "cross {}"),
    (r"(?:attn1?|attention)_(?:to_|w)?(qkv|q|k|v|in_proj|output|out|o|proj)(?:_proj|_0)?$", "self {}"),
    (r"(?:^|_)linear1$|qkv_mlp$", "self qkv"),
    (
        r"time_embed|time_emb_proj|emb_layers|time_in_|time_proj|timestep|(?:^|_)t_embed|(?:^|_)t(?:mlp|proj)_\d$",
        "time",
    ),
    (rf"embed|label_emb|{_COMING_IN}|relative_attention_bias|(?:^|_)(?:shared|first)$|txtmlp_\d$", "embedding"),
    (r"_mod_|modulation|norm\d?(?:_context|_out)?_linear$|guidance", "modulation"),
    (r"norm|(?:^|_)ln(?:_|$)|(?:in|out)_layers_0$|(?:^|_)out_0$", "norm"),
    (r"(?:^|_)ff_|_mlp(?:_|$)|ffn_|feed_?forward|densereludense", "feed-forward"),
    (r"proj_(?:in|out)$|text_projection|(?:final|head|last)_(?:layer_)?(?:linear|head)|(?:^|_)linear2$", "projection"),
    (r"conv|in_layers_2$|out_layers_3$|skip_connection$|_op$|(?:^|_)out_2$|input_blocks_0_0$", "convolution"),
    (r"(?:attn\d?|attention)(?:_|$)", "attention"),
    (r"", UNKNOWN),
)
"""What a name holds -> its kind, the first that fits; a group's text goes into the kind's braces."""

_ROLES = {"in_proj": "qkv", "proj": "out", "o": "out", "output": "out"}
"""Other words for what a layer is to an attention."""

KINDS = (
    *(f"{of} {role}" for of in ("self", "text", "cross") for role in ("q", "k", "v", "qkv", "out")),
    *("attention", "attention norm", "feed-forward", "projection", "convolution"),
    *("modulation", "norm", "time", "embedding", UNKNOWN),
)
"""In their usual order. `text` is the attention of the text in a transformer that keeps text and picture apart."""


@dataclass(frozen=True)
class Place:
    """Where a layer stands, and what it does.

    block
        `te1`, `in4`, `double7`; `in` and `out` without a number for the ends of a diffusion model. Label UNKNOWN for
        names that no known model has.
    kind
        One of KINDS.
    in_transformer
        Whether the layer is in a transformer of the diffusion model, not in a resnet, a sampler or at an end.
    """

    block: Block
    kind: str
    in_transformer: bool = False

    @property
    def is_attention(self) -> bool:
        """Whether the layer holds an attention's q, k or v, their norms or its output.

        Flux's linear1 does, beside the first half of an MLP.
        """
        return self.kind.startswith(("self ", "text ", "cross ", "attention"))


@lru_cache(maxsize=1 << 14)
def place_of(name: str, part: Part) -> Place:
    """The place of the layer that any host or file calls `name`, with or without `.weight` or `.bias` at its end."""
    flat = re.sub(r"\.(?:weight|bias|scale)$|processor[._]", "", name.lower()).replace(".", "_")
    if part == "te":
        _, number = _first(_ENCODERS, flat)
        return Place(Block("te", number), _kind(flat))
    match, block_of = _first(_BLOCKS, flat)
    block = block_of(*map(int, match.groups()))
    if block.label in ("double", "single"):
        # Stable Diffusion 3.5's attn2 is a second self-attention; a UNet's looks at the text.
        return Place(block, _kind(flat.replace("attn2", "attn")), in_transformer=True)
    return Place(block, _kind(flat), bool(re.fullmatch(_OF_A_TRANSFORMER, flat[match.end() :])))


def _kind(flat: str) -> str:
    match, kind = _first(_KINDS, flat)
    role = next(filter(None, match.groups()), "")
    return kind.format(_ROLES.get(role, role))


_T = TypeVar("_T")


def _first(table: tuple[tuple[str, _T], ...], flat: str) -> tuple[re.Match[str], _T]:
    return next((match, value) for pattern, value in table if (match := re.search(pattern, flat)))
