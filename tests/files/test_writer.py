"""What is written reads back the same, within what the number format allows; or nothing is written."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save

from lib_nplora.errors import FileError
from lib_nplora.files import read_lora, write_lora
from lib_nplora.files.families import SD1, SD2, SDXL, Family
from lib_nplora.lowrank import LowRankDelta
from lib_nplora.weights import ModuleKey

UNET = ModuleKey("lora_unet_mid_block_attentions_0_proj_in", "unet")
CONV = ModuleKey("lora_unet_mid_block_resnets_0_conv1", "unet")
TEXT = ModuleKey("lora_te1_text_model_encoder_layers_0_mlp_fc1", "te")
EPSILON = {"fp16": 2.0**-11, "bf16": 2.0**-8, "fp32": 2.0**-24}


def delta(rank: int = 3, seed: int = 0, kernel: tuple[int, ...] = (), lean: float = 1.0) -> LowRankDelta:
    generator = torch.Generator().manual_seed(seed)
    width = 6 * 9 if kernel else 6
    up, down = torch.randn(5, rank, generator=generator), torch.randn(rank, width, generator=generator)
    return LowRankDelta(up * lean, down / lean, kernel)


def written(path: Path, dtype: str = "fp16", family: Family | None = None, **deltas: LowRankDelta) -> Path:
    keys = {"unet": UNET, "conv": CONV, "text": TEXT}
    write_lora(path, ((keys[name], value) for name, value in deltas.items()), dtype, family, {"nplora_mu": "hard"})
    return path


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(sorted(EPSILON)),
    rank=st.integers(1, 12),
    lean=st.floats(1e-6, 1e6),
    kernel=st.sampled_from([(), (3, 3)]),
    seed=st.integers(0, 99),
)
def test_the_error_is_that_of_the_number_format(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, rank: int, lean: float, kernel: tuple[int, ...], seed: int
) -> None:
    """|dW - written| <= (2 e + e^2) |up| |down| entry by entry, however unequal the factors were."""
    original = delta(rank, seed, kernel, lean)
    path = written(tmp_path_factory.mktemp("x") / "x.safetensors", dtype, conv=original)
    (found,) = read_lora(path).weights.deltas.values()
    assert found.kernel == kernel
    assert found.rank == rank
    bound = 2.1 * EPSILON[dtype] * original.up.abs() @ original.down.abs()
    rounding = 4 * rank * 2.0**-24 * original.up.abs() @ original.down.abs() + 1e-6 * (dtype == "fp16")
    assert ((found.dense() - original.dense()).abs() <= bound + rounding).all()


def test_tensors_are_spelled_as_kohya_spells_them(tmp_path: Path) -> None:
    state = load_file(written(tmp_path / "x.safetensors", unet=delta(), conv=delta(4, kernel=(3, 3))))
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        f"{UNET.name}.lora_up.weight": (5, 3),
        f"{UNET.name}.lora_down.weight": (3, 6),
        f"{UNET.name}.alpha": (),
        f"{CONV.name}.lora_up.weight": (5, 4, 1, 1),
        f"{CONV.name}.lora_down.weight": (4, 6, 3, 3),
        f"{CONV.name}.alpha": (),
    }
    assert state[f"{CONV.name}.alpha"] == 4


@pytest.mark.parametrize(
    ("family", "prefix"), [(SD1, "lora_te_"), (SD2, "lora_te_"), (SDXL, "lora_te1_"), (None, "lora_te1_")]
)
def test_the_first_text_encoder_is_called_as_the_family_does(
    tmp_path: Path, family: Family | None, prefix: str
) -> None:
    path = written(tmp_path / "x.safetensors", family=family, text=delta())
    assert all(name.startswith(f"{prefix}text_model_") for name in load_file(path))
    assert list(read_lora(path).weights.deltas) == [TEXT]


def test_metadata(tmp_path: Path) -> None:
    path = written(tmp_path / "my fusion.safetensors", family=SDXL, unet=delta(3), text=delta(3))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "3"
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["ss_output_name"] == "my fusion"
    assert metadata["nplora_mu"] == "hard"
    raw = path.read_bytes()
    assert metadata["sshs_model_hash"] == hashlib.sha256(raw[8 + int.from_bytes(raw[:8], "little") :]).hexdigest()


def test_metadata_of_unequal_ranks_and_an_unknown_family(tmp_path: Path) -> None:
    with safe_open(written(tmp_path / "x.safetensors", unet=delta(3), text=delta(4)), framework="pt") as file:
        assert file.metadata()["ss_network_dim"] == "Dynamic"
        assert "ss_base_model_version" not in file.metadata()


def test_the_hashes_are_those_of_kohya(tmp_path: Path) -> None:
    """Computed as kohya's scripts do: over the file as it would be with no metadata but `ss_...`."""
    big = LowRankDelta(torch.randn(700, 256), torch.randn(256, 700))
    path = written(tmp_path / "x.safetensors", "fp32", unet=big)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    stream = io.BytesIO(save(load_file(path), training))
    stream.seek(0x100000)
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(stream.read(0x10000)).hexdigest()[:8]
    stream.seek(0)
    stream.seek(8 + int.from_bytes(stream.read(8), "little"))
    assert metadata["sshs_model_hash"] == hashlib.sha256(stream.read()).hexdigest()


def test_values_too_large_for_the_format_are_refused(tmp_path: Path) -> None:
    huge = LowRankDelta(torch.full((5, 1), 1e6), torch.full((1, 6), 1e6))
    with pytest.raises(FileError, match=rf"{UNET.name} .* fp16.*--dtype"):
        written(tmp_path / "x.safetensors", "fp16", unet=huge)
    assert not list(tmp_path.iterdir())
    written(tmp_path / "x.safetensors", "bf16", unet=huge)


@pytest.mark.parametrize("error", [KeyboardInterrupt, FileError, RuntimeError, MemoryError])
def test_nothing_is_left_behind(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("what was there")

    def cut_short() -> Iterator[tuple[ModuleKey, LowRankDelta]]:
        yield UNET, delta()
        raise error("stopped")

    with pytest.raises(error):
        write_lora(path, cut_short(), "fp16", None, {})
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    assert path.read_text() == "what was there"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_others_may_read_the_file_as_any_new_one(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    path = written(tmp_path / "x.safetensors", unet=delta())
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        written(tmp_path / "missing" / "x.safetensors", unet=delta())


def test_provenance_survives_as_text(tmp_path: Path) -> None:
    made_of = json.dumps([{"name": 'a "quoted" name, und Umlaute: \u00fc', "sha256": "0" * 64}])
    write_lora(tmp_path / "x.safetensors", [(UNET, delta())], "fp16", None, {"nplora_contents": made_of})
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata()["nplora_contents"] == made_of
