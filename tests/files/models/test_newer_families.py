"""Newer transformers: told by what their files show, read and written in every spelling, as diffusers reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.loaders import lora_conversion_utils as theirs
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lib_nplora.command_line.main import main
from lib_nplora.files import SPELLINGS, header_label, read_lora
from lib_nplora.files.models import families
from lib_nplora.layers.block import UNKNOWN
from tests.files import newer

CONVERTERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "FLUX.2": theirs._convert_non_diffusers_flux2_lora_to_diffusers,
    "Qwen-Image": theirs._convert_non_diffusers_qwen_lora_to_diffusers,
    "Wan": theirs._convert_non_diffusers_wan_lora_to_diffusers,
    "Krea 2": theirs._convert_non_diffusers_krea2_lora_to_diffusers,
    "Anima": theirs._convert_non_diffusers_anima_lora_to_diffusers,
}
"""Family -> how diffusers reads the names of its first authors."""

PREFIXES = {"kohya": "lora_unet_", "comfyui": "diffusion_model.", "diffusers": "transformer."}


def whole(path: Path) -> dict[str, Tensor]:
    """The deltas of a file by canonical names, the rows of each layer together."""
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for key, delta in read_lora(path).weights.deltas.items():
        rows = key.rows[0] if key.rows else 0
        found.setdefault(str(key.name).removeprefix("lora_unet_"), []).append((rows, delta.dense().double()))
    return {
        name: torch.cat([delta for _, delta in sorted(parts, key=lambda part: part[0])])
        for name, parts in found.items()
    }


def assert_same(found: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert found.keys() == right.keys()
    for name, delta in right.items():
        torch.testing.assert_close(found[name], delta, atol=1e-5, rtol=1e-5, msg=name)


def added(one: newer.Lora, other: newer.Lora) -> dict[str, Tensor]:
    first, second = newer.dense(one), newer.dense(other)
    return {name: first[name] + second[name] for name in first}


def fused(folder: Path, *options: str) -> Path:
    out = folder / "out.safetensors"
    pair = (str(folder / f"{name}.safetensors") for name in ("content", "style"))
    arguments = ["--method", "direct", "--dtype", "fp32", "-o", str(out), "--overwrite", *options]
    assert main(["fuse", *pair, *arguments]) == 0
    return out


def test_each_of_them_is_here() -> None:
    assert {family.label for family in families() if family.is_apart} == newer.LAYERS.keys() == newer.HEADERS.keys()


@pytest.mark.parametrize("family", newer.LAYERS)
@pytest.mark.parametrize("spelled", [newer.comfyui, newer.kohya])
def test_it_shows_without_a_header(tmp_path: Path, family: str, spelled: Callable[[newer.Lora], dict]) -> None:
    lora = newer.random_lora(family, 2, 1)
    found = read_lora(newer.write(tmp_path / "x.safetensors", spelled(lora)))
    assert found.family
    assert found.family.label == family
    blocks = {key.place.block for key in found.weights.deltas}
    assert blocks <= {*found.family.blocks}
    assert UNKNOWN not in {block.label for block in blocks}
    assert_same(whole(found.path), newer.dense(lora))


@pytest.mark.parametrize("family", newer.LAYERS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_two_spellings_meet_and_any_is_written(tmp_path: Path, family: str, spelling: str) -> None:
    content, style = newer.random_lora(family, 2, 1), newer.random_lora(family, 3, 2)
    newer.write(tmp_path / "content.safetensors", newer.comfyui(content))
    newer.write(tmp_path / "style.safetensors", newer.kohya(style))
    out = fused(tmp_path, "--spelling", spelling)
    state = load_file(out)
    assert all(name.startswith(PREFIXES[spelling]) for name in state)
    assert_same(whole(out), added(content, style))
    with safe_open(out, "pt") as file:
        assert header_label(file.metadata()) == family
    out.rename(tmp_path / "content.safetensors")
    assert_same(
        whole(fused(tmp_path)), {name: d + newer.dense(style)[name] for name, d in added(content, style).items()}
    )


@pytest.mark.parametrize(
    ("family", "spelling", "readers"),
    [(one.label, spelling, said) for one in families() if one.is_apart for spelling, said in one.readers.items()],
)
def test_who_reads_a_spelling_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str, spelling: str, readers: str
) -> None:
    """Whether it was chosen, is usual, or both files have it; not if all read it."""
    newer.write(tmp_path / "content.safetensors", newer.comfyui(newer.random_lora(family, 2, 1)))
    newer.write(tmp_path / "style.safetensors", newer.kohya(newer.random_lora(family, 3, 2)))
    fused(tmp_path, "--spelling", spelling)
    assert f"spelling LoRAs for {family} are read by {readers}" in capsys.readouterr().err
    (one,) = (known for known in families() if known.label == family)
    for spelled, name in ((newer.comfyui, "comfyui"), (newer.kohya, "kohya")):
        for role, seed in (("content", 2), ("style", 3)):
            newer.write(tmp_path / f"{role}.safetensors", spelled(newer.random_lora(family, 2, seed)))
        capsys.readouterr()
        fused(tmp_path)
        said = capsys.readouterr().err
        assert (f"are read by {one.readers[name]}" if name in one.readers else "") in said
        assert ("are read by" in said) == (name in one.readers)


@pytest.mark.parametrize("family", CONVERTERS)
def test_diffusers_reads_what_is_written(tmp_path: Path, family: str) -> None:
    """Its converter does with the first authors' names; in its own names stand the same layers and values."""
    content, style = newer.random_lora(family, 2, 1), newer.random_lora(family, 3, 2)
    newer.write(tmp_path / "content.safetensors", newer.comfyui(content))
    newer.write(tmp_path / "style.safetensors", newer.kohya(style))
    right = newer.Written.of(CONVERTERS[family](load_file(fused(tmp_path, "--spelling", "comfyui"))), "transformer.")
    ours = newer.Written.of(load_file(fused(tmp_path, "--spelling", "diffusers")), "transformer.")
    assert_same(ours.deltas, right.deltas)
    rows = sum(len(delta) for delta in right.deltas.values())
    assert rows == sum(rows for rows, _ in newer.LAYERS[family].values())


