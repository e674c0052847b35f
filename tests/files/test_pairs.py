"""Two files meet by the words that both use, whatever the model; two models are refused."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lib_nplora.command_line.main import main
from lib_nplora.errors import FileError, MismatchError
from lib_nplora.files import read_pair
from tests import loras
from tests.files import newer

OLDER = {"SD 1": "sd_v1", "SDXL": "sdxl_base_v1-0", "SD 3": "sd3", "Flux": "flux1", "LTX": "ltx-video"}
"""Label -> how headers name it."""
HEADERS = {**newer.HEADERS, **{label: {"ss_base_model_version": name} for label, name in OLDER.items()}}


def lora(module: str, out: int, in_: int, seed: int = 0, rank: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(out, rank, generator=generator), torch.randn(rank, in_, generator=generator)
    roles = ("lora_up", "lora_down") if "." not in module else ("lora_B", "lora_A")
    return {f"{module}.{roles[0]}.weight": up, f"{module}.{roles[1]}.weight": down}


def fuse(folder: Path, content: dict[str, Tensor], style: dict[str, Tensor], *options: str, **header: str) -> int:
    for name, state in (("content", content), ("style", style)):
        newer.write(folder / f"{name}.safetensors", state, header)
    names = [str(folder / f"{name}.safetensors") for name in ("content", "style", "out")]
    return main(["fuse", *names[:2], "-o", names[2], "--dtype", "fp32", "--overwrite", *options])


PREFIXES = ("diffusion_model.", "lora_unet_", "transformer.", "", "base_model.model.", "lycoris_", "lora_te_", "unet.")
WORDS = ("stream", "blocks", "layers", "mix", "attn", "gate", "proj", "q", "wide_conv", "encoder2", "experts", "MoE")


def unheard_of(number: int) -> tuple[str, list[str]]:
    """The prefix and the names of the layers of a model that nobody has heard of."""
    generator = random.Random(number)
    prefix = PREFIXES[number % len(PREFIXES)]
    stem = ".".join(generator.sample(WORDS[:5], 2))
    tails = {".".join(generator.sample(WORDS[4:], generator.choice((1, 2)))) for _ in range(4)}
    names = [f"{stem}.{block}.{tail}" for block in range(2) for tail in sorted(tails)]
    return prefix, [name.replace(".", "_") if prefix.endswith("_") else name for name in names]


@pytest.mark.parametrize("number", range(60))
def test_a_model_that_nobody_has_heard_of(tmp_path: Path, number: int) -> None:
    """Every layer of both is fused, under its own name, and the header says what the inputs' say of the model."""
    prefix, names = unheard_of(number)
    content, style = {}, {}
    for i, name in enumerate(names):
        content |= lora(prefix + name, 8, 6, i)
        style |= lora(prefix + name, 8, 6, 100 + i) if i else {}
    told = {"ss_base_model_version": f"model-{number}", "ss_tag_frequency": "{}"}
    assert fuse(tmp_path, content, style, "--method", "direct", **told) == 0
    out = load_file(tmp_path / "out.safetensors")
    assert {name for name in out if not name.endswith(".alpha")} == content.keys()
    found = newer.Written.of(out, prefix).deltas
    for name, delta in newer.Written.of(content, prefix).deltas.items():
        right = delta + newer.Written.of(style, prefix).deltas.get(name, 0)
        torch.testing.assert_close(found[name], right, atol=1e-5, rtol=1e-5)
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata()["ss_base_model_version"] == f"model-{number}"
        assert "ss_tag_frequency" not in file.metadata()


@pytest.mark.parametrize(("one", "other"), [*itertools.permutations(HEADERS, 2)])
def test_headers_that_name_two_models_are_refused(tmp_path: Path, one: str, other: str) -> None:
    state = lora("diffusion_model.layers.0.attention.to_q", 8, 8)
    paths = [newer.write(tmp_path / f"{i}.safetensors", state, HEADERS[label]) for i, label in enumerate((one, other))]
    with pytest.raises(MismatchError, match=rf"'0\.safetensors' names {one} and that of '1\.safetensors' {other}:"):
        read_pair(*paths)


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(newer.LAYERS, 2)])
def test_layers_that_show_two_models_are_refused(tmp_path: Path, one: str, other: str) -> None:
    paths = [
        newer.write(tmp_path / f"{i}.safetensors", newer.kohya(newer.random_lora(label, 1, i)))
        for i, label in enumerate((one, other))
    ]
    with pytest.raises(MismatchError, match=rf"'0\.safetensors' is made for {one} and '1\.safetensors' for {other}:"):
        read_pair(*paths)


