"""Small random LoRA files, in every spelling that files in the wild use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class Module:
    """A layer of a small model that has the real one's names.

    component
        `unet`, `text_encoder` or `text_encoder_2`.
    dotted
        Its name in diffusers.
    sgm
        Its name in the original Stable Diffusion code; kohya's SDXL files use it. Empty for a text encoder.
    """

    component: str
    dotted: str
    sgm: str
    out_features: int
    in_features: int
    kernel: tuple[int, ...] = ()

    @property
    def canonical(self) -> str:
        prefix = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}[self.component]
        return f"{prefix}_{self.dotted.replace('.', '_')}"


@dataclass(frozen=True, eq=False)
class Factors:
    """What a file holds of one module. alpha None: no alpha in the file."""

    up: Tensor
    down: Tensor
    mid: Tensor | None = None
    alpha: float | None = None

    def dense(self) -> Tensor:
        """The delta weight in the layer's own shape, by the textbook: scale * up * mid * down."""
        up, down = self.up.float().flatten(1), self.down.float()
        scale = 1.0 if self.alpha is None else self.alpha / down.shape[0]
        if self.mid is not None:
            return scale * torch.einsum("nmij,on,mc->ocij", self.mid.float(), up, down.flatten(1))
        return scale * torch.einsum("or,r...->o...", up, down)


_ATTENTION = "attentions.0.transformer_blocks.0"
_SGM = "input_blocks_4_1_transformer_blocks_0"
_TEXT = "text_model.encoder.layers.0"


def _unet(context: int) -> list[Module]:
    return [
        Module("unet", "conv_in", "input_blocks_0_0", 32, 4, (3, 3)),
        Module("unet", "time_embedding.linear_1", "time_embed_0", 64, 32),
        Module("unet", "time_embedding.linear_2", "time_embed_2", 64, 64),
        Module("unet", "down_blocks.0.resnets.1.conv1", "input_blocks_2_0_in_layers_2", 32, 32, (3, 3)),
        Module("unet", "down_blocks.0.downsamplers.0.conv", "input_blocks_3_0_op", 32, 32, (3, 3)),
        Module("unet", "down_blocks.1.resnets.0.conv_shortcut", "input_blocks_4_0_skip_connection", 64, 32, (1, 1)),
        Module("unet", "down_blocks.1.resnets.0.time_emb_proj", "input_blocks_4_0_emb_layers_1", 64, 64),
        Module("unet", f"down_blocks.1.{_ATTENTION}.attn1.to_q", f"{_SGM}_attn1_to_q", 64, 64),
        Module("unet", f"down_blocks.1.{_ATTENTION}.attn1.to_out.0", f"{_SGM}_attn1_to_out_0", 64, 64),
        Module("unet", f"down_blocks.1.{_ATTENTION}.attn2.to_k", f"{_SGM}_attn2_to_k", 64, context),
        Module("unet", f"down_blocks.1.{_ATTENTION}.attn2.to_v", f"{_SGM}_attn2_to_v", 64, context),
        Module("unet", f"down_blocks.1.{_ATTENTION}.ff.net.0.proj", f"{_SGM}_ff_net_0_proj", 96, 64),
        Module("unet", "down_blocks.1.attentions.0.proj_in", "input_blocks_4_1_proj_in", 64, 64),
        Module("unet", "mid_block.resnets.0.conv2", "middle_block_0_out_layers_3", 64, 64, (3, 3)),
        Module("unet", f"mid_block.{_ATTENTION}.attn1.to_v", "middle_block_1_transformer_blocks_0_attn1_to_v", 64, 64),
        Module("unet", "mid_block.resnets.1.conv1", "middle_block_2_in_layers_2", 64, 64, (3, 3)),
        Module("unet", "up_blocks.1.attentions.2.proj_out", "output_blocks_5_1_proj_out", 64, 64),
        Module("unet", "up_blocks.1.upsamplers.0.conv", "output_blocks_5_2_conv", 64, 64, (3, 3)),
        Module("unet", "conv_out", "out_2", 4, 32, (3, 3)),
    ]  # fmt: skip


def _text(component: str, width: int) -> list[Module]:
    return [
        Module(component, f"{_TEXT}.self_attn.{name}", "", width, width) for name in ("q_proj", "k_proj", "out_proj")
    ] + [Module(component, f"{_TEXT}.mlp.fc1", "", 2 * width, width)]


SD1 = [*_unet(768), *_text("text_encoder", 48)]
SD2 = [*_unet(1024), *_text("text_encoder", 64)]
SDXL = [
    *_unet(2048),
    Module("unet", "add_embedding.linear_1", "label_emb_0_0", 64, 80),
    Module("unet", "add_embedding.linear_2", "label_emb_0_2", 64, 64),
    *_text("text_encoder", 48),
    *_text("text_encoder_2", 80),
    Module("text_encoder_2", "text_projection", "", 80, 80),
]

