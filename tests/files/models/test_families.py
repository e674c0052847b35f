"""Each family is found by its file alone, knows its own files by their layers, and names its model's blocks."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from lib_nplora.files import models, names
from lib_nplora.files.models import Family, detect, families, to_write
from lib_nplora.files.models.flux import FAMILY as FLUX
from lib_nplora.files.models.sd1 import FAMILY as SD1
from lib_nplora.files.models.sd2 import FAMILY as SD2
from lib_nplora.files.models.sd3 import FAMILY as SD3
from lib_nplora.files.models.sdxl import FAMILY as SDXL
from lib_nplora.layers.place import place_of
from tests import loras
from tests.layers.real_models import layers


def test_every_file_with_a_family_is_found() -> None:
    modules = [
        importlib.import_module(f"{models.__name__}.{one.name}") for one in pkgutil.iter_modules(models.__path__)
    ]
    assert {id(module.FAMILY) for module in modules if hasattr(module, "FAMILY")} == set(map(id, families()))
    assert {family.label for family in families()} == NUMBERED.keys()


@pytest.mark.parametrize(
    ("modules", "family"),
    [
        (loras.SD1, SD1),
        (loras.SD2, SD2),
        (loras.SDXL, SDXL),
        (loras.SDXL[-3:], SDXL),
        (loras.SD1[-4:], None),
        (loras.SD1[:4], None),
    ],
)
def test_the_family_shows_in_the_shapes(modules: list[loras.Module], family: Family | None) -> None:
    assert detect({module.canonical: module.in_features for module in modules}) == family


def test_another_model_is_of_no_known_family() -> None:
    assert detect({"lora_unet_joint_blocks_0_x_block_attn_qkv": 1536, "lora_te2_text_projection": 1280}) is None
    assert detect({"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": 4096}) is None


def block_widths(blocks: list[loras.Block], width: int) -> dict[str, int]:
    return {f"lora_unet_{block.canonical}": width for block in blocks}


@pytest.mark.parametrize(
    ("blocks", "width", "spelled", "family"),
    [
        (loras.FLUX, 16, ["lora_unet_double_blocks_0_img_attn_qkv"], None),
        (loras.FLUX, 16, ["transformer.single_transformer_blocks.1.proj_out"], None),
        (loras.SD3, 16, ["lora_unet_joint_blocks_0_x_block_attn_qkv"], SD3),
        (loras.SD3, 16, ["transformer.transformer_blocks.0.attn2.to_q"], SD3),
        (loras.FLUX[:2], 3072, ["transformer.transformer_blocks.0.attn.to_q"], None),
        (loras.SD3[:2], 1536, ["transformer.transformer_blocks.0.attn.to_q"], SD3),
        (loras.SD3[:2], 2432, ["transformer.transformer_blocks.0.attn.to_q"], SD3),
        (loras.SD3[:2], 16, ["transformer.transformer_blocks.0.attn.to_q"], None),
    ],
)
def test_transformers_show_in_names_and_widths(
    blocks: list[loras.Block], width: int, spelled: list[str], family: Family | None
) -> None:
    assert detect(block_widths(blocks, width), spelled) == family


@pytest.mark.parametrize(
    ("layers", "family"),
    [
        (["lora_unet_mid_block_attentions_0_proj_in"], SDXL),
        (["lora_te1_text_model_encoder_layers_0_mlp_fc1"], SDXL),
        (list(block_widths(loras.FLUX, 16)), FLUX),
        (list(block_widths(loras.SD3, 16)), SD3),
        (["lora_unet_transformer_blocks_0_attn2_to_out_0", "lora_unet_pos_embed_proj.bias"], SD3),
    ],
    ids=["unet", "text", "flux", "sd 3", "sd 3 alone"],
)
def test_layers_of_no_known_family_are_written_as_that_which_has_them(layers: list[str], family: Family) -> None:
    assert to_write(layers, None) is family
    assert to_write(layers, SD1) is SD1


NUMBERED = {
    "SD 1": "te1 in in0-11 mid out0-11 out",
    "SD 2": "te1 in in0-11 mid out0-11 out",
    "SDXL": "te1 te2 in in0-8 mid out0-8 out",
    "SD 3": "te1 te2 te3 in double0-37 out",
    "Flux": "te1 te3 in double0-18 single0-37 out",
    "Chroma": "te3 in double0-18 single0-37 out",
    "FLUX.2": "in double0-7 single0-47 out",
    "Qwen-Image": "in double0-59 out",
    "Z-Image": "in single0-29 out",
    "Lumina 2": "in single0-25 out",
    "Wan": "in single0-39 out",
    "Krea 2": "in single0-27 out",
    "Anima": "te1 in single0-27 out",
    "ERNIE-Image": "in single0-35 out",
    "HunyuanVideo": "in double0-19 single0-39 out",
}
"""Family -> its blocks in the order of the model."""


@pytest.mark.parametrize("family", families(), ids=lambda family: family.label)
def test_blocks_are_those_that_users_know(family: Family) -> None:
    expected = []
    for word in NUMBERED[family.label].split():
        first, _, last = word.partition("-")
        label = first.rstrip("0123456789")
        expected += [f"{label}{number}" for number in range(int(last) + 1)] if last else [word]
    assert list(map(str, sorted(family.blocks))) == expected


@pytest.mark.parametrize(
    ("model", "family", "encoders"),
    [
        ("SD 1.5", SD1, ["CLIP-L"]),
        ("SDXL", SDXL, ["CLIP-L", "CLIP-G"]),
        ("SD 3", SD3, ["CLIP-L", "CLIP-G", "T5"]),
        ("SD 3.5", SD3, ["CLIP-L", "CLIP-G", "T5"]),
        ("Flux", FLUX, ["CLIP-L", "T5"]),
    ],
)
def test_every_layer_of_the_model_is_in_one_of_the_blocks(model: str, family: Family, encoders: list[str]) -> None:
    """Those are all the blocks that such a model has, but for the last of the largest SD 3.5."""
    components = {"CLIP-L": "text_encoder", "CLIP-G": "text_encoder_2", "T5": "text_encoder_3"}
    modules = [f"{'transformer' if family in (SD3, FLUX) else 'unet'}.{name}" for name in layers(model)]
    modules += [f"{components[encoder]}.{name}" for encoder in encoders for name in layers(encoder)]
    slots = [slot for module in modules if (slot := names.slot_of(module))]
    found = {place_of(slot.layer, slot.part).block for slot in slots}
    assert len(slots) > 0.9 * len(modules)
    assert {block for block in family.blocks if not (model.startswith("SD 3") and (block.number or 0) > 23)} == found
