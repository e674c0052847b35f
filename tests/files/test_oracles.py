"""peft and diffusers as judges: they write what we read, and read what we write."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.training_utils import _collate_lora_metadata
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_nplora.command_line.main import main
from lib_nplora.errors import FileError
from lib_nplora.files import read_lora
from lib_nplora.files.models.sd1 import FAMILY as SD1
from lib_nplora.files.models.sdxl import FAMILY as SDXL
from lib_nplora.layers.key import ModuleKey
from tests import loras, reference
from tests.files import judging, small_unets
from tests.files.small_unets import Pipeline, components, pipeline, text_encoder, unet

pytestmark = [
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LoRA tensor.*invalid shape"),
]

UNET_TARGETS = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "ff.net.0.proj",
    "conv1",
    "conv_shortcut",
    "time_emb_proj",
]
TEXT_TARGETS = ["q_proj", "v_proj", "out_proj", "fc1"]
RECIPES = {
    "plain": {"r": 4, "lora_alpha": 4},
    "alpha": {"r": 4, "lora_alpha": 2},
    "rslora": {"r": 9, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"to_q": 2, "fc1": 3},
        "alpha_pattern": {"to_q": 5, "attn2.to_k": 1, "^mid_block.*to_v": 7, "self_attn.v_proj": 3},
    },
}


def randomise(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2


def deltas(model: nn.Module, component: str) -> dict[str, Tensor]:
    """peft's own delta weight of each layer, by canonical name, as a matrix."""
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            (adapter,) = layer.active_adapters
            found[small_unets.canonical(component, name.removeprefix("base_model.model."))] = (
                layer.get_delta_weight(adapter).detach().flatten(1)
            )
    return found


