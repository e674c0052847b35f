"""A pipeline in whatever state its user has brought it to: wrapped, merged, compiled, quantised, offloaded."""

from __future__ import annotations

import copy

import accelerate
import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from lib_nplora.errors import HostError
from lib_nplora.files import names
from lib_nplora.fusion.walk import fuse
from lib_nplora.hosts import Host, ShelfFile
from lib_nplora.hosts.diffusers import Originals, PipelineModel
from lib_nplora.hosts.protocol import shelf_of
from lib_nplora.maths.cache import ByteLru
from lib_nplora.pipelines import fuse_into
from lib_nplora.request.tag import parse_tag
from tests.pipelines import loras, tiny
from tests.reference import pipelines as reference

ATTENTION = r"[.]attn"


@pytest.fixture
def pair(tmp_path):
    return tmp_path / "dog.safetensors", tmp_path / "vangogh.safetensors"


@pytest.fixture
def pipe():
    return tiny.made("SD 1.5")


def written(pipe, pair, only: str = ""):
    """Both files; returns what they come to at mu = 0.5."""
    contents, styles = (loras.write(path, pipe, seed=seed, only=only) for seed, path in enumerate(pair))
    return reference.fused(contents, styles, lambda layer: 0.5)


def close(weight, before, change) -> bool:
    return np.allclose((weight.detach() - before).double().flatten(1).numpy(), change, atol=1e-6)


def test_layers_that_peft_has_wrapped(pipe, pair, tmp_path):
    expected = written(pipe, pair)
    loras.write(tmp_path / "other.safetensors", pipe, seed=5, only="unet.*attn")
    before = loras.weights(pipe)
    pipe.load_lora_weights(tmp_path / "other.safetensors")
    other = tiny.picture(pipe)
    with fuse_into(pipe, *pair):
        wrapped = {name: layer for name, layer in pipe.unet.named_modules() if isinstance(layer, LoraLayer)}
        assert len(wrapped) > 10
        for name, layer in wrapped.items():
            assert close(layer.base_layer.weight, before[f"unet.{name}.weight"], expected[f"unet.{name}"])
        assert not torch.equal(tiny.picture(pipe), other)
    assert torch.equal(tiny.picture(pipe), other)
    pipe.unload_lora_weights()
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_loras_that_were_merged_stay_merged(pipe, pair, tmp_path):
    written(pipe, pair)
    loras.write(tmp_path / "other.safetensors", pipe, seed=5, only="unet.*attn")
    pipe.load_lora_weights(tmp_path / "other.safetensors")
    pipe.fuse_lora()
    merged = loras.weights(pipe)
    fusion = fuse_into(pipe, *pair)
    fused = loras.weights(pipe)
    pipe.unfuse_lora()
    with pytest.raises(HostError, match="LoRAs were merged into StableDiffusionPipeline or taken out of it"):
        fusion.undo()
    with pytest.raises(HostError, match="bring back what was there, then undo the fusion"):
        fuse_into(pipe, *pair, 2)
    pipe.fuse_lora()
    assert all(torch.allclose(value, fused[name], atol=1e-5) for name, value in loras.weights(pipe).items())
    fusion.undo()
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in merged.items())


def test_layers_that_are_compiled(pipe, pair):
    expected = written(pipe, pair)
    before = loras.weights(pipe)
    plain = pipe.unet
    pipe.unet = torch.compile(plain)
    with fuse_into(pipe, *pair):
        name = "mid_block.attentions.0.proj_in"
        assert close(plain.get_submodule(name).weight, before[f"unet.{name}.weight"], expected[f"unet.{name}"])
    pipe.unet = plain
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_channels_last_and_float64(pair):
    pipe = tiny.made("SD 1.5")
    expected = written(pipe, pair)
    pipe.unet.to(torch.float64).to(memory_format=torch.channels_last)
    before = loras.weights(pipe)
    with fuse_into(pipe, *pair):
        for name, change in expected.items():
            layer = loras.layers(pipe)[name]
            assert close(layer.weight, before[f"{name}.weight"], change), name
        conv = pipe.unet.conv_in.weight
        assert conv.is_contiguous(memory_format=torch.channels_last)
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_another_number_format_in_between(pipe, pair):
    written(pipe, pair)
    halved = {name: value.half() for name, value in loras.weights(pipe).items()}
    fusion = fuse_into(pipe, *pair)
    pipe.to(torch.float16)
    fusion.undo()
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], halved[name]) for name in now)


