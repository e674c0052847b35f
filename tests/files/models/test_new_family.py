"""A whole model family in one file: a toy transformer of its own names, which is read, paired, fused and written.

Weave has two blocks. Its authors hold q, k and v of a block in one layer, diffusers has them one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_nplora.command_line.main import main
from lib_nplora.errors import FileError
from lib_nplora.files import Base, Family, read_lora, text_encoders
from lib_nplora.files.models import PREFIX, families, register
from lib_nplora.files.models.family import Evidence
from lib_nplora.files.slot import Slot
from lib_nplora.layers.block import Block
from lib_nplora.layers.key import ModuleKey
from lib_nplora.maths.delta import Delta
from tests.reference import np_lora

WIDTH = 12
BLOCKS = range(2)

# The family


SLICES = {"to_q": 0, "to_k": 1, "to_v": 2}


def slot_of(rest: str) -> Slot | None:
    if rest == "weave_embedder":
        return Slot(f"{PREFIX}weave_embedder")
    if not (match := re.fullmatch(r"layers_(\d+)_(?:attention_(qkv|to_[qkv]|out)|feed_forward)", rest)):
        return None
    if match[2] not in SLICES:
        return Slot(PREFIX + rest)
    first = SLICES[match[2]]
    return Slot(f"{PREFIX}layers_{match[1]}_attention_qkv", (first, first + 1))


def is_weave(layer: str) -> bool:
    return layer.startswith(PREFIX) and slot_of(layer.removeprefix(PREFIX)) is not None


def claims(evidence: Evidence) -> float:
    return float(any(map(is_weave, evidence.widths)))


def in_diffusers(layers: Mapping[ModuleKey, Delta]) -> dict[str, Delta]:
    found: dict[str, Delta] = {}
    for key, delta in layers.items():
        name = str(key.name)
        if key.part == "te":
            found[text_encoders.in_diffusers(name)] = delta
            continue
        match = re.fullmatch(rf"{PREFIX}layers_(\d+)_(attention|feed_forward)_?(\w*)", name)
        if match is None:
            found["transformer.weave_embedder"] = delta
        elif match[3] != "qkv":
            found["transformer." + ".".join(filter(None, ("layers", *match.groups())))] = delta
        else:
            start = key.rows[0] if key.rows else 0
            for slice_, number in SLICES.items():
                rows = (number * WIDTH - start, (number + 1) * WIDTH - start)
                if 0 <= rows[0] < rows[1] <= delta.shape[0]:
                    found[f"transformer.layers.{match[1]}.attention.{slice_}"] = delta.rows(*rows)
    return found


WEAVE = Family(
    "Weave",
    {"ss_base_model_version": "weave", "ss_v2": "False"},
    blocks=(Block("te", 1), Block("in"), *(Block("single", number) for number in BLOCKS)),
    bare=("layers", "weave_embedder"),
    slot_of=slot_of,
    claims=claims,
    has=is_weave,
    entries={"diffusers": in_diffusers},
    slice_count=lambda layer: 3 if layer.endswith("_attention_qkv") else 0,
)


@pytest.fixture
def weave() -> Iterator[Family]:
    undo = register(WEAVE)
    yield WEAVE
    undo()


# Its files


Matrices = dict[str, np.ndarray]
"""Layer, as Weave's authors call it -> delta."""

SHAPES = {
    "weave_embedder": (WIDTH, 8),
    **{f"layers.{i}.attention.qkv": (3 * WIDTH, WIDTH) for i in BLOCKS},
    **{f"layers.{i}.attention.out": (WIDTH, WIDTH) for i in BLOCKS},
    **{f"layers.{i}.feed_forward": (4 * WIDTH, WIDTH) for i in BLOCKS},
}
TEXT = "text_encoder.text_model.encoder.layers.0.mlp.fc1"