def read(path: Path) -> dict[str, Tensor]:
    return {str(key.name): delta.dense() for key, delta in read_lora(path).weights.deltas.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.allclose(found[name], expected[name], atol=atol, rtol=1e-5), name


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("xl", [False, True], ids=["sd1", "sdxl"])
def test_files_that_diffusers_writes(tmp_path: Path, recipe: str, xl: bool) -> None:
    pipe = pipeline(xl)
    arguments, expected = {}, {}
    for component, model in components(pipe).items():
        targets = UNET_TARGETS if component == "unet" else TEXT_TARGETS
        model.add_adapter(LoraConfig(target_modules=targets, **RECIPES[recipe]))
        randomise(model, seed=1)
        arguments[f"{component}_lora_layers"] = get_peft_model_state_dict(model, adapter_name="default")
        expected |= deltas(model, component)
    type(pipe).save_lora_weights(tmp_path, **arguments, **_collate_lora_metadata(components(pipe)))
    path = tmp_path / "pytorch_lora_weights.safetensors"
    assert_same(read(path), expected)
    assert read_lora(path).family == (SDXL if xl else SD1)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_adapters_that_peft_writes(tmp_path: Path, recipe: str, component: str) -> None:
    targets = UNET_TARGETS if component == "unet" else TEXT_TARGETS
    model = get_peft_model(
        unet() if component == "unet" else text_encoder(), LoraConfig(target_modules=targets, **RECIPES[recipe])
    )
    randomise(model, seed=2)
    model.save_pretrained(tmp_path)
    assert_same(read(tmp_path / "adapter_model.safetensors"), deltas(model, component))


def test_a_unet_adapter_that_diffusers_writes(tmp_path: Path) -> None:
    model = unet()
    model.add_adapter(LoraConfig(target_modules=UNET_TARGETS, **RECIPES["patterns"]))
    randomise(model, seed=3)
    model.save_lora_adapter(tmp_path)
    assert_same(read(tmp_path / "pytorch_lora_weights.safetensors"), deltas(model, "unet"))


def modules_of(pipe: Pipeline) -> list[loras.Module]:
    """The pipeline's layers that LoRAs train."""
    found = []
    for component, model in components(pipe).items():
        targets = tuple(UNET_TARGETS if component == "unet" else TEXT_TARGETS)
        for name, layer in model.named_modules():
            if name.endswith(targets) and isinstance(layer, (nn.Linear, nn.Conv2d)):
                dotted = f"text_model.{name}" if name.startswith("encoder.") else name
                kernel = tuple(layer.weight.shape[2:])
                found.append(loras.Module(component, dotted, "", *layer.weight.shape[:2], kernel))
    return found


@pytest.mark.parametrize("spelling", ["kohya", "diffusers"])
@pytest.mark.parametrize("xl", [False, True], ids=["sd1", "sdxl"])
def test_diffusers_reads_the_fused_file_as_the_formula_says(tmp_path: Path, xl: bool, spelling: str) -> None:
    pipe = pipeline(xl)
    modules = modules_of(pipe)
    # Ranks differ in the text encoders as well: diffusers knows one alpha of theirs only.
    some = [module for module in modules if not module.kernel and "v_proj" not in module.dotted]
    content, style = loras.random_lora(modules, 4, 1, alpha=2), loras.random_lora(some, 3, 2, alpha=3)
    loras.write(tmp_path / "content.safetensors", content)
    loras.write(tmp_path / "style.safetensors", style, "peft")
    fused = tmp_path / "fused.safetensors"
    command = [str(tmp_path / "content.safetensors"), str(tmp_path / "style.safetensors"), "-o", str(fused)]
    settings = ["--mu", "1.5", "--content-weight", "0.8", "--dtype", "fp32", "--spelling", spelling]
    assert main(["fuse", *command, *settings]) == 0

    pipe.load_lora_weights(fused)
    found: dict[str, Tensor] = {}
    for component, model in components(pipe).items():
        found |= deltas(model, component)
    expected = {}
    for module, factors in content.items():
        delta = 0.8 * factors.matrix()
        if module in style:
            delta = reference.fused([(1.0, delta)], [(1.0, style[module].matrix())], 1.5)
        expected[module.canonical] = torch.from_numpy(delta).float()
    assert_same(found, expected)
    assert_same(read(fused), expected)


def test_the_fused_file_is_read_back(tmp_path: Path) -> None:
    for seed, name in enumerate(("content", "style")):
        loras.write(tmp_path / f"{name}.safetensors", loras.random_lora(loras.SDXL, seed=seed), "kohya sgm")
    command = [str(tmp_path / f"{name}.safetensors") for name in ("content", "style")]
    assert main(["fuse", *command, "-o", str(tmp_path / "fused.safetensors")]) == 0
    keys = read_lora(tmp_path / "content.safetensors").weights.deltas.keys()
    assert set(read_lora(tmp_path / "fused.safetensors").weights.deltas) == set(keys)
    assert ModuleKey("lora_te2_text_projection", "te") in keys


@torch.no_grad()
def test_an_sdxl_unet_gives_what_the_formula_gives(tmp_path: Path) -> None:
    """The output, of adapters that diffusers applies and of weights that the formula changes."""
    torch.manual_seed(0)
    pipe = pipeline(xl=True)
    merged = copy.deepcopy(pipe.unet)
    modules = [module for module in modules_of(pipe) if module.component == "unet"]
    content, style = loras.random_lora(modules[::2], 4, 1, alpha=1), loras.random_lora(modules, 3, 2, alpha=1)
    loras.write(tmp_path / "content.safetensors", content)
    loras.write(tmp_path / "style.safetensors", style, "peft")
    fused = tmp_path / "fused.safetensors"
    pair = [str(tmp_path / "content.safetensors"), str(tmp_path / "style.safetensors")]
    assert main(["fuse", *pair, "-o", str(fused), "--mu", "hard", "--dtype", "fp32"]) == 0
    pipe.load_lora_weights(fused)

    for module, factors in style.items():
        delta = factors.matrix()
        if module in content:
            delta = reference.fused([(1.0, content[module].matrix())], [(1.0, delta)], float("inf"))
        weight = merged.get_submodule(module.dotted).weight
        weight += torch.from_numpy(delta).float().reshape(weight.shape)

    generator = torch.Generator().manual_seed(3)
    inputs = {
        "sample": torch.randn(1, 4, 8, 8, generator=generator),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 5, 2048, generator=generator),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(1, 32, generator=generator),
            "time_ids": torch.randn(1, 6, generator=generator),
        },
    }
    found, expected = (model(**inputs).sample.numpy() for model in (pipe.unet, merged))
    error = reference.error(found, expected)
    print(f"SDXL: output {error:.1e}")
    assert error < judging.CLOSE