def test_whole_weights_biases_and_norms(pair):
    """q, k and v of a transformer are one layer in such a file, their biases too."""
    pipe = tiny.made("Flux")
    written(pipe, pair, only="single")
    generator = torch.Generator().manual_seed(0)
    block = "lora_unet_double_blocks_1_img_attn"
    whole = {
        f"{block}_qkv.diff": torch.randn(96, 32, generator=generator),
        f"{block}_qkv.diff_b": torch.randn(96, generator=generator),
        f"{block}_norm_query_norm.w_norm": torch.randn(16, generator=generator),
    }
    save_file(whole, pair[0])
    before = loras.weights(pipe)
    with fuse_into(pipe, *pair, c=0.5):
        attention = pipe.transformer.transformer_blocks[1].attn
        for number, layer in enumerate((attention.to_q, attention.to_k, attention.to_v)):
            name = f"transformer.transformer_blocks.1.attn.to_{'qkv'[number]}"
            for leaf, values in (("weight", whole[f"{block}_qkv.diff"]), ("bias", whole[f"{block}_qkv.diff_b"])):
                expected = before[f"{name}.{leaf}"] + 0.5 * values.chunk(3)[number]
                torch.testing.assert_close(getattr(layer, leaf).detach(), expected)
        norm = before["transformer.transformer_blocks.1.attn.norm_q.weight"]
        expected = norm + 0.5 * whole[f"{block}_norm_query_norm.w_norm"]
        torch.testing.assert_close(attention.norm_q.weight.detach(), expected)
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_it_is_a_model_without_a_shelf(pipe, pair):
    """It loads files, and holds several fusions at once."""
    expected = written(pipe, pair)
    before = loras.weights(pipe)
    host = Host("diffusers", PipelineModel(pipe), None)
    with pytest.raises(HostError, match="diffusers keeps no list of LoRAs"):
        shelf_of(host)
    both = [[host.model.load(ShelfFile(path.name, str(path), "1"))] for path in pair]
    fused = [fuse(parse_tag(["dog", "vangogh", mu]), *both, ByteLru(0)) for mu in ("0.5", "0.5", "method=klora")]
    assert host.model.checkpoint is None
    assert host.model.token() == PipelineModel(pipe).token()
    host.model.apply(fused[:2])
    for name, change in expected.items():
        assert close(loras.layers(pipe)[name].weight, before[f"{name}.weight"], 2 * change)
    host.model.swap(fused[2], fused[2].schedule.winners(5, 6))
    host.model.apply(fused[:1])
    for name, change in expected.items():
        assert close(loras.layers(pipe)[name].weight, before[f"{name}.weight"], change)
    host.model.clear()
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_a_copy_stands_for_itself(pipe, pair):
    written(pipe, pair)
    before = loras.weights(pipe)
    fusion = fuse_into(pipe, *pair)
    fused, other = loras.weights(pipe), copy.deepcopy(pipe.unet)
    fusion.undo()
    assert all(torch.equal(value, fused[f"unet.{name}"]) for name, value in other.state_dict().items())
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("module", "layers", "swapped"),
    [
        ("lora_unet_double_blocks_1_img_attn_qkv", "transformer_blocks.1.attn.to_q to_k to_v", False),
        ("transformer.transformer_blocks.1.attn.add_k_proj", "transformer_blocks.1.attn.add_k_proj", False),
        ("single_blocks.0.linear1", "single_transformer_blocks.0.attn.to_q to_k to_v ..proj_mlp", False),
        ("single_blocks.0.processor.qkv", "single_transformer_blocks.0.attn.to_q to_k to_v", False),
        ("final_layer.adaLN_modulation.1", "norm_out.linear", True),
        ("transformer.norm_out.linear", "norm_out.linear", False),
    ],
)
def test_the_models_own_weights_are_given_as_a_file_has_them(module, layers, swapped):
    pipe = tiny.made("Flux")
    first, *others = layers.split()
    attention = first.rpartition(".")[0]
    block = attention.rpartition(".")[0]
    found = [first, *(f"{block}.{one[2:]}" if one.startswith("..") else f"{attention}.{one}" for one in others)]
    expected = torch.cat([pipe.transformer.get_submodule(one).weight for one in found])
    if swapped:
        expected = torch.cat(expected.chunk(2)[::-1])
    originals, slot = Originals(PipelineModel(pipe), "a pipeline", ""), names.slot_of(module)
    assert originals.shape(slot) == tuple(expected.shape)
    assert torch.equal(originals.weight(slot), expected)


class Linear4bit(torch.nn.Linear):
    """A layer whose weight is packed, two values a byte, as bitsandbytes has it."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features)
        self.weight = torch.nn.Parameter(torch.zeros(layer.weight.numel() // 2, 1, dtype=torch.uint8), False)


def refused(pipe, pair) -> str:
    before = {name: value for name, value in loras.weights(pipe).items() if not value.is_meta}
    with pytest.raises(HostError) as told:
        fuse_into(pipe, *pair)
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())
    return str(told.value)


@pytest.mark.parametrize("kind", ["packed", "float8"])
def test_quantised_layers_are_refused_by_name_if_they_are_to_change(kind, pipe, pair):
    written(pipe, pair)
    layer = pipe.text_encoder.encoder.layers[1].mlp
    packed = Linear4bit(layer.fc1) if kind == "packed" else copy.deepcopy(layer.fc1).to(torch.float8_e4m3fn)
    layer.fc1 = packed
    said = refused(pipe, pair)
    assert "layer text_encoder.encoder.layers.1.mlp.fc1 is quantised" in said
    assert "load the pipeline in float16, bfloat16 or float32" in said
    written(pipe, pair, only="unet")
    assert fuse_into(pipe, *pair).summary.any_fused


def test_layers_that_are_offloaded_one_by_one_are_refused(pipe, pair):
    written(pipe, pair)
    accelerate.cpu_offload(pipe.unet, torch.device("cpu"))
    assert "is offloaded by itself: use enable_model_cpu_offload() instead" in refused(pipe, pair)


def test_layers_that_are_offloaded_after_the_fusion_are_not_lost(pipe, pair):
    written(pipe, pair)
    before = loras.weights(pipe)
    fusion = fuse_into(pipe, *pair)
    accelerate.cpu_offload(pipe.unet, torch.device("cpu"))
    with pytest.raises(HostError, match=r"were offloaded: call its remove_all_hooks\(\) first"):
        fusion.undo()
    pipe.remove_all_hooks()
    fusion.undo()
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_attentions_that_are_fused_are_refused(pair):
    pipe = tiny.made("Flux")
    written(pipe, pair)
    pipe.transformer.fuse_qkv_projections()
    said = refused(pipe, pair)
    assert said == "q, k and v of FluxPipeline are fused: call transformer.unfuse_qkv_projections() first"
    pipe.transformer.unfuse_qkv_projections()
    assert fuse_into(pipe, *pair).summary.any_fused
