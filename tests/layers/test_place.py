"""Every layer of every known model has a place, the same one by every name."""

from __future__ import annotations

import re

import pytest

from lib_nplora.layers.block import UNKNOWN, Block
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.place import KINDS, Place, place_of

from .originals import DIFFUSION_MODELS, open_clip
from .real_models import TRANSFORMERS, UNETS, layers


def flat(name: str) -> str:
    return name.replace(".", "_")


DIFFUSERS = {
    "itself": lambda name: name,
    "with underscores": flat,
    "kohya": lambda name: f"lora_unet_{flat(name)}",
    "PEFT, UNet": lambda name: f"unet.{name}",
    "PEFT, transformer": lambda name: f"transformer.{name}",
    "OneTrainer": lambda name: f"lora_transformer_{flat(name)}",
    "LyCORIS": lambda name: f"lycoris_{flat(name)}",
    "old diffusers": lambda name: f"unet.{name.replace('.to_', '.processor.to_')}",
    "weight": lambda name: f"{name}.weight",
    "bias": lambda name: f"lora_unet_{flat(name)}.bias",
}
"""Who writes a layer that diffusers calls so -> how."""

ORIGINAL = {
    "itself": lambda name: name,
    "A1111": lambda name: f"diffusion_model_{flat(name)}",
    "A1111, bias": lambda name: f"diffusion_model_{flat(name)}.bias",
    "Forge": lambda name: f"diffusion_model.{name}.weight",
    "Forge, scale": lambda name: f"diffusion_model.{name}.scale",
    "checkpoint": lambda name: f"model.diffusion_model.{name}.weight",
    "kohya": lambda name: f"lora_unet_{flat(name)}",
}
"""Who writes a layer that its makers call so -> how."""

CLIP_L = {
    "kohya, SD 1": lambda name: f"lora_te_{flat(name)}",
    "kohya": lambda name: f"lora_te1_{flat(name)}",
    "diffusers": lambda name: f"text_encoder.{name}",
    "transformers 5": lambda name: f"text_encoder.{name.removeprefix('text_model.')}",
    "Forge": lambda name: f"clip_l.transformer.{name}.weight",
    "A1111, SD 1": lambda name: f"transformer_{flat(name)}",
    "A1111, SDXL": lambda name: f"0_transformer_{flat(name)}",
    "A1111, SD 3": lambda name: f"clip_l_transformer_{flat(name)}",
}
CLIP_G = {
    "kohya": lambda name: f"lora_te2_{flat(name)}",
    "diffusers": lambda name: f"text_encoder_2.{name}",
    "transformers 5": lambda name: f"text_encoder_2.{name.removeprefix('text_model.')}",
    "Forge": lambda name: f"clip_g.transformer.{name}.weight",
    "A1111, SD 3": lambda name: f"clip_g_transformer_{flat(name)}",
}
T5 = {
    "kohya": lambda name: f"lora_te3_{flat(name)}",
    "OneTrainer, Flux": lambda name: f"lora_te2_{flat(name)}",
    "diffusers, SD 3": lambda name: f"text_encoder_3.{name}",
    "diffusers, Flux": lambda name: f"text_encoder_2.{name}",
    "Forge": lambda name: f"t5xxl.transformer.{name}.weight",
    "A1111": lambda name: f"t5xxl_transformer_{flat(name)}",
}


def check_all_known(places: set[Place]) -> None:
    assert {place.block.label for place in places} & {UNKNOWN} == set()
    assert {place.kind for place in places} <= set(KINDS) - {UNKNOWN, "attention"}


@pytest.mark.parametrize("spelling", DIFFUSERS)
@pytest.mark.parametrize("model", [*UNETS, *TRANSFORMERS])
def test_every_layer_has_the_same_place_in_each_spelling_of_diffusers_names(model, spelling):
    found = {name: place_of(DIFFUSERS[spelling](name), "unet") for name in layers(model)}
    check_all_known(set(found.values()))
    assert found == {name: place_of(name, "unet") for name in layers(model)}


@pytest.mark.parametrize("model", DIFFUSION_MODELS)
def test_the_original_names_are_those_of_the_whole_model(model):
    theirs = [name for names in DIFFUSION_MODELS[model].values() for name in names]
    assert sorted(theirs) == sorted(layers(model))