def factors(rank: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {**SHAPES, TEXT: (20, 10)}
    return {
        layer: (torch.randn(out, rank, generator=generator), torch.randn(rank, in_, generator=generator))
        for layer, (out, in_) in shapes.items()
    }


def authors_file(path: Path, lora: dict[str, tuple[Tensor, Tensor]]) -> Path:
    """Layers whole, by their authors' names in kohya's spelling."""
    tensors = {}
    for layer, (up, down) in lora.items():
        name = "lora_te1_text_model_encoder_layers_0_mlp_fc1" if layer == TEXT else PREFIX + layer.replace(".", "_")
        tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    save_file(tensors, path)
    return path


def diffusers_file(path: Path, lora: dict[str, tuple[Tensor, Tensor]]) -> Path:
    """q, k and v one by one, in diffusers' spelling."""
    tensors = {}
    for layer, (up, down) in lora.items():
        if layer.endswith("qkv"):
            pieces = {f"{layer.removesuffix('qkv')}{name}": part for name, part in zip(SLICES, up.chunk(3))}
        else:
            pieces = {layer: up}
        for name, part in pieces.items():
            full = name if layer == TEXT else f"transformer.{name}"
            tensors |= {f"{full}.lora_B.weight": part.contiguous(), f"{full}.lora_A.weight": down.clone()}
    save_file(tensors, path)
    return path


def dense(lora: dict[str, tuple[Tensor, Tensor]]) -> Matrices:
    return {layer: (up.double() @ down.double()).numpy() for layer, (up, down) in lora.items()}


def written(path: Path) -> Matrices:
    """The deltas of a file in diffusers' spelling, whole layers by their authors' names."""
    state = {name: tensor.double() for name, tensor in load_file(path).items()}
    found = {
        name.removesuffix(".lora_B.weight").removeprefix("transformer."): (
            up @ state[name.replace("lora_B", "lora_A")]
        ).numpy()
        for name, up in state.items()
        if name.endswith(".lora_B.weight")
    }
    for i in BLOCKS:
        slices = [found.pop(f"layers.{i}.attention.{name}") for name in SLICES]
        found[f"layers.{i}.attention.qkv"] = np.concatenate(slices)
    return found


def pair(folder: Path) -> tuple[Path, Path, Matrices, Matrices]:
    content, style = factors(3, seed=1), factors(2, seed=2)
    return (
        authors_file(folder / "cat.safetensors", content),
        diffusers_file(folder / "ink.safetensors", style),
        dense(content),
        dense(style),
    )


@pytest.mark.usefixtures("weave")
def test_it_is_read(tmp_path: Path) -> None:
    content, style, *_ = pair(tmp_path)
    whole, sliced = (read_lora(path) for path in (content, style))
    assert whole.family is sliced.family is WEAVE
    assert {str(key) for key in whole.weights.deltas} >= {
        "lora_unet_weave_embedder",
        "lora_unet_layers_0_attention_qkv",
    }
    rows = {key.rows for key in sliced.weights.deltas if key.name == "lora_unet_layers_1_attention_qkv"}
    assert rows == {(0, 12), (12, 24), (24, 36)}
    assert {key.place.block for key in whole.weights.deltas} <= {*WEAVE.blocks}


@pytest.mark.usefixtures("weave")
@pytest.mark.parametrize("content_is_whole", [True, False])
def test_it_is_paired_and_written_and_read_back(tmp_path: Path, content_is_whole: bool) -> None:
    content, style, content_deltas, style_deltas = pair(tmp_path)
    if not content_is_whole:
        content, style, content_deltas, style_deltas = style, content, style_deltas, content_deltas
    out = tmp_path / "out.safetensors"
    arguments = ["--mu", "1,single1@hard", "--dtype", "fp32", "-o", str(out)]
    assert main(["fuse", str(content), str(style), *arguments]) == 0
    found = written(out)
    assert found.keys() == {*SHAPES, TEXT}
    for layer, delta in found.items():
        mu = float("inf") if layer.startswith("layers.1.") else 1.0
        parts = 3 if layer.endswith("qkv") and content_is_whole else 1
        expected = [
            np_lora.fused([(1.0, c)], [(1.0, s)], mu)
            for c, s in zip(np.split(content_deltas[layer], parts), np.split(style_deltas[layer], parts))
        ]
        np.testing.assert_allclose(delta, np.concatenate(expected), atol=1e-5)
    with safe_open(out, framework="pt") as file:
        assert file.metadata()["ss_base_model_version"] == "weave"
    again = read_lora(out)
    assert again.family is WEAVE
    assert len(again.weights.deltas) == len(SHAPES) + 1 + 2 * len(BLOCKS)


@pytest.mark.usefixtures("weave")
def test_its_checkpoint_gives_slices_and_whole_layers(tmp_path: Path) -> None:
    weight = torch.randn(3 * WIDTH, WIDTH)
    save_file({"layers.0.attention.qkv.weight": weight}, tmp_path / "base.safetensors")
    base = Base(tmp_path / "base.safetensors")
    assert torch.equal(base.weight(Slot("lora_unet_layers_0_attention_qkv")), weight)
    assert torch.equal(base.weight(Slot("lora_unet_layers_0_attention_qkv", (1, 2))), weight[WIDTH : 2 * WIDTH])


@pytest.mark.usefixtures("weave")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mu", "1,double0@2"], "this model has no block double0: it has te1, in and single0 to single1"),
        (["--spelling", "kohya"], "Weave are not written in kohya's spelling: choose diffusers'"),
    ],
)
def test_what_it_has_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    content, style, *_ = pair(tmp_path)
    out = tmp_path / "out.safetensors"
    assert main(["fuse", str(content), str(style), *options, "-o", str(out)]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_nothing_of_it_is_left(tmp_path: Path) -> None:
    """A family that is taken out again is as unknown as before."""
    content, *_ = pair(tmp_path)
    undo = register(WEAVE)
    assert read_lora(content).family is WEAVE
    undo()
    assert WEAVE not in families()
    with pytest.raises(
        FileError, match=r"lora_unet_\w+ \(down \(3, 12\)\), which is in no .* of SD 1, SD 2, SDXL, .* or Z-Image:"
    ):
        read_lora(content)
