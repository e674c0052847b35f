"""`fuse_into` does to every layer of a pipeline what the formula says, and is undone to the bit."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lib_nplora.errors import FileError, HostError, MismatchError, RequestError
from lib_nplora.layers.block import Block
from lib_nplora.pipelines import Pair, fuse_into
from tests import loras as files
from tests.files import small_unets
from tests.pipelines import loras, tiny
from tests.reference import pipelines as reference


def check(pipe, before, expected, relative: float = 1e-5) -> None:
    """Each layer holds what stood there and these updates, and no other layer changed."""
    changed = set()
    for name, layer in loras.layers(pipe).items():
        change = layer.weight.detach().double() - before[f"{name}.weight"].double()
        if change.any():
            changed.add(name)
            error = np.linalg.norm(change.flatten(1).numpy() - expected[name]) / np.linalg.norm(expected[name])
            assert error < relative, f"{name}: {error}"
    assert changed == expected.keys()


def same(pipe, before) -> bool:
    now = loras.weights(pipe)
    return now.keys() == before.keys() and all(torch.equal(now[name], value) for name, value in before.items())


@pytest.fixture
def dog(tmp_path):
    return tmp_path / "dog.safetensors"


@pytest.fixture
def vangogh(tmp_path):
    return tmp_path / "vangogh.safetensors"


@pytest.mark.parametrize(("content", "style"), [("peft", "diffusers"), ("kohya", "peft"), ("diffusers", "kohya")])
@pytest.mark.parametrize("model", tiny.PIPELINES)
def test_every_layer_is_fused_and_comes_back(model, dog, vangogh, content, style):
    pipe = tiny.made(model)
    contents = loras.write(dog, pipe, content, seed=1, rank=3)
    styles = loras.write(vangogh, pipe, style, seed=2, rank=2)
    before = loras.weights(pipe)
    fuse_into(pipe, dog, vangogh, "hard")
    check(pipe, before, reference.fused(contents, styles, lambda layer: math.inf))
    fusion = fuse_into(pipe, str(dog), str(vangogh))
    check(pipe, before, reference.fused(contents, styles, lambda layer: 0.5))
    fusion.undo()
    assert same(pipe, before)


@pytest.mark.parametrize("model", tiny.PIPELINES)
def test_at_mu_0_it_is_what_diffusers_itself_makes_of_both(model, dog, vangogh):
    ours, theirs = tiny.made(model), tiny.made(model)
    encoders = "^..(unet|transformer|text_encoder|text_encoder_2)[.]"
    for seed, path in enumerate((dog, vangogh)):
        skipped = "T5|pos_embed|text_projection|SelfAttention|DenseReluDense"
        loras.write(path, ours, "peft", seed=seed, only=f"{encoders}(?!.*(?:{skipped}))")
        theirs.load_lora_weights(path, adapter_name=path.stem)
    theirs.set_adapters(["dog", "vangogh"], [0.8, 0.5])
    with fuse_into(ours, dog, vangogh, 0, c=0.8, s=0.5):
        there = loras.layers(ours)
        compared = 0
        for component in loras.COMPONENTS:
            for name, layer in (getattr(theirs, component, None) or torch.nn.Module()).named_modules():
                if isinstance(layer, LoraLayer) and layer.active_adapters:
                    update = sum(layer.get_delta_weight(one) for one in layer.active_adapters if one in layer.lora_A)
                    torch.testing.assert_close(
                        there[f"{component}.{name}"].weight, layer.base_layer.weight + update, atol=1e-6, rtol=1e-5
                    )
                    compared += 1
        assert compared == len(load_file(dog)) // 2 > 30
        torch.testing.assert_close(tiny.picture(ours), tiny.picture(theirs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("model", "mu"), [("SDXL", "0.5,mid@2,te2@hard,in4@0"), ("Flux", "0.5,single1@hard,te3@0")])
def test_strengths_by_block(model, mu, dog, vangogh):
    pipe = tiny.made(model)
    contents, styles = (loras.write(path, pipe, "kohya", seed=seed) for seed, path in enumerate((dog, vangogh)))
    before = loras.weights(pipe)

    def strength(layer: str) -> float:
        own = {
            "mid_block": 2, "text_encoder_2": math.inf, "down_blocks.1.attentions.0": 0, "down_blocks.1.resnets.0": 0
        } if model == "SDXL" else {"single_transformer_blocks.1": math.inf, "text_encoder_2": 0}  # fmt: skip
        return next((value for part, value in own.items() if f"{part}." in layer), 0.5)

    with fuse_into(pipe, dog, vangogh, mu):
        check(pipe, before, reference.fused(contents, styles, strength))
    with pytest.raises(RequestError, match="this model has no block in11: it has te1"):
        fuse_into(pipe, dog, vangogh, "0.5,in11@2")
    assert same(pipe, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("model", ["SD 1.5", "Flux"])
def test_half_precision_is_rounded_once(model, dtype, dog, vangogh):
    pipe = tiny.made(model).to(dtype)
    contents, styles = (loras.write(path, pipe, seed=seed, only="trans") for seed, path in enumerate((dog, vangogh)))
    before = loras.weights(pipe)
    with fuse_into(pipe, dog, vangogh, 1):
        for name, change in reference.fused(contents, styles, lambda layer: 1).items():
            layer = loras.layers(pipe)[name]
            exact = before[f"{name}.weight"].double() + torch.from_numpy(change).reshape(layer.weight.shape)
            # A value next to the middle between two may go either way.
            off = (layer.weight.double() - exact).abs() > torch.finfo(dtype).eps * exact.abs() * 0.5001
            assert not (off & (exact.abs() > 1e-3)).any(), name
            assert (layer.weight == exact.to(dtype)).double().mean() > 0.995
    assert same(pipe, before)


def test_half_precision_that_would_overflow_is_refused(dog, vangogh):
    pipe = tiny.made("Flux").to(torch.float16)
    loras.write(dog, pipe, seed=1)
    loras.write(vangogh, pipe, seed=2)
    before = loras.weights(pipe)
    with pytest.raises(HostError, match=r"the update of layer \S+ is too large for torch.float16"):
        fuse_into(pipe, dog, vangogh, c=1e7)
    assert same(pipe, before)


def test_several_of_each_with_weights(dog, vangogh, tmp_path):
    pipe = tiny.made("SD 3")
    cat = tmp_path / "cat.safetensors"
    made = [reference.updates(loras.write(path, pipe, seed=seed)) for seed, path in enumerate((dog, cat, vangogh))]
    before = loras.weights(pipe)
    fuse_into(pipe, [dog, cat], vangogh, method="direct", c=[0.5, "2,double1@0"], s="0.25", te=0.5)
    expected = {}
    for name in made[0]:
        contents, cats, styles = (updates[name] for updates in made)
        second = 0 if "transformer_blocks.1." in name else 2
        total = 0.5 * contents + second * cats + 0.25 * styles
        expected[name] = total * (0.5 if name.startswith("text") else 1)
    check(pipe, before, expected)
    with pytest.raises(RequestError, match="c has 3 weights for 2 LoRAs"):
        fuse_into(pipe, [dog, cat], vangogh, c=[1, 2, 3])


def test_a_pair_is_fused_again_and_again(dog, vangogh):
    pipe = tiny.made("Flux")
    contents, styles = (loras.write(path, pipe, seed=seed) for seed, path in enumerate((dog, vangogh)))
    before, pair = loras.weights(pipe), Pair(pipe, dog, vangogh)
    first = pair.fuse(0.5)
    second = pair.fuse(2)
    check(pipe, before, reference.fused(contents, styles, lambda layer: 2))
    first.undo()
    check(pipe, before, reference.fused(contents, styles, lambda layer: 2))
    assert second.summary.any_fused
    second.undo()
    second.undo()
    assert same(pipe, before)


def test_pipelines_that_share_their_parts_hold_one_fusion(dog, vangogh):
    pipe = tiny.made("SD 1.5")
    other = type(pipe)(**pipe.components, requires_safety_checker=False)
    contents, styles = (loras.write(path, pipe, seed=seed) for seed, path in enumerate((dog, vangogh)))
    before = loras.weights(pipe)
    first = fuse_into(pipe, dog, vangogh, 0.5)
    second = fuse_into(other, dog, vangogh, 2)
    first.undo()
    check(pipe, before, reference.fused(contents, styles, lambda layer: 2))
    second.undo()
    assert same(pipe, before)


def test_kinds_that_depend_on_the_model_are_read_with_its_own_weights(dog, vangogh):
    """DoRA, as PEFT trains and merges it; the pipeline holds a fusion meanwhile."""
    pipe = tiny.made("SD 1.5")
    unet = tiny.made("SD 1.5").unet
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, use_dora=True, target_modules=["to_q", "conv1", "proj_in"]))
    generator = torch.Generator().manual_seed(0)
    for name, values in unet.named_parameters():
        if "lora" in name:
            values.data *= 1 + 0.1 * torch.rand(values.shape, generator=generator)
            values.data += 0.05 * torch.randn(values.shape, generator=generator) * ("lora_B" in name)
    save_file({f"unet.{name}": values for name, values in get_peft_model_state_dict(unet).items()}, dog)
    loras.write(vangogh, pipe, seed=2, only="text_encoder")
    merged = {}
    for name, layer in unet.named_modules():
        if isinstance(layer, LoraLayer):
            layer.merge()
            merged[f"unet.{name}"] = layer.base_layer.weight
    before = loras.weights(pipe)
    fuse_into(pipe, dog, vangogh)
    fusion = fuse_into(pipe, dog, vangogh)
    for name, weight in merged.items():
        torch.testing.assert_close(loras.layers(pipe)[name].weight, weight, atol=1e-5, rtol=1e-4)
    assert len(merged) > 10
    assert fusion.remarks
    fusion.undo()
    assert same(pipe, before)


def test_what_the_pipeline_lacks_is_remarked(dog, vangogh, caplog):
    pipe = tiny.made("SD 3")
    loras.write(dog, pipe, seed=1)
    loras.write(vangogh, pipe, seed=2)
    pipe.text_encoder_3 = None
    with caplog.at_level(logging.WARNING, "nplora"):
        fusion = fuse_into(pipe, dog, vangogh, k="1")
    lacking = sum("text_encoder_3" in name for name in load_file(dog)) // 2
    assert f"{lacking} of the modules in 'dog.safetensors' fit no layer of this model" in fusion.remarks
    assert [record.getMessage() for record in caplog.records] == [f"dog x vangogh: {text}" for text in fusion.remarks]


def test_without_a_common_layer_it_says_that_it_merges_plainly(dog, vangogh):
    pipe = tiny.made("SD 1.5")
    loras.write(dog, pipe, only="down_blocks")
    loras.write(vangogh, pipe, only="up_blocks")
    assert "so this is a plain merge" in fuse_into(pipe, dog, vangogh).remarks[-1]


def refused(pipe, *args, **values) -> str:
    """What is said; the pipeline stays as it is."""
    before = loras.weights(pipe)
    with pytest.raises((FileError, HostError, MismatchError, RequestError)) as told:
        fuse_into(pipe, *args, **values)
    assert same(pipe, before)
    assert not any("_nplora" in vars(part) for part in pipe.components.values() if isinstance(part, torch.nn.Module))
    return str(told.value)


def test_loras_for_another_family_are_named(dog, vangogh, tmp_path):
    pipe = tiny.made("SD 1.5")
    loras.write(vangogh, pipe)
    pipe.unet = tiny._unet(768)
    for model in ("SDXL", "Flux"):
        other = tmp_path / f"{model}.safetensors"
        loras.write(other, tiny.made(model), "kohya")
        said = refused(pipe, other, vangogh)
        assert said.startswith(f"'{model}.safetensors' is made for another model" if model == "SDXL" else f"'{model}")
        assert "not for this StableDiffusionPipeline (SD 1): " in said
    files.write(dog, files.random_lora(files.SDXL))
    said = refused(pipe, dog, vangogh)
    assert said == (
        "'dog.safetensors' is made for SDXL, not for this StableDiffusionPipeline (SD 1): "
        "layer text_encoder.encoder.layers.0.mlp.fc1 is 96 x 48 in the LoRA and 32 x 48 in the pipeline"
    )


def test_a_lora_without_any_layer_of_the_pipeline_is_named(dog, vangogh):
    loras.write(dog, tiny.made("Flux"), "kohya", only="single")
    pipe = tiny.made("SD 1.5")
    loras.write(vangogh, pipe)
    said = refused(pipe, dog, vangogh)
    assert said.startswith("'dog.safetensors' is made for Flux, not for this StableDiffusionPipeline: none of its ")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mu": "deep"}, "mu=deep is not a number: mu is a number from 0 up, or 'hard'"),
        ({"mu": -1}, "mu=-1 is negative: mu is a number from 0 up, or 'hard'"),
        ({"mu": "0.5,midd@2"}, "there is no block 'midd'. Did you mean 'mid'?"),
        ({"method": "klorra"}, "there is no method 'klorra'. Did you mean 'klora'?"),
        ({"density": 2, "method": "ties"}, "density=2 is not a share"),
        ({"depth": 2}, "unknown key 'depth'. "),
        ({"c": "loud"}, "c=loud is not a number"),
        ({"unet": "much"}, "unet=much is not a number"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(values, said, dog, vangogh):
    pipe = tiny.made("Flux")
    loras.write(dog, pipe, seed=1)
    loras.write(vangogh, pipe, seed=2)
    assert refused(pipe, dog, vangogh, **values).startswith(said)


def test_files_that_cannot_be_read_are_named(dog, vangogh, tmp_path):
    pipe = tiny.made("Flux")
    loras.write(vangogh, pipe)
    assert refused(pipe, tmp_path / "vangog.safetensors", vangogh) == (
        f"there is no file '{tmp_path / 'vangog.safetensors'}'. Did you mean 'vangogh.safetensors'?"
    )
    assert refused(pipe, tmp_path, vangogh) == (
        f"'{tmp_path}' is a folder: name a .safetensors file, such as '{vangogh}'"
    )
    dog.write_bytes(vangogh.read_bytes()[:5000])
    assert "cannot be opened as a .safetensors file" in refused(pipe, dog, vangogh)
    broken = load_file(vangogh)
    broken[next(iter(broken))][0] = math.nan
    save_file(broken, dog)
    assert "holds values that are not finite" in refused(pipe, dog, vangogh)
    assert "would be content and style at once" in refused(pipe, vangogh, vangogh)
    assert refused(pipe, [], vangogh) == "there is no content: name at least one LoRA file"


class Mini(DiffusionPipeline):
    """A pipeline that diffusers does not have, with a text encoder that holds no layer of any LoRA."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.text_encoder = torch.nn.TransformerEncoderLayer(16, 2)