@pytest.mark.parametrize("label", newer.LAYERS)
def test_a_header_and_layers_that_show_another_model_are_refused(tmp_path: Path, label: str) -> None:
    flux = newer.write(tmp_path / "f.safetensors", loras.block_tensors(loras.random_blocks(loras.FLUX), "kohya"))
    other = newer.write(tmp_path / "o.safetensors", newer.comfyui(newer.random_lora(label, 1, 1)), newer.HEADERS[label])
    with pytest.raises(MismatchError, match=rf"'f\.safetensors' is made for Flux and 'o\.safetensors' for {label}:"):
        read_pair(flux, other)


QKV = "double_blocks.0.img_attn.qkv"


@pytest.mark.parametrize("label", ["Chroma", "FLUX.2", "HunyuanVideo"])
def test_names_alone_yield_to_what_the_other_file_says(tmp_path: Path, label: str) -> None:
    """FLUX.1 has taught its names to others: a file without a header that could be for any of them is no obstacle."""
    name = QKV.replace("attn.", "attn_") if label == "HunyuanVideo" else QKV
    told = newer.write(tmp_path / "t.safetensors", lora(f"diffusion_model.{name}", 36, 12), newer.HEADERS[label])
    silent = newer.write(tmp_path / "s.safetensors", lora("lora_unet_double_blocks_0_img_attn_qkv", 36, 12, 1))
    for pair in ((told, silent), (silent, told)):
        found = read_pair(*pair)
        assert found.family
        assert found.family.label == label
        assert found.content.weights.deltas.keys() == found.style.weights.deltas.keys()


@pytest.mark.parametrize(
    ("layer", "rows", "columns", "label"),
    [
        ("single_blocks.0.linear1", 9, 1, "FLUX.2"),
        ("single_blocks.0.linear1", 7, 1, None),
        ("single_blocks.0.linear1", 8, 1, None),
        ("single_blocks.0.linear2", 1, 4, "FLUX.2"),
        ("single_blocks.0.linear2", 1, 5, None),
        ("double_blocks.0.img_mlp.0", 6, 1, "FLUX.2"),
        ("double_blocks.0.img_mlp.0", 4, 1, None),
        ("double_blocks.0.txt_mlp.2", 1, 3, "FLUX.2"),
        ("double_blocks.0.img_mod.lin", 6, 1, "Flux"),
        ("single_blocks.9.modulation.lin", 3, 1, "Flux"),
        ("double_blocks.9.img_attn.qkv", 3, 1, None),
        ("double_blocks.25.img_attn.proj", 1, 1, None),
        ("single_blocks.45.linear2", 1, 4, "FLUX.2"),
    ],
)
def test_ratios_and_counts_tell_models_of_the_same_names(
    tmp_path: Path, layer: str, rows: int, columns: int, label: str | None
) -> None:
    state = lora(f"diffusion_model.{layer}", rows * 16, columns * 16)
    paths = [newer.write(tmp_path / f"{name}.safetensors", state) for name in "ab"]
    family = read_pair(*paths).family
    assert (family and family.label) == label


@pytest.mark.parametrize(
    ("layer", "rows", "said"),
    [
        (
            "double_blocks.0.img_attn.qkv",
            3,
            "may be Chroma, Flux, FLUX.2 or HunyuanVideo: no header will name it",
        ),
        ("single_blocks.0.linear1", 7, "may be Chroma, Flux or HunyuanVideo: no header will name it"),
        ("transformer_blocks.0.attn1.to_q", 1, "may be Anima: no header will name it"),
        ("stream.0.q", 1, "for a model that is not known here"),
    ],
)
def test_what_does_not_tell_its_model_is_said_and_named_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layer: str, rows: int, said: str
) -> None:
    """FLUX.1's width is others', too, and LTX-Video has names of Anima's."""
    name = f"diffusion_model.{layer}"
    assert fuse(tmp_path, lora(name, rows * 3072, 3072), lora(name, rows * 3072, 3072, 1)) == 0
    assert said in capsys.readouterr().err
    paths = [str(tmp_path / f"{role}.safetensors") for role in ("content", "style")]
    assert main(["inspect", *paths]) == 0
    assert said in capsys.readouterr().err
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert "ss_base_model_version" not in file.metadata()


