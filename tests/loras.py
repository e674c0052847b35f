"""Small random LoRA files, in every spelling that files in the wild use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from . import reference


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

    def matrix(self) -> np.ndarray:
        """The delta weight, float64."""
        scale = 1.0 if self.alpha is None else self.alpha / self.down.shape[0]
        return reference.dense(self.up, self.down, self.mid, scale)


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


@dataclass(frozen=True)
class Block:
    """A layer of a small Flux or SD 3, which files hold whole or in slices of its rows.

    original
        Its name in the code of Black Forest Labs or of Stability AI.
    pieces
        Name in diffusers -> its share of the rows, in their order.
    canonical
        Without prefix.
    swapped
        Whether diffusers has the two halves of the rows the other way round.
    xlabs
        The layer, and how many of its slices, by XLabs' name.
    """

    original: str
    pieces: Mapping[str, int]
    canonical: str
    width: int
    swapped: bool = False
    xlabs: str = ""

    def __hash__(self) -> int:
        return hash(self.canonical)

    @property
    def height(self) -> int:
        return sum(self.pieces.values())


H = 16
"""Width of the small transformers."""


def _qkv(block: str, names: Sequence[str], mlp: int = 0) -> dict[str, int]:
    return {f"{block}.{name}": H for name in names} | ({f"{block}.proj_mlp": mlp} if mlp else {})


_TO = ("attn.to_q", "attn.to_k", "attn.to_v")
_ADD = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_ATTN2 = ("attn2.to_q", "attn2.to_k", "attn2.to_v")

FLUX = [
    Block("double_blocks.0.img_attn.qkv", _qkv("transformer_blocks.0", _TO), "transformer_blocks_0_attn_qkv", H,
          xlabs="double_blocks.0.processor.qkv_lora1"),
    Block("double_blocks.0.txt_attn.qkv", _qkv("transformer_blocks.0", _ADD), "transformer_blocks_0_attn_add_qkv", H,
          xlabs="double_blocks.0.processor.qkv_lora2"),
    Block("double_blocks.0.img_attn.proj", {"transformer_blocks.0.attn.to_out.0": H},
          "transformer_blocks_0_attn_to_out_0", H, xlabs="double_blocks.0.processor.proj_lora1"),
    Block("double_blocks.0.txt_attn.proj", {"transformer_blocks.0.attn.to_add_out": H},
          "transformer_blocks_0_attn_to_add_out", H, xlabs="double_blocks.0.processor.proj_lora2"),
    Block("double_blocks.0.img_mod.lin", {"transformer_blocks.0.norm1.linear": 6 * H},
          "transformer_blocks_0_norm1_linear", H),
    Block("double_blocks.0.txt_mlp.2", {"transformer_blocks.0.ff_context.net.2": H},
          "transformer_blocks_0_ff_context_net_2", 4 * H),
    Block("single_blocks.1.linear1", _qkv("single_transformer_blocks.1", _TO, 4 * H),
          "single_transformer_blocks_1_qkv_mlp", H),
    Block("single_blocks.1.linear2", {"single_transformer_blocks.1.proj_out": H},
          "single_transformer_blocks_1_proj_out", 5 * H, xlabs="single_blocks.1.processor.proj_lora"),
    Block("single_blocks.1.modulation.lin", {"single_transformer_blocks.1.norm.linear": 3 * H},
          "single_transformer_blocks_1_norm_linear", H),
    Block("guidance_in.in_layer", {"time_text_embed.guidance_embedder.linear_1": H},
          "time_text_embed_guidance_embedder_linear_1", 8),
    Block("final_layer.adaLN_modulation.1", {"norm_out.linear": 2 * H}, "norm_out_linear", H, swapped=True),
    Block("final_layer.linear", {"proj_out": 4}, "proj_out", H),
]  # fmt: skip
SD3 = [
    Block("joint_blocks.0.x_block.attn.qkv", _qkv("transformer_blocks.0", _TO), "transformer_blocks_0_attn_qkv", H),
    Block("joint_blocks.0.context_block.attn.qkv", _qkv("transformer_blocks.0", _ADD),
          "transformer_blocks_0_attn_add_qkv", H),
    Block("joint_blocks.0.x_block.attn2.qkv", _qkv("transformer_blocks.0", _ATTN2),
          "transformer_blocks_0_attn2_qkv", H),
    Block("joint_blocks.0.x_block.mlp.fc1", {"transformer_blocks.0.ff.net.0.proj": 4 * H},
          "transformer_blocks_0_ff_net_0_proj", H),
    Block("joint_blocks.0.context_block.adaLN_modulation.1", {"transformer_blocks.0.norm1_context.linear": 6 * H},
          "transformer_blocks_0_norm1_context_linear", H),
    Block("joint_blocks.1.context_block.adaLN_modulation.1", {"transformer_blocks.1.norm1_context.linear": 2 * H},
          "transformer_blocks_1_norm1_context_linear", H, swapped=True),
    Block("y_embedder.mlp.0", {"time_text_embed.text_embedder.linear_1": H},
          "time_text_embed_text_embedder_linear_1", 8),
    Block("final_layer.adaLN_modulation.1", {"norm_out.linear": 2 * H}, "norm_out_linear", H, swapped=True),
]  # fmt: skip

WHOLE_SPELLINGS: dict[str, Callable[[str], tuple[str, str]]] = {
    "kohya": lambda name: _kohya(f"lora_unet_{name.replace('.', '_')}")[:2],
    "comfy": lambda name: _dotted(f"diffusion_model.{name}", ".lora_B", ".lora_A")[:2],
    "original": lambda name: _dotted(name, ".lora_B", ".lora_A")[:2],
}
"""How a file may spell a whole layer: original name -> names of its up and down."""

SPLIT_SPELLINGS: dict[str, Callable[[str], tuple[str, str]]] = {
    "diffusers": lambda name: _dotted(f"transformer.{name}", ".lora_B", ".lora_A")[:2],
    "diffusers bare": lambda name: _dotted(name, ".lora_B", ".lora_A")[:2],
    "peft": lambda name: _dotted(f"base_model.model.{name}", ".lora_B", ".lora_A")[:2],
    "one trainer": lambda name: _kohya(f"lora_transformer_{name.replace('.', '_')}")[:2],
    "simple tuner": lambda name: _kohya(f"lycoris_{name.replace('.', '_')}")[:2],
}
"""How a file may spell a slice: name in diffusers -> names of its up and down."""


def random_blocks(blocks: Sequence[Block], rank: int = 3, seed: int = 0) -> dict[Block, Factors]:
    """Factors of whole layers, rows in the order of the original."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / rank

    return {block: Factors(normal(block.height, rank), normal(rank, block.width)) for block in blocks}


def block_tensors(lora: Mapping[Block, Factors], spelling: str) -> dict[str, Tensor]:
    """The LoRA as a state dict. Each slice has the layer's down; halves are swapped where diffusers has them so."""
    state = {}
    for block, factors in lora.items():
        if spelling == "xlabs":
            if block.xlabs:
                state[f"{block.xlabs}.up.weight"], state[f"{block.xlabs}.down.weight"] = factors.up, factors.down
        elif spelling in WHOLE_SPELLINGS:
            up, down = WHOLE_SPELLINGS[spelling](block.original)
            state[up], state[down] = factors.up, factors.down
        else:
            rows = torch.cat(factors.up.chunk(2)[::-1]) if block.swapped else factors.up
            for name, part in zip(block.pieces, rows.split(list(block.pieces.values()))):
                up, down = SPLIT_SPELLINGS[spelling](name)
                state[up], state[down] = part, factors.down
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def in_diffusers_order(block: Block, rows: Tensor) -> Tensor:
    """The layer's rows as diffusers has them."""
    return torch.cat(rows.chunk(2)[::-1]) if block.swapped else rows
