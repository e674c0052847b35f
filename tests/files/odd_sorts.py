"""Sound files of sorts and spellings that are rare: read as what they mean, or refused by what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .bad_rows import CONV, DOTTED, KEY, QUERY, Row, Tensors, lora, normal, packed, whole

ADAPTERS = ("default", "my-dog", "dog v2", "dog+cat", "\u732b", "1", "default_0", "a" * 200, "%s", "lora_A", "weight")
_BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
_LDM = "input_blocks.4.1.transformer_blocks.0"
_DOTTED = {QUERY: f"{_BLOCK}.attn1.to_q", KEY: f"{_BLOCK}.attn2.to_k", CONV: "down_blocks.1.resnets.0.conv1"}
_IN_LDM = {QUERY: f"{_LDM}.attn1.to_q", KEY: f"{_LDM}.attn2.to_k", CONV: "input_blocks.4.0.in_layers.2"}


def _spelled(names: Mapping[str, str], up: str = "lora_up", down: str = "lora_down") -> Tensors:
    """The whole LoRA with other names of its layers and factors."""
    found = {}
    for name, tensor in whole().items():
        layer, role = name.split(".", 1)
        found[f"{names[layer]}.{role.replace('lora_up', up).replace('lora_down', down)}"] = tensor
    return found


def _prefixed(prefix: str, names: Mapping[str, str] = _DOTTED, end: str = "") -> dict[str, str]:
    return {layer: f"{prefix}{name}{end}" for layer, name in names.items()}


def spellings() -> dict[str, Tensors]:
    """What is odd about it -> the whole LoRA, spelled so."""
    found = {
        f"the prefix {prefix}": _spelled(_prefixed(prefix), "lora_B", "lora_A")
        for prefix in (
            "unet.unet.",
            "unet.unet.unet.",
            "base_model.model.unet.",
            "base_model.model.unet.unet.",
            "unet.base_model.model.",
            "base_model.model.base_model.model.",
            "base_model.model.base_model.model.unet.",
        )
    }
    found["the prefix unet.unet. before LDM's names"] = _spelled(_prefixed("unet.unet.", _IN_LDM))
    found["the prefix unet.unet. in the oldest spelling"] = _spelled(_prefixed("unet.unet."), "lora.up", "lora.down")
    found["LDM's names alone"] = _spelled(_IN_LDM)
    found["LDM's names alone as PEFT has factors"] = _spelled(_IN_LDM, "lora_B", "lora_A")
    found["LDM's names with a prefix"] = _spelled(_prefixed("diffusion_model.", _IN_LDM))
    found["an underscore behind"] = _spelled({layer: f"{layer}_" for layer in _DOTTED})
    found["a dot's underscore behind LDM's"] = _spelled(
        {layer: f"lora_unet_{name.replace('.', '_')}_" for layer, name in _IN_LDM.items()}
    )
    for adapter in ADAPTERS:
        found[f"an adapter named {adapter}"] = _spelled(_prefixed("unet."), f"lora_B.{adapter}", f"lora_A.{adapter}")
    return found


def without_effect() -> dict[str, Tensors]:
    """What is of rank 0 -> the whole LoRA, and a layer of that rank besides."""
    empty, flat = torch.zeros(8, 0), torch.zeros(0, 8)
    halves = {"hada_w2_a": normal(8, 2), "hada_w2_b": normal(2, 8)}
    kernel = {"lora_up.weight": torch.zeros(8, 0, 1, 1), "lora_down.weight": torch.zeros(0, 8, 3, 3)}
    cases = {
        "a lora": {"lora_up.weight": empty, "lora_down.weight": flat},
        "a lora with alpha": {"lora_up.weight": empty, "lora_down.weight": flat, "alpha": torch.tensor(4.0)},
        "a lora with alpha 0": {"lora_up.weight": empty, "lora_down.weight": flat, "alpha": torch.tensor(0.0)},
        "a lora of PEFT": {"lora_B.weight": empty, "lora_A.weight": flat},
        "a lora of half precision": {"lora_up.weight": empty.half(), "lora_down.weight": flat.half()},
        "a convolution": kernel,
        "a convolution with a core": {
            "lora_up.weight": torch.zeros(8, 0, 1, 1),
            "lora_down.weight": torch.zeros(0, 8, 1, 1),
            "lora_mid.weight": torch.zeros(0, 0, 3, 3),
        },
        "a loha": {"hada_w1_a": empty, "hada_w1_b": flat, "hada_w2_a": empty, "hada_w2_b": flat},
        "one half of a loha": {"hada_w1_a": empty, "hada_w1_b": flat, **halves},
        "a lokr": {"lokr_w1": normal(2, 2), "lokr_w2_a": torch.zeros(4, 0), "lokr_w2_b": torch.zeros(0, 4)},
        "the small half of a lokr": {
            "lokr_w1_a": torch.zeros(2, 0),
            "lokr_w1_b": torch.zeros(0, 2),
            "lokr_w2": normal(4, 4),
        },
        "a loha with alpha": {"hada_w1_a": empty, "hada_w1_b": flat, **halves, "alpha": torch.tensor(1.0)},
    }
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    return {
        what: {**whole(), **{f"{layer}.{role}": tensor for role, tensor in roles.items()}}
        for what, roles in cases.items()
    }


def refused() -> dict[str, tuple[Tensors, str]]:
    """What it is -> its tensors, and what is said of it, a pattern."""
    up, down = normal(8, 2), normal(2, 8)
    found: dict[str, tuple[Tensors, str]] = {}
    for dtype in ("int8", "uint8", "int16", "int32", "int64", "uint16"):
        tensors = {
            name: value if value.dim() == 0 else value.to(getattr(torch, dtype)) for name, value in whole().items()
        }
        found[f"a lora in {dtype}"] = tensors, rf"in the number format {dtype[0].upper()}\d+, as quantised files do"
    for role in ("qweight", "weight_scale", "scale_weight", "input_scale", "comfy_quant", "SCB", "absmax"):
        found[f"a lora with {role}"] = (
            {**whole(), f"{DOTTED}.{role}": torch.ones(3)},
            rf"holds quantised modules \(\S+\.{role} \(3,\)\)",
        )
    for rows in (1, 3):
        found[f"kohya's oft for flux of {rows} slices"] = (
            {f"oft_unet_double_blocks_0_img_attn_qkv.oft_blocks.{i}": normal(2, 4, 4) for i in range(rows)},
            r"OFT by slices \(kohya's for Flux\) modules \(\S+oft_blocks\.0 \(2, 4, 4\)\)",
        )
    found["t-lora"] = (
        {f"{QUERY}.q_layer.weight": down, f"{QUERY}.p_layer.weight": up, f"{QUERY}.lambda_layer": normal(1, 2),
         f"{QUERY}.alpha": torch.tensor(2.0)},
        r"holds T-LoRA modules \(\S+\.lambda_layer \(1, 2\)\)",
    )  # fmt: skip
    for role in ("vera_lambda_b", "hra_u", "boft_R", "fourierft_spectrum", "shira_weight", "c3a_kernel", "road_theta",
                 "randlora_lambda", "miss_block", "delora_A"):  # fmt: skip
        found[f"{role} of peft"] = (
            {f"{DOTTED}.{role}.default": normal(2, 4)},
            rf"other PEFT modules \(\S+{role}\.default",
        )
    for layer, slices in {
        "transformer.transformer_blocks.0.attn.to_k": "transformers' k",
        "transformer.transformer_blocks.0.attn.to_v": "transformers' v",
        "transformer.single_transformer_blocks.0.attn.to_k": "single blocks' k",
    }.items():
        found[f"grouped {slices}"] = (
            {f"{layer}.lora_A.weight": normal(2, 16), f"{layer}.lora_B.weight": normal(4, 2)},
            rf"holds {layer}, which has 4 rows where 16 belong",
        )
    for layer in (
        "lora_te_layers_0_self_attn_q_proj",
        "lora_te_layers_0_mlp_gate_proj",
        "lora_te1_model_layers_3_mlp_up_proj",
        "text_encoder.model.layers.0.self_attn.k_proj",
        "lora_te2_language_model_layers_0_self_attn_v_proj",
        "lora_te3_layers_7_self_attn_o_proj",
        "lora_unet_layers_0_attention_qkv",
        "diffusion_model.stream.0.cross_attn.k",
        "transformer.towers.3.ffn.net.0.proj",
        "diffusion_model.joint_stream.0.weight_q",
    ):
        found[f"a layer named {layer}"] = (
            {f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down},
            rf"holds layer {layer} \(down \(2, 8\)\), which is in no UNet, transformer or text encoder of SD 1",
        )
    video = {f"{QUERY}.lora_up.weight": normal(8, 2, 1, 1, 1), f"{QUERY}.lora_down.weight": normal(2, 8, 1, 2, 2)}
    found["a convolution over time"] = (
        video,
        r"holds \S+ \([28], [28], 1, [12], [12]\) of a convolution over time, which cannot be fused",
    )
    found["a lora with a tensor of its own"] = (
        {**whole(), f"{QUERY}.lora_gate": normal(3)},
        rf"holds {QUERY}\.lora_gate \(3,\), which is no part of a LoRA of a known kind",
    )
    found["factors named otherwise"] = (
        {f"{QUERY}.first.weight": up, f"{QUERY}.second.weight": down, f"{KEY}.first.weight": up},
        r"holds no LoRA of a known kind but \S+first\.weight \(8, 2\) and \S+ \([28], [28]\) and 1 more tensors",
    )
    return found


def rows() -> Iterator[Row]:
    for what, tensors in spellings().items():
        yield Row(f"a sound lora with {what[:60]}", packed(tensors), fine=True)
    for what, tensors in without_effect().items():
        yield Row(f"a layer that is {what} of rank 0", packed(tensors), fine=True)
    for what, (tensors, _) in refused().items():
        yield Row(f"of another sort {what}", packed(tensors))
    only = {f"{QUERY}.lora_up.weight": torch.zeros(8, 0), f"{QUERY}.lora_down.weight": torch.zeros(0, 8)}
    yield Row("every layer of rank 0", packed(only))


def meaning() -> dict[str, Tensor]:
    """The deltas of the whole LoRA by layer, flattened."""
    found = {}
    for layer in _DOTTED:
        factors = {name.removeprefix(f"{layer}."): tensor.double() for name, tensor in lora(layer).items()}
        up, down = factors["lora_up.weight"].flatten(1), factors["lora_down.weight"].flatten(1)
        found[layer] = factors["alpha"] / 2 * up @ down
    return found