def test_a_pipeline_that_nobody_knows(dog, vangogh):
    torch.manual_seed(0)
    unet = tiny._unet(24, class_embed_type="projection", projection_class_embeddings_input_dim=24)
    pipe = Mini(unet, DDIMScheduler())
    contents, styles = (
        loras.write(path, pipe, spelling, seed=seed, only="unet")
        for seed, (path, spelling) in enumerate(((dog, "kohya"), (vangogh, "peft")))
    )
    assert any("class_embedding" in name for module in contents for name in module.layers)
    before = loras.weights(pipe)
    with fuse_into(pipe, dog, vangogh) as fusion:
        check(pipe, before, reference.fused(contents, styles, lambda layer: 0.5))
        assert fusion.remarks == ()
    assert same(pipe, before)


def test_what_is_no_pipeline_is_refused(dog, vangogh):
    with pytest.raises(HostError, match="str has neither a UNet nor a transformer nor a text encoder"):
        fuse_into("sdxl", dog, vangogh)


def test_the_blocks_are_those_of_the_layers(dog, vangogh):
    from lib_nplora.hosts.diffusers import PipelineModel

    model = PipelineModel(tiny.made("SDXL"))
    assert {Block("te", 1), Block("te", 2), Block("in", 0), Block("mid"), Block("out")} <= set(model.blocks())
    assert Block("other") not in model.blocks()
    assert small_unets.canonical("unet", "mid_block.attentions.0.proj_in") in model._layers
