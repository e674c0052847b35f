"""peft and diffusers as judges: they write what we read, and read what we write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lib_nplora.cli import main
from lib_nplora.files import read_lora
from lib_nplora.files.families import SD1, SDXL
from lib_nplora.weights import ModuleKey
from tests import loras

pytestmark = [
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
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


def text_encoder(width: int = 48, projection: bool = False) -> nn.Module:
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_attention_heads=4, num_hidden_layers=1, vocab_size=99,
        bos_token_id=0, eos_token_id=1, projection_dim=width,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def pipeline(xl: bool) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    shared = {"vae": None, "unet": unet(xl), "text_encoder": text_encoder(), "tokenizer": None, "scheduler": None}
    if xl:
        return StableDiffusionXLPipeline(**shared, text_encoder_2=text_encoder(80, True), tokenizer_2=None)
    return StableDiffusionPipeline(**shared, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def components(pipe: StableDiffusionPipeline | StableDiffusionXLPipeline) -> dict[str, nn.Module]:
    return {name: getattr(pipe, name) for name in PREFIXES if getattr(pipe, name, None) is not None}


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
            name = name.removeprefix("base_model.model.").replace(".", "_")
            if name.startswith("encoder_"):
                name = f"text_model_{name}"
            (adapter,) = layer.active_adapters
            found[f"{PREFIXES[component]}_{name}"] = layer.get_delta_weight(adapter).detach().flatten(1)
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


def modules_of(pipe: StableDiffusionPipeline | StableDiffusionXLPipeline) -> list[loras.Module]:
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


@pytest.mark.parametrize("xl", [False, True], ids=["sd1", "sdxl"])
def test_diffusers_reads_the_fused_file_as_the_formula_says(tmp_path: Path, xl: bool) -> None:
    """diffusers 0.42 misreads a text encoder whose layers differ in alpha, so only the UNet's do here."""
    pipe = pipeline(xl)
    modules = modules_of(pipe)
    linear = [module for module in modules if not module.kernel]
    content, style = loras.random_lora(modules, 4, 1, alpha=2), loras.random_lora(linear, 3, 2, alpha=3)
    loras.write(tmp_path / "content.safetensors", content)
    loras.write(tmp_path / "style.safetensors", style, "peft")
    fused = tmp_path / "fused.safetensors"
    command = [str(tmp_path / "content.safetensors"), str(tmp_path / "style.safetensors"), "-o", str(fused)]
    assert main(["fuse", *command, "--mu", "1.5", "--content-weight", "0.8", "--dtype", "fp32"]) == 0

    pipe.load_lora_weights(fused)
    found: dict[str, Tensor] = {}
    for component, model in components(pipe).items():
        found |= deltas(model, component)
    expected = {}
    for module, factors in content.items():
        delta = 0.8 * factors.dense().flatten(1)
        if module in style:
            style_delta = style[module].dense().flatten(1)
            v = torch.linalg.svd(style_delta, full_matrices=False).Vh[:3].T
            delta = style_delta + delta - 0.6 * delta @ v @ v.T
        expected[module.canonical] = delta
    assert_same(found, expected)


def test_the_fused_file_is_read_back(tmp_path: Path) -> None:
    for seed, name in enumerate(("content", "style")):
        loras.write(tmp_path / f"{name}.safetensors", loras.random_lora(loras.SDXL, seed=seed), "kohya sgm")
    command = [str(tmp_path / f"{name}.safetensors") for name in ("content", "style")]
    assert main(["fuse", *command, "-o", str(tmp_path / "fused.safetensors")]) == 0
    keys = read_lora(tmp_path / "content.safetensors").weights.deltas.keys()
    assert set(read_lora(tmp_path / "fused.safetensors").weights.deltas) == set(keys)
    assert ModuleKey("lora_te2_text_projection", "te") in keys