@pytest.mark.parametrize("layers", [["double_blocks.0.img_attn.qkv"], ["double_blocks.0.img_attn.proj"]])
def test_what_could_be_for_several_models_is_for_no_other(tmp_path: Path, layers: list[str]) -> None:
    state = {name: tensor for layer in layers for name, tensor in lora(f"diffusion_model.{layer}", 36, 12).items()}
    flux = newer.write(tmp_path / "f.safetensors", state)
    wan = newer.write(tmp_path / "w.safetensors", newer.comfyui(newer.random_lora("Wan", 1, 1)))
    with pytest.raises(
        MismatchError, match=r"'f\.safetensors' is made for Chroma, Flux.* and 'w\.safetensors' for Wan:"
    ):
        read_pair(flux, wan)


@pytest.mark.parametrize(("flat", "dotted"), [("lora_unet_", "diffusion_model."), ("lycoris_", "transformer.")])
def test_underscores_and_dots_are_the_same_words(tmp_path: Path, flat: str, dotted: str) -> None:
    """What one file has with dots and the other with underscores is written with underscores."""
    names = ("stream.0.mix.q", "stream.0.mix.k")
    content = {name: tensor for i, layer in enumerate(names) for name, tensor in lora(dotted + layer, 8, 6, i).items()}
    style = lora(flat + names[0].replace(".", "_"), 8, 6, 9)
    for pair in ((content, style), (style, content)):
        assert fuse(tmp_path, *pair, "--method", "direct") == 0
        out = load_file(tmp_path / "out.safetensors")
        assert {name.split(".")[0] for name in out} == {flat + name.replace(".", "_") for name in names}


@pytest.mark.parametrize("spelling", [["--spelling", "comfyui"], ["--spelling", "diffusers"]])
def test_a_language_model_keeps_its_names_beside_another_spelling(tmp_path: Path, spelling: list[str]) -> None:
    text = "lora_te_layers_0_self_attn_q_proj"
    content = {**newer.comfyui(newer.random_lora("Anima", 2, 1)), **lora(text, 8, 6)}
    style = {**newer.kohya(newer.random_lora("Anima", 2, 2)), **lora(text, 8, 6, 1)}
    assert fuse(tmp_path, content, style, "--method", "direct", *spelling) == 0
    found = newer.Written.of(load_file(tmp_path / "out.safetensors"), "").deltas
    right = sum(newer.Written.of(state, "").deltas[text] for state in (content, style))
    torch.testing.assert_close(found[text], right, atol=1e-5, rtol=1e-5)
    assert all(name.startswith(("transformer.", "diffusion_model.", text)) for name in found)


def test_other_words_of_an_unknown_model_are_refused(tmp_path: Path) -> None:
    paths = [
        newer.write(tmp_path / f"{end}.safetensors", lora(f"diffusion_model.stream.0.{end}", 8, 6))
        for end in ("q", "to_q")
    ]
    with pytest.raises(FileError) as caught:
        read_pair(*paths)
    assert "'q.safetensors' is for a model that is not known here (it holds layer diffusion_model.stream.0.q)" in str(
        caught.value
    )
    assert "'to_q.safetensors' names no layer by the same words: where a WebUI loads it" in str(caught.value)


def test_an_unknown_model_has_no_other_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = lora("diffusion_model.stream.0.q", 8, 6)
    assert fuse(tmp_path, state, {name: 2 * tensor for name, tensor in state.items()}, "--spelling", "kohya") == 2
    assert "is for a model that is not known here" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_strengths_by_block_count_in_an_unknown_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {**lora("diffusion_model.layers.0.q", 8, 6), **lora("diffusion_model.layers.3.q", 8, 6, 1)}
    style = {name: 2 * tensor for name, tensor in state.items()}
    assert fuse(tmp_path, state, style, "--content-weight", "1,single3@0", "--style-weight", "1,single3@0") == 0
    assert "diffusion_model.layers.3.q.lora_A.weight" not in load_file(tmp_path / "out.safetensors")
    assert fuse(tmp_path, state, style, "--content-weight", "1,double3@0") == 2
    assert "this model has no block double3: it has single0 and single3" in capsys.readouterr().err


def test_a_unet_is_written_as_every_webui_reads_it(tmp_path: Path) -> None:
    """Not all WebUIs read a UNet by diffusers' names, so that what both files spell so is written in kohya's."""
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    assert fuse(tmp_path, lora(layer, 8, 768), lora(layer, 8, 768, 1)) == 0
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    assert {tensor.split(".")[0] for tensor in load_file(tmp_path / "out.safetensors")} == {name}
