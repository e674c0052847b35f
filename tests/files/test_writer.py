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
from lib_nplora.files.models import Family
from lib_nplora.files.models.flux import FAMILY as FLUX
from lib_nplora.files.models.sd1 import FAMILY as SD1
from lib_nplora.files.models.sd2 import FAMILY as SD2
from lib_nplora.files.models.sd3 import FAMILY as SD3
from lib_nplora.files.models.sdxl import FAMILY as SDXL
from lib_nplora.layers.key import ModuleKey
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta
from tests import loras

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


def pair(state: dict[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    return state[f"{name}.lora_up.weight"], state[f"{name}.lora_down.weight"], float(state[f"{name}.alpha"])


def test_one_alpha_for_the_whole_file(tmp_path: Path) -> None:
    """The highest rank; other layers carry the rest in their factors."""
    deltas = {"unet": delta(3), "conv": delta(4, 1, (3, 3)), "text": delta(1, 2)}
    state = load_file(written(tmp_path / "x.safetensors", "fp32", **deltas))
    for key, name in ((UNET, "unet"), (CONV, "conv"), (TEXT, "text")):
        up, down, alpha = pair(state, str(key.name))
        assert alpha == 4
        found = alpha / len(down) * up.flatten(1) @ down.flatten(1)
        torch.testing.assert_close(found, deltas[name].dense(), atol=1e-5, rtol=1e-5)
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata()["ss_network_alpha"] == "4"


def test_whole_deltas_and_vectors_are_diffs(tmp_path: Path) -> None:
    dense = DenseDelta.of(torch.randn(5, 6, 3, 3))
    vector, bias = (DenseDelta.of(torch.randn(5)) for _ in range(2))
    name = "lora_te1_text_model_encoder_layers_0_layer_norm1"
    layers = [
        (CONV, dense),
        (ModuleKey(f"{CONV.name}.bias", "unet"), bias),
        (ModuleKey(name, "te"), vector),
        (UNET, delta()),
    ]
    write_lora(tmp_path / "x.safetensors", layers, "fp32", SD1, {})
    state = load_file(tmp_path / "x.safetensors")
    assert {tensor for tensor in state if "lora_unet_mid_block_attentions" not in tensor} == {
        f"{CONV.name}.diff", f"{CONV.name}.diff_b", "lora_te_text_model_encoder_layers_0_layer_norm1.diff"
    }  # fmt: skip
    assert torch.equal(state[f"{CONV.name}.diff"], dense.tensor())
    found = read_lora(tmp_path / "x.safetensors").weights.deltas
    for key, value in layers:
        torch.testing.assert_close(found[key].dense(), value.dense(), atol=1e-5, rtol=1e-5)


def keyed(block: loras.Block) -> ModuleKey:
    return ModuleKey(f"lora_unet_{block.canonical}", "unet")


@pytest.mark.parametrize(("blocks", "family"), [(loras.FLUX, FLUX), (loras.SD3, SD3)], ids=["flux", "sd3"])
@pytest.mark.parametrize("full", [False, True])
def test_transformers_are_stored_as_diffusers_names_them(
    tmp_path: Path, blocks: list[loras.Block], family: Family, full: bool
) -> None:
    lora = loras.random_blocks(blocks, 3)
    whole = {block: LowRankDelta(x.up, x.down) for block, x in lora.items()}
    # Canonical rows are in the order of diffusers, which `block_tensors` spells.
    state = {block: loras.in_diffusers_order(block, delta.up) @ delta.down for block, delta in whole.items()}
    layers = [
        (keyed(block), DenseDelta.of(state[block]) if full else LowRankDelta(
            loras.in_diffusers_order(block, delta.up), delta.down))
        for block, delta in whole.items()
    ]  # fmt: skip
    write_lora(tmp_path / "x.safetensors", layers, "fp32", family, {})
    found = load_file(tmp_path / "x.safetensors")
    expected = {}
    for block, rows in state.items():
        for name, part in zip(block.pieces, rows.split(list(block.pieces.values()))):
            expected[f"transformer.{name}"] = part
    endings = (".diff",) if full else (".lora_A.weight", ".lora_B.weight")
    assert set(found) == {name + ending for name in expected for ending in endings}
    for name, part in expected.items():
        stored = found[f"{name}.diff"] if full else found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"]
        torch.testing.assert_close(stored, part, atol=1e-5, rtol=1e-5)


def test_diffusers_is_told_each_rank(tmp_path: Path) -> None:
    ranks = {block: 2 + (i == 0) for i, block in enumerate(loras.FLUX)}
    layers: list[tuple[ModuleKey, LowRankDelta]] = [
        (keyed(block), LowRankDelta(torch.randn(block.height, rank), torch.randn(rank, block.width)))
        for block, rank in ranks.items()
    ]
    layers.append((TEXT, delta(2)))
    layers.append((ModuleKey("lora_te3_encoder_block_0_layer_0_SelfAttention_q", "te"), delta(2)))
    write_lora(tmp_path / "x.safetensors", layers, "fp32", FLUX, {})
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        settings = json.loads(file.metadata()["lora_adapter_metadata"])
        names = set(file.keys())
    own = {f"transformer_blocks.0.attn.to_{x}": 3 for x in "qkv"}
    assert settings["transformer.r"] == settings["transformer.lora_alpha"] == 2
    assert settings["transformer.rank_pattern"] == settings["transformer.alpha_pattern"] == own
    assert settings["text_encoder.rank_pattern"] == {}
    assert "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight" in names
    assert "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight" in names
    deltas = read_lora(tmp_path / "x.safetensors").weights.deltas
    torch.testing.assert_close(deltas[TEXT].dense(), delta(2).dense(), atol=1e-5, rtol=1e-5)


def test_biases_of_slices_are_joined_or_refused(tmp_path: Path) -> None:
    name = "lora_unet_transformer_blocks_0_attn_qkv.bias"
    parts = [ModuleKey(name, "unet", (start, start + 16)) for start in (0, 16, 32)]
    values = [DenseDelta.of(torch.randn(16)) for _ in parts]
    ends = ModuleKey("lora_unet_norm_out_linear.bias", "unet"), DenseDelta.of(torch.arange(4.0))
    write_lora(tmp_path / "x.safetensors", [*zip(parts, values), ends], "fp32", FLUX, {})
    state = load_file(tmp_path / "x.safetensors")
    assert torch.equal(
        state["diffusion_model.double_blocks.0.img_attn.qkv.diff_b"],
        torch.cat([value.dense().flatten() for value in values]),
    )
    assert state["diffusion_model.final_layer.adaLN_modulation.1.diff_b"].tolist() == [2, 3, 0, 1]
    for some in (slice(1, None), slice(None, 2), slice(None, None, 2)):
        with pytest.raises(FileError, match="in some of its slices only"):
            write_lora(tmp_path / "y.safetensors", list(zip(parts, values))[some], "fp32", FLUX, {})


class BadDisk:
    """A file that opens, and whose factors cannot be read."""

    def __init__(self, path: Path, framework: str) -> None:
        file = safe_open(path, framework)
        self.keys, self.metadata, self.get_slice = file.keys, file.metadata, file.get_slice
        self.number = file.get_tensor

    def get_tensor(self, name: str) -> torch.Tensor:
        if name.endswith(".alpha"):
            return self.number(name)
        raise OSError(5, "Input/output error")


def test_what_is_wrong_with_an_input_is_not_blamed_on_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk reads the inputs while the file is being made."""
    source = written(tmp_path / "source.safetensors", "fp32", unet=delta())
    monkeypatch.setattr("lib_nplora.files.tensor_file.safe_open", BadDisk)
    deltas = read_lora(source).weights.deltas
    with pytest.raises(FileError, match=r"^'source\.safetensors' cannot be read \(.*Input/output error\)"):
        write_lora(tmp_path / "x.safetensors", deltas.items(), "fp16", None, {})
    assert [file.name for file in tmp_path.iterdir()] == ["source.safetensors"]