@pytest.mark.parametrize("spelling", ORIGINAL)
@pytest.mark.parametrize("model", DIFFUSION_MODELS)
def test_a_layer_has_the_same_place_by_its_original_name(model, spelling):
    for original, names in DIFFUSION_MODELS[model].items():
        found = place_of(ORIGINAL[spelling](original), "unet")
        ours = [place_of(name, "unet") for name in names]
        if len(ours) == 1:
            assert [found] == ours, original
        else:
            assert {(found.block, found.is_attention, found.in_transformer)} == {
                (place.block, True, place.in_transformer) for place in ours
            }, original
            assert (found.kind.split()[0], found.kind.split()[1]) == (ours[0].kind.split()[0], "qkv")


BLOCKS_WITH_ATTENTION = {
    "SD 1.5": "in1 in2 in4 in5 in7 in8 mid out3 out4 out5 out6 out7 out8 out9 out10 out11",
    "SDXL": "in4 in5 in7 in8 mid out0 out1 out2 out3 out4 out5",
    "SD 3": " ".join(f"double{i}" for i in range(24)),
    "Flux": " ".join([*(f"double{i}" for i in range(19)), *(f"single{i}" for i in range(38))]),
}
"""sd-webui-lora-block-weight's 17, 12 and 61 sliders, without those for text encoders and ends."""


@pytest.mark.parametrize("model", BLOCKS_WITH_ATTENTION)
def test_blocks_are_those_of_lora_block_weight(model):
    places = [place_of(name, "unet") for name in layers(model)]
    attention = sorted({place.block for place in places if place.is_attention})
    assert " ".join(map(str, attention)) == BLOCKS_WITH_ATTENTION[model]


@pytest.mark.parametrize(("model", "last_in", "last_out"), [("SD 1.5", 11, 11), ("SDXL", 8, 8)])
def test_a_unet_has_all_blocks_of_the_original_code(model, last_in, last_out):
    numbered = [f"in{i}" for i in range(last_in + 1)], [f"out{i}" for i in range(last_out + 1)]
    found = sorted({place_of(name, "unet").block for name in layers(model)})
    assert [str(block) for block in found] == ["in", *numbered[0], "mid", *numbered[1], "out"]


@pytest.mark.parametrize(
    ("name", "block", "kind"),
    [
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "in1", "self q"),
        ("down_blocks.0.downsamplers.0.conv", "in3", "convolution"),
        ("down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0", "in8", "cross out"),
        ("down_blocks.3.resnets.1.time_emb_proj", "in11", "time"),
        ("mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj", "mid", "feed-forward"),
        ("diffusion_model_middle_block_1_transformer_blocks_0_attn2_to_v", "mid", "cross v"),
        ("up_blocks.0.attentions.1.proj_in", "out1", "projection"),
        ("up_blocks.0.upsamplers.0.conv", "out2", "convolution"),
        ("up_blocks.3.attentions.2.norm", "out11", "norm"),
        ("conv_in", "in0", "convolution"),
        ("diffusion_model.input_blocks.0.0.weight", "in0", "convolution"),
        ("time_embedding.linear_1", "in", "time"),
        ("add_embedding.linear_2", "in", "embedding"),
        ("class_embedding.linear_1", "in", "embedding"),
        ("conv_norm_out", "out", "norm"),
        ("diffusion_model_out_2", "out", "convolution"),
        ("double_blocks.7.txt_attn.qkv", "double7", "text qkv"),
        ("lora_unet_transformer_blocks_18_attn_to_add_out", "double18", "text out"),
        ("lora_unet_single_transformer_blocks_37_qkv_mlp", "single37", "self qkv"),
        ("single_blocks.30.linear2", "single30", "projection"),
        ("single_transformer_blocks.0.norm.linear", "single0", "modulation"),
        ("transformer_blocks.0.attn2.to_q", "double0", "self q"),
        ("img_in", "in", "embedding"),
        ("time_text_embed.guidance_embedder.linear_1", "in", "embedding"),
        ("time_in.out_layer", "in", "time"),
        ("norm_out.linear", "out", "modulation"),
        ("proj_out", "out", "projection"),
    ],
)
def test_names_that_are_known_by_heart(name, block, kind):
    assert (str(place_of(name, "unet").block), place_of(name, "unet").kind) == (block, kind)


@pytest.mark.parametrize("model", [*UNETS, *TRANSFORMERS])
def test_attention_is_what_diffusers_has_in_an_attention(model):
    for name in layers(model):
        assert place_of(name, "unet").is_attention == bool(re.search(r"\.attn\d?\.", name)), name


def test_b_loras_two_blocks_are_transformers_of_sdxl():
    for names in ({name: [name] for name in layers("SDXL")}, DIFFUSION_MODELS["SDXL"]):
        for spelled, (name,) in names.items():
            place = place_of(spelled, "unet")
            for number in (0, 1):
                inside = place.in_transformer and place.block == Block("out", number)
                assert inside == name.startswith(f"up_blocks.0.attentions.{number}."), spelled