Lora = Mapping[Module, Factors]


def random_factors(
    module: Module, rank: int, generator: torch.Generator, alpha: float | None = None, tucker: bool = False
) -> Factors:
    """Factors whose delta is of the order of 1 / rank; a 4-D pair for a convolution."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / rank

    ones = (1,) * len(module.kernel)
    up = normal(module.out_features, rank, *ones)
    if tucker and module.kernel == (3, 3):
        return Factors(up, normal(rank, module.in_features, 1, 1), normal(rank, rank, 3, 3), alpha)
    return Factors(up, normal(rank, module.in_features, *module.kernel), None, alpha)


def random_lora(
    modules: Sequence[Module], rank: int = 4, seed: int = 0, alpha: float | None = None, tucker: bool = False
) -> dict[Module, Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {module: random_factors(module, rank, generator, alpha, tucker) for module in modules}


def _kohya_name(module: Module, first_encoder: str = "lora_te1", sgm: bool = False) -> str:
    name = module.canonical.replace("lora_te1", first_encoder, 1)
    return f"lora_unet_{module.sgm}" if sgm and module.sgm else name


def _kohya(name: str) -> tuple[str, str, str]:
    return f"{name}.lora_up.weight", f"{name}.lora_down.weight", f"{name}.alpha"


def _dotted(name: str, up: str, down: str) -> tuple[str, str, str]:
    return f"{name}{up}.weight", f"{name}{down}.weight", f"{name}.alpha"


def _old_diffusers(module: Module) -> tuple[str, str, str]:
    """diffusers 0.18 and before: attention processors have layers of their own, and text encoders their names."""
    name = f"{module.component}.{module.dotted}"
    parent, _, leaf = name.removesuffix(".0" if ".to_out." in name else "").rpartition(".")
    if leaf in ("to_q", "to_k", "to_v", "to_out"):
        return (
            f"{parent}.processor.{leaf}_lora.up.weight",
            f"{parent}.processor.{leaf}_lora.down.weight",
            f"{name}.alpha",
        )
    if leaf in ("q_proj", "k_proj", "v_proj", "out_proj"):
        old = f"{parent}.to_{leaf.removesuffix('_proj')}"
        return f"{old}_lora.up.weight", f"{old}_lora.down.weight", f"{old}.alpha"
    return _dotted(name, ".lora.up", ".lora.down")


def _full(module: Module) -> str:
    return f"{module.component}.{module.dotted}"


SPELLINGS: dict[str, Callable[[Module], tuple[str, str, str]]] = {
    "kohya": lambda module: _kohya(_kohya_name(module)),
    "kohya sd1": lambda module: _kohya(_kohya_name(module, first_encoder="lora_te")),
    "kohya sgm": lambda module: _kohya(_kohya_name(module, sgm=True)),
    "peft": lambda module: _dotted(_full(module), ".lora_B", ".lora_A"),
    "peft adapter": lambda module: _dotted(_full(module), ".lora_B.default", ".lora_A.default"),
    "peft wrapped": lambda module: _dotted(f"base_model.model.{_full(module)}", ".lora_B", ".lora_A"),
    "diffusers": lambda module: _dotted(_full(module), ".lora.up", ".lora.down"),
    "diffusers linear": lambda module: _dotted(_full(module), ".lora_linear_layer.up", ".lora_linear_layer.down"),
    "diffusers old": _old_diffusers,
    "transformers 5": lambda module: _dotted(_full(module).replace("text_model.", ""), ".lora_B", ".lora_A"),
}
"""How a file may spell a module: module -> names of its up, down and alpha. Every one means the same."""


def tensors(lora: Lora, spelling: str = "kohya", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The LoRA as a state dict. A Tucker core is spelled as kohya spells it."""
    state = {}
    for module, factors in lora.items():
        up, down, alpha = SPELLINGS[spelling](module)
        state[up], state[down] = factors.up.to(dtype), factors.down.to(dtype)
        if factors.mid is not None:
            state[down.replace("lora_down", "lora_mid")] = factors.mid.to(dtype)
        if factors.alpha is not None:
            state[alpha] = torch.tensor(factors.alpha)
    return {name: tensor.contiguous() for name, tensor in state.items()}


def write(
    path: Path,
    lora: Lora,
    spelling: str = "kohya",
    dtype: torch.dtype = torch.float32,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write the LoRA as a file; returns its path."""
    save_file(tensors(lora, spelling, dtype), path, metadata)
    return path
