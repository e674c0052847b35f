"""Generated files of newer models, of one layer or with a wrong header: read as what they are, or not at all."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from safetensors import safe_open

from lib_nplora.command_line.main import main
from lib_nplora.files import header_label, read_pair
from tests.files import newer

ONE_LAYER = [(family, layer) for family, sizes in newer.LAYERS.items() for layer in sizes]


def paths(folder: Path, family: str, *layers: str, header: dict[str, str] | None = None) -> tuple[Path, Path]:
    """A pair of files, one in ComfyUI's spelling with this header, one in kohya's without."""
    loras = [newer.random_lora(family, 2, seed) for seed in (1, 2)]
    first, second = ({name: lora[name] for name in layers or lora} for lora in loras)
    one = newer.write(folder / "one.safetensors", newer.comfyui(first), header)
    return one, newer.write(folder / "other.safetensors", newer.kohya(second))


def test_there_are_many() -> None:
    assert len(ONE_LAYER) >= 80


@pytest.mark.parametrize(("family", "layer"), ONE_LAYER)
def test_one_layer_beside_a_header_is_enough(tmp_path: Path, family: str, layer: str) -> None:
    read = read_pair(*paths(tmp_path, family, layer, header=newer.HEADERS[family]))
    assert read.family
    assert read.family.label == family
    assert read.content.weights.deltas.keys() == read.style.weights.deltas.keys()


@pytest.mark.parametrize(("family", "layer"), ONE_LAYER)
def test_one_layer_alone_is_never_taken_for_another_models(tmp_path: Path, family: str, layer: str) -> None:
    """It may tell nothing: then the names, which are the same in both files, are enough."""
    read = read_pair(*paths(tmp_path, family, layer))
    assert read.family is None or read.family.label == family
    assert read.content.weights.deltas.keys() == read.style.weights.deltas.keys()
    assert len(read.content.weights.deltas) == 1


@pytest.mark.parametrize(("named", "family"), list(itertools.permutations(newer.LAYERS, 2)))
def test_layers_that_show_a_model_count_more_than_a_header(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str, family: str
) -> None:
    """It is said, and the result's header names the model of the layers."""
    one, other = paths(tmp_path, family, header=newer.HEADERS[named])
    out = tmp_path / "out.safetensors"
    assert main(["fuse", str(one), str(other), "-o", str(out)]) == 0
    said = capsys.readouterr().err
    assert f"the header of 'one.safetensors' names {named}, but its layers are those of {family}" in said
    with safe_open(out, "pt") as file:
        assert header_label(file.metadata()) == family
