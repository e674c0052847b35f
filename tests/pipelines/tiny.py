"""Small whole pipelines of diffusers' and transformers' own classes, with random weights, that make pictures."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

WORDS = ("a", "dog", "cat", "photo")
HIDDEN = 32
"""Width of a small transformer."""

_MMDIT = {
    "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": HIDDEN // 16, "joint_attention_dim": 80,
}  # fmt: skip


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, sample_size=16, shift_factor=0.0,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def _clip(width: int, projection: bool = False) -> nn.Module:
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=32, num_attention_heads=4, num_hidden_layers=2, projection_dim=width,
        vocab_size=8, bos_token_id=0, eos_token_id=1, pad_token_id=1, max_position_embeddings=12,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def _clip_tokenizer() -> CLIPTokenizer:
    words = ("<|startoftext|>", "<|endoftext|>", *(f"{word}</w>" for word in WORDS))
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=12)


def _t5() -> nn.Module:
    return T5EncoderModel(
        T5Config(d_model=80, d_ff=32, d_kv=8, num_heads=2, num_layers=1, vocab_size=16, feed_forward_proj="gated-gelu")
    )


def _t5_tokenizer() -> T5TokenizerFast:
    words = ("<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS))
    return T5TokenizerFast(vocab=[(word, 0.0) for word in words], extra_ids=0)


def _unet(context: int, **more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=context, **more,
    )  # fmt: skip


def sd1() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        _vae(),
        _clip(48),
        _clip_tokenizer(),
        _unet(48),
        DDIMScheduler(clip_sample=False, steps_offset=1),
        None,
        None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    extra = {
        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 40, "transformer_layers_per_block": (1, 2),
    }  # fmt: skip
    return StableDiffusionXLPipeline(
        _vae(), _clip(24), _clip(40, True), _clip_tokenizer(), _clip_tokenizer(), _unet(64, **extra),
        DDIMScheduler(clip_sample=False, steps_offset=1), add_watermarker=False,
    )  # fmt: skip


def sd3() -> StableDiffusion3Pipeline:
    transformer = SD3Transformer2DModel(
        **_MMDIT, sample_size=8, patch_size=2, in_channels=4, out_channels=4, caption_projection_dim=HIDDEN,
        pooled_projection_dim=64, pos_embed_max_size=8, qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer, FlowMatchEulerDiscreteScheduler(), _vae(), _clip(24, True), _clip_tokenizer(), _clip(40, True),
        _clip_tokenizer(), _t5(), _t5_tokenizer(),
    )  # fmt: skip


def flux() -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        **_MMDIT, patch_size=1, in_channels=16, num_single_layers=2, pooled_projection_dim=24, axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return FluxPipeline(scheduler, _vae(), _clip(24), _clip_tokenizer(), _t5(), _t5_tokenizer(), transformer)


PIPELINES = {"SD 1.5": sd1, "SDXL": sdxl, "SD 3": sd3, "Flux": flux}


def made(model: str) -> Any:
    """A pipeline, always with the same weights."""
    torch.manual_seed(0)
    pipe = PIPELINES[model]()
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe: Any, steps: int = 3, **more: Any) -> torch.Tensor:
    """What a pipeline makes of the same noise, before it is decoded."""
    generator = torch.Generator().manual_seed(0)
    size = {"max_sequence_length": 12} if hasattr(pipe, "transformer") else {}
    return pipe(
        "a dog",
        height=16,
        width=16,
        num_inference_steps=steps,
        generator=generator,
        output_type="latent",
        **size,
        **more,
    ).images