PEFT_KINDS: dict[str, PeftConfig] = {
    "LoHa": LoHaConfig(r=3, alpha=2, target_modules=UNET_TARGETS),
    "LoHa Tucker": LoHaConfig(r=3, alpha=2, target_modules=UNET_TARGETS, use_effective_conv2d=True),
    "LoHa patterns": LoHaConfig(
        r=3, alpha=2, target_modules=UNET_TARGETS, rank_pattern={"to_q": 2}, alpha_pattern={"to_q": 5}
    ),
    "LoKr": LoKrConfig(r=2, alpha=3, target_modules=UNET_TARGETS),
    "LoKr Tucker": LoKrConfig(r=2, alpha=3, target_modules=UNET_TARGETS, use_effective_conv2d=True),
    "LoKr both": LoKrConfig(r=1, alpha=3, target_modules=UNET_TARGETS, decompose_both=True, decompose_factor=8),
    "LoKr whole": LoKrConfig(r=64, alpha=16, target_modules=UNET_TARGETS),
    "DoRA": LoraConfig(r=3, lora_alpha=2, target_modules=UNET_TARGETS, use_dora=True),
    "DoRA rslora": LoraConfig(r=4, lora_alpha=2, target_modules=UNET_TARGETS, use_dora=True, use_rslora=True),
    "bias": LoraConfig(r=3, lora_alpha=2, target_modules=["proj_in", "conv1", "time_emb_proj"], lora_bias=True),
}
"""What else PEFT trains of what files in the wild hold. Its IA3, OFT and BOFT are spelled like no image LoRA."""


@pytest.mark.parametrize("kind", PEFT_KINDS)
def test_other_kinds_that_peft_writes(tmp_path: Path, kind: str) -> None:
    """The delta is what merging adds to the weights."""
    torch.manual_seed(0)
    base = small_unets.tiny_unet()
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    before = {name: weight.detach().clone() for name, weight in base.named_parameters()}
    model = get_peft_model(base, PEFT_KINDS[kind])
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if any(part in name for part in ("lora_A", "lora_B", "hada_", "lokr_")):
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
        elif "magnitude" in name:
            weight.data *= 1 + 0.1 * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(tmp_path)
    names = [
        name.removeprefix("base_model.model.")
        for name, layer in model.named_modules()
        if isinstance(layer, (LoraLayer, LycorisLayer))
    ]
    after = dict(model.merge_and_unload().named_parameters())
    expected: dict[str, np.ndarray] = {}
    for name in names:
        delta = (after[f"{name}.weight"] - before[f"{name}.weight"]).detach().flatten(1)
        expected[small_unets.canonical("unet", name)] = delta.double().numpy()
        if kind == "bias":
            bias = (after[f"{name}.bias"] - before[f"{name}.bias"]).detach()[:, None]
            expected[small_unets.canonical("unet", name) + ".bias"] = bias.double().numpy()
    base_path = tmp_path / "base.safetensors" if kind.startswith("DoRA") else None
    judging.assert_close(f"PEFT {kind}", judging.read(tmp_path / "adapter_model.safetensors", base_path), expected)


@pytest.mark.parametrize("words", ["ia3_l", "oft_R.weight", "boft_R", "vera_lambda_b"])
def test_kinds_that_only_peft_knows_are_refused_by_name(tmp_path: Path, words: str) -> None:
    name = f"base_model.model.down_blocks.0.resnets.0.conv1.{words}"
    save_file({name: torch.ones(4, 4)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(FileError, match=r"PEFT|OFT"):
        read_lora(tmp_path / "adapter_model.safetensors")
