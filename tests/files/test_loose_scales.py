"""The scale that stands in loose fields of a header."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_nplora.files import read_lora
from lib_nplora.jobs.pair import FilePair, Saving, fuse_files, inspect_files
from lib_nplora.request.request import FusionRequest, Source

UNET = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
ONE, OTHER = UNET.removeprefix("unet."), UNET.replace("unet.", "diffusion_model.")
KOHYA = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
RANK = 4


def write(path: Path, metadata: dict[str, str], *names: str, alpha: float | None = None, seed: int = 0) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in names:
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, 16, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(16, RANK, generator=generator)
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, metadata)
    return path


def scales(path: Path, *names: str) -> list[float]:
    """What multiple each module's delta is of the product of its factors, which is calculated in float64."""
    found = {key.part: delta.dense().double() for key, delta in read_lora(path).weights.deltas.items()}
    with_factors = torch.Generator().manual_seed(0)
    told = []
    for name in names:
        down, up = torch.randn(RANK, 16, generator=with_factors), torch.randn(16, RANK, generator=with_factors)
        plain = up.double() @ down.double()
        delta = found["te" if name.startswith("text") else "unet"]
        scale = float((delta * plain).sum() / (plain * plain).sum())
        torch.testing.assert_close(delta, scale * plain, atol=1e-5, rtol=1e-5)
        told.append(scale)
    return told


@pytest.mark.parametrize(
    ("metadata", "scale"),
    [
        ({"lora_alpha": "16"}, 4),
        ({"network_alpha": "2.0", "rank": "4"}, 0.5),
        ({"alpha": "8", "lora_rank": "4"}, 2),
        ({"alpha": "8", "lora_alpha": "16"}, 4),
        ({"unet.lora_alpha": "16", "unet.r": "4"}, 4),
        ({"unet.lora_alpha": "16", "lora_alpha": "8"}, 4),
        ({"lora_alpha": "16", "use_rslora": "True"}, 16 / math.sqrt(RANK)),
        ({"lora_alpha": "16", "use_rslora": "false"}, 4),
        ({"lora_alpha": "16", "r": "8"}, 4),
        ({"ss_network_alpha": "16", "ss_network_dim": "4"}, 1),
        ({"text_encoder.lora_alpha": "16"}, 1),
        ({"lora_alpha": "16", "lora_adapter_metadata": json.dumps({"unet.lora_alpha": 12, "unet.r": 4})}, 3),
    ],
)
def test_a_field_of_the_header_tells_the_scale(tmp_path: Path, metadata: dict[str, str], scale: float) -> None:
    assert scales(write(tmp_path / "x.safetensors", metadata, UNET), UNET) == [pytest.approx(scale, rel=1e-6)]


@pytest.mark.parametrize("name", [UNET, ONE, OTHER, KOHYA])
def test_a_field_of_the_model_holds_however_its_modules_are_spelled(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "x.safetensors", {"unet.lora_alpha": "16"}, name)
    assert scales(path, name) == [pytest.approx(4, rel=1e-6)]


@pytest.mark.parametrize("component", ["unet", "transformer"])
@pytest.mark.parametrize("name", [UNET, ONE, OTHER, KOHYA])
def test_so_do_the_settings_of_diffusers(tmp_path: Path, name: str, component: str) -> None:
    end = UNET.removeprefix("unet.")
    settings = {f"{component}.lora_alpha": 16, f"{component}.r": 4, f"{component}.alpha_pattern": {end: 32}}
    path = write(tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(settings)}, name)
    is_other = name == UNET and component == "transformer"
    assert scales(path, name) == [pytest.approx(1 if is_other else 4 if name == KOHYA else 8, rel=1e-6)]


def test_each_component_has_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"lora_alpha": "16", "text_encoder.lora_alpha": "8"}, UNET, TEXT)
    assert scales(path, UNET, TEXT) == [pytest.approx(4, rel=1e-6), pytest.approx(2, rel=1e-6)]


def test_a_tensor_is_believed_before_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"lora_alpha": "16"}, UNET, alpha=2.0)
    assert scales(path, UNET) == [pytest.approx(0.5, rel=1e-6)]
    assert not read_lora(path).scales_beside


def pair(folder: Path, metadata: dict[str, str], *names: str) -> FilePair:
    content = write(folder / "dog.safetensors", metadata, *names)
    style = write(folder / "style.safetensors", {}, *names, seed=1)
    return FilePair(content, style, FusionRequest.of((Source("dog"),), (Source("style"),)))


def remarks(one: FilePair) -> list[str]:
    """What an inspection remarks, which is what a fusion does."""
    told = [str(remark) for remark in inspect_files(one).remarks]
    assert told == [str(remark) for remark in fuse_files(one, Saving(one.content.with_name("o.safetensors"))).remarks]
    return told


def test_a_scale_that_webuis_do_not_see_is_remarked_once(tmp_path: Path) -> None:
    assert remarks(pair(tmp_path, {"lora_alpha": "16"}, UNET, TEXT)) == [
        "'dog.safetensors' holds its scale (4) beside its tensors alone, where WebUIs do not look: "
        "by a tag they apply it with scale 1, 0.25 x as strong as here"
    ]


def test_several_scales_are_told_as_a_range(tmp_path: Path) -> None:
    (told,) = remarks(pair(tmp_path, {"lora_alpha": "16", "text_encoder.lora_alpha": "8"}, UNET, TEXT))
    assert "its scale (2-4)" in told
    assert told.endswith("apply it with scale 1")


def test_a_scale_of_1_is_not_worth_a_word(tmp_path: Path) -> None:
    assert remarks(pair(tmp_path, {"lora_alpha": "4"}, UNET)) == []


def test_a_header_that_nobody_needs_is_not_worth_a_word(tmp_path: Path) -> None:
    file = read_lora(write(tmp_path / "x.safetensors", {"alpha": "Dynamic"}, UNET, alpha=2.0))
    assert (file.scales_beside, file.unread) == (frozenset(), ())


@pytest.mark.parametrize("value", ["Dynamic", "", "nan", "1e999", "0", "-4"])
def test_what_is_no_alpha_is_passed_over_with_a_remark(tmp_path: Path, value: str) -> None:
    one = pair(tmp_path, {"lora_alpha": value}, UNET)
    assert scales(one.content, UNET) == [pytest.approx(1, rel=1e-6)]
    assert remarks(one) == [
        f"the header of 'dog.safetensors' tells no scale that can be read (lora_alpha={value}): 1 is taken"
    ]
