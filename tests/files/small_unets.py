"""Small real models, and the names of their layers in the original Stable Diffusion code."""

from __future__ import annotations

import re

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
"""Component of a pipeline -> how the canonical names of its layers start."""

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline


def unet(xl: bool = False) -> UNet2DConditionModel:
    """Three down blocks of two layers, as the real one has, 32 wide."""
    extra = {
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    }
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=2,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2048 if xl else 768,
        attention_head_dim=4,
        **(extra if xl else {}),
    )


def tiny_unet() -> UNet2DConditionModel:
    """Every kind of layer that SD 1 has, and few of each."""
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=768,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def text_encoder(width: int = 48, projection: bool = False) -> nn.Module:
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_attention_heads=4, num_hidden_layers=1, vocab_size=99,
        bos_token_id=0, eos_token_id=1, projection_dim=width,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def pipeline(xl: bool) -> Pipeline:
    shared = {"vae": None, "unet": unet(xl), "text_encoder": text_encoder(), "tokenizer": None, "scheduler": None}
    if xl:
        return StableDiffusionXLPipeline(**shared, text_encoder_2=text_encoder(80, True), tokenizer_2=None)
    return StableDiffusionPipeline(**shared, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def components(pipe: Pipeline) -> dict[str, nn.Module]:
    return {name: getattr(pipe, name) for name in PREFIXES if getattr(pipe, name, None) is not None}


def canonical(component: str, name: str) -> str:
    """The name that a layer of a component has in lib_nplora."""
    name = name.replace(".", "_")
    if name.startswith(("encoder_", "embeddings_")):
        name = f"text_model_{name}"
    return f"{PREFIXES[component]}_{name}"


_SINGLES = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def ldm_unet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A `unet()` under the names that single-file checkpoints have."""
    return {f"model.diffusion_model.{_ldm(name)}": tensor for name, tensor in state.items()}


def _ldm(tensor: str) -> str:
    name, _, leaf = tensor.rpartition(".")
    if name in _SINGLES:
        return f"{_SINGLES[name]}.{leaf}"
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        slot = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{slot}.{_RESNET.get(match[3], match[3])}.{leaf}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name)
    assert match, tensor
    side, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * block + 3}.0.op.{leaf}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * block + 2}.2.conv.{leaf}"
    number = 3 * block + layer + (side == "down")
    slot = 0 if kind == "resnets" else 1
    return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{slot}.{_RESNET.get(rest, rest)}.{leaf}"


def single_file(parts: dict[str, nn.Module]) -> dict[str, Tensor]:
    """An SDXL checkpoint in one file: the components of `pipeline(xl=True)` under the names of its makers."""
    found = ldm_unet(dict(parts["unet"].state_dict()))
    for name, tensor in parts["text_encoder"].state_dict().items():
        found[f"conditioner.embedders.0.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    for name, tensor in _open_clip(dict(parts["text_encoder_2"].state_dict())).items():
        found[f"conditioner.embedders.1.model.{name}"] = tensor
    return found


def _open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder in the names of OpenCLIP, with q, k and v in one."""
    found = {}
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        name = re.sub(r"^encoder\.layers\.", "transformer.resblocks.", name)
        name = name.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
        name = re.sub(r"layer_norm([12])", r"ln_\1", name).replace("self_attn.", "attn.")
        if "q_proj" in name:
            third = [state[_of_q(name, other)] for other in ("q_proj", "k_proj", "v_proj")]
            found[name.replace("q_proj.", "in_proj_")] = torch.cat(third)
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.T.contiguous()
        elif not re.search("[kv]_proj", name):
            found[name] = tensor
    return found


def _of_q(name: str, other: str) -> str:
    name = name.replace("transformer.resblocks.", "encoder.layers.").replace(".attn.", ".self_attn.")
    return name.replace("q_proj", other)