@pytest.mark.parametrize("family", CONVERTERS)
def test_what_diffusers_makes_of_a_file_is_read_as_that(tmp_path: Path, family: str) -> None:
    lora = newer.random_lora(family, 2, 1)
    converted = CONVERTERS[family](newer.comfyui(lora))
    assert_same(whole(newer.write(tmp_path / "x.safetensors", converted, newer.HEADERS[family])), newer.dense(lora))


def test_lumina_2_is_read_by_diffusers(tmp_path: Path) -> None:
    """Its converter wants every layer of a block, in the model's size."""
    names = ("attention.qkv", "attention.out", *(f"feed_forward.w{i}" for i in (1, 2, 3)), "adaLN_modulation.1")
    rows = dict(zip(names, (3840, 2304, 9216, 2304, 9216, 9216)))
    lora = {f"layers.0.{name}": (torch.randn(rows[name], 1), torch.randn(1, 2304)) for name in names}
    lora["layers.0.feed_forward.w2"] = (torch.randn(2304, 1), torch.randn(1, 9216))
    newer.write(tmp_path / "content.safetensors", newer.comfyui(lora))
    newer.write(
        tmp_path / "style.safetensors", newer.kohya({name: (2 * up, down) for name, (up, down) in lora.items()})
    )
    convert = theirs._convert_non_diffusers_lumina2_lora_to_diffusers
    right = convert(load_file(fused(tmp_path, "--spelling", "comfyui", "--mu", "hard")))
    ours = load_file(fused(tmp_path, "--spelling", "diffusers", "--mu", "hard"))
    assert ours.keys() == right.keys()
    heights = {name: tensor.shape[0] for name, tensor in right.items() if "lora_B" in name}
    assert heights == {name: tensor.shape[0] for name, tensor in ours.items() if "lora_B" in name}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_chromas_t5_is_its_first_text_encoder(tmp_path: Path, spelling: str) -> None:
    """As hosts name it, which count the text encoders that the model has; kohya's scripts call FLUX.1's the third."""
    name = "encoder.block.0.layer.0.SelfAttention.q"
    pair = [{name: (torch.randn(8, 2), torch.randn(2, 8))} for _ in range(2)]
    states = newer.comfyui(pair[0], "text_encoders.t5xxl.transformer."), newer.kohya(pair[1], "lora_te1_")
    for role, state, spelled in zip(("content", "style"), states, (newer.comfyui, newer.kohya)):
        model = spelled(newer.random_lora("Chroma", 2, len(role)))
        newer.write(tmp_path / f"{role}.safetensors", model | state, newer.HEADERS["Chroma"])
    out = load_file(fused(tmp_path, "--spelling", spelling))
    text = newer.Written.of({tensor: out[tensor] for tensor in out if "encoder_block" in tensor}, "lora_te1_")
    assert_same(text.deltas, added(*pair))


@pytest.mark.parametrize("spelled", [newer.comfyui, newer.kohya])
@pytest.mark.parametrize("family", newer.LAYERS)
def test_a_pair_that_spells_alike_is_written_as_it_is(tmp_path: Path, family: str, spelled: Callable) -> None:
    content, style = newer.random_lora(family, 2, 1), newer.random_lora(family, 3, 2)
    for name, lora in (("content", content), ("style", style)):
        newer.write(tmp_path / f"{name}.safetensors", spelled(lora), newer.HEADERS[family])
    out = fused(tmp_path)
    assert load_file(out).keys() == spelled(content).keys()
    assert_same(whole(out), added(content, style))
    with safe_open(out, "pt") as file:
        assert newer.HEADERS[family].items() <= file.metadata().items()


def test_slices_are_joined_and_rows_of_others_left_alone(tmp_path: Path) -> None:
    """A file that changes q and v alone, written whole."""
    up, down = torch.randn(newer.H, 2), torch.randn(2, newer.H)
    parts = {f"transformer.layers.1.attention.to_{name}": up * (i + 1) for i, name in enumerate("qv")}
    for name in ("content", "style"):
        factor = 0.5 if name == "content" else 1.5
        state = {f"{layer}.lora_B.weight": factor * rows for layer, rows in parts.items()}
        state |= {f"{layer}.lora_A.weight": down for layer in parts}
        newer.write(tmp_path / f"{name}.safetensors", state, newer.HEADERS["Z-Image"])
    out = load_file(fused(tmp_path, "--spelling", "comfyui"))
    name = "diffusion_model.layers.1.attention.qkv"
    found = out[f"{name}.lora_B.weight"] @ out[f"{name}.lora_A.weight"]
    right = torch.cat([2 * up @ down, torch.zeros(newer.H, newer.H), 4 * up @ down])
    torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)
