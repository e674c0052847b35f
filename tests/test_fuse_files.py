"""Files in, their fusion out: what the command line does not show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lib_nplora.files import read_lora
from lib_nplora.fuse_files import FilePair, Saving, fuse_files, inspect_files
from lib_nplora.request import FusionRequest, Source
from lib_nplora.weights import Outcome
from tests import loras


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    loras.write(tmp_path / "content.safetensors", loras.random_lora(loras.SD1, 4, 1, alpha=2))
    loras.write(tmp_path / "style.safetensors", loras.random_lora(loras.SD1[2:], 3, 2))
    return tmp_path


def pair(folder: Path, **settings: float) -> FilePair:
    request = FusionRequest((Source("content"),), (Source("style", 0.5, 0.5),), **settings)
    return FilePair(folder / "content.safetensors", folder / "style.safetensors", request)


def saved(folder: Path, **settings: float) -> dict[str, torch.Tensor]:
    out = folder / "out.safetensors"
    fuse_files(pair(folder, **settings), Saving(out, "fp32", overwrite=True))
    return {str(key): delta.dense() for key, delta in read_lora(out).weights.deltas.items()}


def test_the_multipliers_of_the_parts_reach_the_file(folder: Path) -> None:
    whole, part = saved(folder), saved(folder, te=-2.0, unet=0.25)
    assert whole.keys() == part.keys()
    for name, delta in whole.items():
        torch.testing.assert_close(part[name], (-2.0 if name.startswith("lora_te") else 0.25) * delta)
    assert {name.startswith("lora_te") for name in whole} == {True, False}
    with safe_open(folder / "out.safetensors", "pt") as file:
        (style,) = json.loads(file.metadata()["nplora_styles"])
    assert (style["te"], style["unet"]) == (-1.0, 0.125)


def test_an_inspection_tells_what_a_fusion_tells_and_writes_nothing(folder: Path) -> None:
    before = set(folder.iterdir())
    inspected = inspect_files(pair(folder, mu=2.0))
    assert set(folder.iterdir()) == before
    fused = fuse_files(pair(folder, mu=2.0), Saving(folder / "out.safetensors"))
    assert inspected.summary.layers == fused.summary.layers
    assert str(inspected.summary) == str(fused.summary)
    assert inspected.summary.removed > 0
    assert sum(layer.outcome is Outcome.CONTENT_ONLY for layer in inspected.summary.layers.values()) == 2


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dare", {"nplora_density": "0.25", "nplora_seed": "0"}),
        ("ties", {"nplora_density": "0.25"}),
        ("np", {}),
    ],
)
def test_a_file_tells_the_settings_that_made_it(folder: Path, method: str, settings: dict[str, str]) -> None:
    out = folder / "out.safetensors"
    fusion = fuse_files(pair(folder, method=method, density=0.25), Saving(out, full=True))
    with safe_open(out, "pt") as file:
        told = file.metadata()
    assert {key: told[key] for key in ("nplora_density", "nplora_seed") if key in told} == settings
    assert fusion.remarks == (() if settings else ("density= has no effect with method=np",))


def test_whole_layers_are_saved_as_they_are(folder: Path) -> None:
    once = saved_whole(folder, seed=1)
    assert all(torch.equal(once[name], delta) for name, delta in saved_whole(folder, seed=1).items())
    other = saved_whole(folder, seed=2)
    assert any(not torch.equal(once[name], delta) for name, delta in other.items())


def saved_whole(folder: Path, **settings: int) -> dict[str, torch.Tensor]:
    out = folder / "out.safetensors"
    fuse_files(pair(folder, method="dare", **settings), Saving(out, "fp32", full=True, overwrite=True))
    return {str(key): delta.dense() for key, delta in read_lora(out).weights.deltas.items()}


class Stopped(Exception):
    """Of a user who has seen enough."""


def test_whoever_watches_sees_every_layer_and_may_stop_it(folder: Path) -> None:
    seen = []

    def watch(content, style, walk):
        for layer in walk:
            seen.append((layer.key in content.deltas, layer.key in style.deltas))
            yield layer
        if stop:
            raise Stopped

    stop = False
    fuse_files(pair(folder), Saving(folder / "out.safetensors"), watch)
    assert len(seen) == len(loras.SD1)
    assert seen.count((True, False)) == 2
    stop = True
    with pytest.raises(Stopped):
        fuse_files(pair(folder), Saving(folder / "other.safetensors"), watch)
    assert sorted(path.name for path in folder.iterdir()) == [
        "content.safetensors", "out.safetensors", "style.safetensors"
    ]  # fmt: skip
