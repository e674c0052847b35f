"""The layers of the real models, by the names that diffusers and transformers give them. No weight is made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel


def _sd3(**changes: object) -> nn.Module:
    return SD3Transformer2DModel(
        sample_size=128, num_layers=24, num_attention_heads=24, attention_head_dim=64, caption_projection_dim=1536,
        joint_attention_dim=4096, pooled_projection_dim=2048, pos_embed_max_size=192, **changes,
    )  # fmt: skip


def _clip_g() -> nn.Module:
    config = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_attention_heads=20, num_hidden_layers=32, projection_dim=1280
    )
    return CLIPTextModelWithProjection(config)


_MAKE: dict[str, Callable[[], nn.Module]] = {
    "SD 1.5": lambda: UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8),
    "SDXL": lambda: UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
    "SD 3": _sd3,
    "SD 3.5": lambda: _sd3(qk_norm="rms_norm", dual_attention_layers=tuple(range(13))),
    "Flux": lambda: FluxTransformer2DModel(guidance_embeds=True),
    "CLIP-L": lambda: CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
    ),
    "CLIP-G": _clip_g,
    "T5": lambda: T5EncoderModel(
        T5Config(d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24, feed_forward_proj="gated-gelu")
    ),
}

UNETS = ("SD 1.5", "SDXL")
TRANSFORMERS = ("SD 3", "SD 3.5", "Flux")


@cache
def layers(model: str) -> tuple[str, ...]:
    """Names of all that holds a weight, in the order of the model; CLIP's with `text_model.`."""
    with torch.device("meta"):
        made = _MAKE[model]()
    names = [name for name, layer in made.named_modules() if list(layer.parameters(recurse=False))]
    if model.startswith("CLIP"):
        bare = [name.removeprefix("text_model.") for name in names]
        names = [name if name == "text_projection" else f"text_model.{name}" for name in bare]
    return tuple(names)