def test_in_a_transformer_is_what_diffusers_has_in_its_attentions():
    for name in (*layers("SD 1.5"), *layers("SDXL")):
        assert place_of(name, "unet").in_transformer == (".attentions." in name), name
    for name in (*layers("SD 3"), *layers("Flux")):
        assert place_of(name, "unet").in_transformer == ("transformer_blocks." in name), name


@pytest.mark.parametrize(
    ("model", "spellings", "number"), [("CLIP-L", CLIP_L, 1), ("CLIP-G", CLIP_G, 2), ("T5", T5, 3)]
)
def test_every_layer_of_a_text_encoder_has_one_place_in_each_spelling(model, spellings, number):
    for name in layers(model):
        found = {place_of(spell(name), "te") for spell in spellings.values()}
        assert len(found) == 1, name
        check_all_known(found)
        assert {place.block for place in found} == {Block("te", number)}


def test_a_text_encoder_has_the_same_places_by_openclips_names():
    theirs = open_clip(32)
    known = {*theirs.values(), "text_model.embeddings.position_embedding", "text_projection"}
    assert known == set(layers("CLIP-G"))
    for original, name in theirs.items():
        assert place_of(f"1_model_{flat(original)}", "te") == place_of(f"lora_te2_{flat(name)}", "te")
        alone = place_of(f"model_{flat(original)}", "te")
        assert (alone.block, alone.kind) == (Block("te", 1), place_of(name, "te").kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("text_model.encoder.layers.31.self_attn.k_proj", "self k"),
        ("text_model.encoder.layers.0.mlp.fc1", "feed-forward"),
        ("text_model.encoder.layers.0.layer_norm2", "norm"),
        ("text_model.embeddings.position_embedding", "embedding"),
        ("text_projection", "projection"),
        ("model_transformer_resblocks_0_attn_out_proj", "self out"),
        ("model_transformer_resblocks_0_attn_in_proj", "self qkv"),
        ("encoder.block.0.layer.0.SelfAttention.o", "self out"),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "embedding"),
        ("encoder.block.23.layer.1.DenseReluDense.wi_1", "feed-forward"),
        ("shared", "embedding"),
    ],
)
def test_kinds_in_text_encoders(name, kind):
    assert place_of(name, "te").kind == kind


@pytest.mark.parametrize(
    ("name", "block", "kind"),
    [
        ("diffusion_model.layers.29.attention.qkv.weight", "single29", "self qkv"),
        ("layers.0.attention.to_out.0", "single0", "self out"),
        ("lora_unet_layers_0_feed_forward_w1", "single0", "feed-forward"),
        ("diffusion_model.context_refiner.1.attention.qkv.weight", "in", "self qkv"),
        ("diffusion_model.blocks.3.self_attn.q.weight", "single3", "self q"),
        ("diffusion_model.blocks.3.cross_attn.o.weight", "single3", "cross out"),
        ("diffusion_model.blocks.3.cross_attn.k_img.weight", "single3", "attention"),
        ("diffusion_model.head.head.weight", "out", "projection"),
        ("diffusion_model.double_stream_modulation_img.lin.weight", "in", "modulation"),
        ("diffusion_model.distilled_guidance_layer.layers.4.out_layer.weight", "in", "modulation"),
        ("transformer_blocks.59.txt_mlp.net.2", "double59", "feed-forward"),
    ],
)
def test_other_models_that_a_host_loads(name, block, kind):
    """Lumina and Z-Image, Wan, Flux 2, Chroma, Qwen-Image: one stream of blocks is `single`."""
    assert (str(place_of(name, "unet").block), place_of(name, "unet").kind) == (block, kind)


@pytest.mark.parametrize(
    "name",
    ["", "something else", "up_blocks", "cascade.3.mapper", f"blocks.{'9' * 5000}.w"],
)
def test_what_no_known_model_has_is_other(name):
    assert place_of(name, "unet") == Place(Block(UNKNOWN), UNKNOWN)
    assert place_of(name, "te").block == Block("te", 1)


def test_a_key_knows_its_place():
    key = ModuleKey("lora_unet_transformer_blocks_4_attn_qkv", "unet", (0, 3072))
    assert key.place == key.layer.place == Place(Block("double", 4), "self qkv", in_transformer=True)
    assert ModuleKey("transformer_text_model_encoder_layers_3_mlp_fc1", "te").place.block == Block("te", 1)


def test_kinds_are_told_once_each():
    assert len(set(KINDS)) == len(KINDS)
    assert KINDS.index("self out") < KINDS.index("cross q") < KINDS.index(UNKNOWN)
