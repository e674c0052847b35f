"""Files of every spelling give the same deltas; files that cannot be fused are refused in one sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib_nplora.errors import FileError
from lib_nplora.files import read_lora
from lib_nplora.files.opened import open_lora
from lib_nplora.files.reader import read_opened
from lib_nplora.layers.key import ModuleKey
from tests import loras

LINEAR = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"


def assert_holds(path: Path, lora: loras.Lora) -> None:
    deltas = read_lora(path).weights.deltas
    assert {str(key.name) for key in deltas} == {module.canonical for module in lora}
    for module, factors in lora.items():
        key = ModuleKey(module.canonical, "unet" if module.component == "unet" else "te")
        delta = deltas[key]
        assert delta.kernel == module.kernel
        torch.testing.assert_close(delta.dense().double(), torch.from_numpy(factors.matrix()), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("spelling", loras.SPELLINGS)
@pytest.mark.parametrize("alpha", [None, 1.0, 0.0])
def test_every_spelling_gives_the_textbook_delta(tmp_path: Path, spelling: str, alpha: float | None) -> None:
    lora = loras.random_lora(loras.SDXL, rank=4, alpha=alpha)
    assert_holds(loras.write(tmp_path / "x.safetensors", lora, spelling), lora)


@pytest.mark.parametrize("spelling", ["kohya", "kohya sgm"])
def test_tucker_cores_are_contracted(tmp_path: Path, spelling: str) -> None:
    lora = loras.random_lora(loras.SDXL, rank=4, alpha=2, tucker=True)
    assert any(factors.mid is not None for factors in lora.values())
    assert_holds(loras.write(tmp_path / "x.safetensors", lora, spelling), lora)


@settings(max_examples=25, deadline=None)
@given(
    rank=st.integers(1, 9),
    alpha=st.none() | st.floats(-4, 64, width=32),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    spelling=st.sampled_from(sorted(loras.SPELLINGS)),
    seed=st.integers(0, 99),
)
def test_any_rank_alpha_and_number_format(
    tmp_path_factory: pytest.TempPathFactory,
    rank: int,
    alpha: float | None,
    dtype: torch.dtype,
    spelling: str,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    lora = loras.random_lora(loras.SD1[7:9], rank, seed, alpha)
    loras.write(path, lora, spelling, dtype)
    assert_holds(
        path, {module: loras.Factors(x.up.to(dtype), x.down.to(dtype), alpha=alpha) for module, x in lora.items()}
    )


def test_a_whole_number_alpha_and_a_scale_are_read(tmp_path: Path) -> None:
    up, down = torch.ones(6, 2), torch.ones(2, 5)
    for name, value, scale in (("alpha", 4, 2.0), ("scale", 0.25, 0.25)):
        state = {f"{LINEAR}.lora_up.weight": up, f"{LINEAR}.lora_down.weight": down, f"{LINEAR}.{name}": value}
        save_file({k: torch.as_tensor(v) for k, v in state.items()}, tmp_path / "x.safetensors")
        (delta,) = read_lora(tmp_path / "x.safetensors").weights.deltas.values()
        torch.testing.assert_close(delta.dense(), scale * up @ down)


def test_digest_name_and_ignored_embeddings(tmp_path: Path) -> None:
    lora = loras.random_lora(loras.SD1)
    state = {**loras.tensors(lora), "bundle_emb.cat.string_to_param.*": torch.zeros(2, 768)}
    path = tmp_path / "my cat.safetensors"
    save_file(state, path)
    weights = read_lora(path).weights
    assert weights.name == "my cat"
    assert weights.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(weights.deltas) == len(lora)


def test_a_file_that_is_deleted_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = loras.write(tmp_path / "late.safetensors", loras.random_lora(loras.SD1))
    opened = open_lora(path)
    path.unlink()
    with pytest.raises(FileError, match=r"'late.safetensors' cannot be read: No such file or directory"):
        read_opened(opened, None, None)


def test_a_layer_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    lora = loras.random_lora(loras.SD1)
    state = loras.tensors(lora)
    state[f"{LINEAR}.lora_up.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "x.safetensors")
    deltas = read_lora(tmp_path / "x.safetensors").weights.deltas
    bad = ModuleKey(LINEAR, "unet")
    assert bad in deltas
    assert ModuleKey(LINEAR, "te") not in deltas
    for key in deltas:
        if key != bad:
            assert deltas[key].rank == 4
    with pytest.raises(FileError, match=rf"x\.safetensors.*not finite.*{LINEAR}"):
        deltas[bad]


UP, DOWN = torch.zeros(6, 2), torch.zeros(2, 5)
PAIR = {f"{LINEAR}.lora_up.weight": UP, f"{LINEAR}.lora_down.weight": DOWN}


def with_tensors(**tensors: Tensor) -> dict[str, Tensor]:
    return {**PAIR, **{f"{LINEAR}.{name.replace('__', '.')}": tensor for name, tensor in tensors.items()}}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "holds no LoRA"),
        ({"model.diffusion_model.out.2.weight": UP}, "holds no LoRA"),
        ({"bundle_emb.x.string_to_param.*": UP}, "holds no LoRA"),
        ({f"{LINEAR}.lora_up.weight": UP}, f"{LINEAR} has up but no down"),
        ({f"{LINEAR}.lora_down.weight": DOWN}, f"{LINEAR} has down but no up"),
        ({**PAIR, "lora_unet_conv_in.alpha": torch.tensor(1.0)}, "lora_unet_conv_in has neither down nor up"),
        (with_tensors(lora_down__weight=torch.zeros(3, 5)), "up of rank 2 and down of rank 3"),
        (with_tensors(lora_down__weight=torch.zeros(2, 0)), "down of shape"),
        (with_tensors(lora_down__weight=torch.zeros(2)), "down of shape"),
        (with_tensors(lora_mid__weight=torch.zeros(3, 2, 3, 3)), "up of rank 2"),
        (with_tensors(alpha=torch.zeros(2)), "alpha that is not one number"),
        (with_tensors(lora_up__weight=UP.to(torch.int8)), "number format I8"),
        ({**PAIR, "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v.lora_A.weight": DOWN,
          "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v.lora_B.weight": UP}, "holds one thing twice"),
        ({"a.lora_A.weight": DOWN, "a.lora_B.weight": UP}, r"layer a \(down \(2, 5\)\), which is in no UNet"),
        (with_tensors(dora_scale=UP), "holds DoRA modules .*--base"),
        (with_tensors(lora_magnitude_vector=UP), "holds DoRA modules .*--base"),
        ({f"{LINEAR}.hada_w1_a": UP, f"{LINEAR}.alpha": torch.tensor(1.0)}, "hada_w1_a but no hada_w1_b"),
        ({f"{LINEAR}.lokr_w1": UP}, "lokr_w1 but no lokr_w2"),
        ({f"{LINEAR}.lokr_w1": UP, f"{LINEAR}.lokr_w2": torch.zeros(2)}, "lokr_w2 .2,., which do not fit"),
        ({f"{LINEAR}.{n}.weight": UP for n in ("a1", "a2", "b1", "b2")}, "holds GLoRA modules .*--base"),
        ({f"{LINEAR}.a1.weight": UP}, "glora_a1 but no"),
        ({f"{LINEAR}.weight": UP, f"{LINEAR}.on_input": torch.tensor(1)}, "holds IA3 modules .*--base"),
        ({f"{LINEAR}.oft_blocks": UP[None]}, "holds OFT modules .*--base"),
        ({f"{LINEAR}.oft_blocks": UP[None, None]}, "holds BOFT modules .*--base"),
        ({"oft_unet_mid_block_attentions_0_proj_in.oft_diag": UP[None]}, "holds OFT modules .*--base"),
        ({f"{LINEAR}.set_weight": UP}, "holds weight-replacing modules .*--base"),
        ({"base_model.model.x.oft_R.weight": UP}, "holds OFTv2 modules"),
        ({f"{LINEAR}.diff": torch.zeros(2, 2, 2)}, "a weight of shape"),
        ({f"{LINEAR}.w_norm": UP}, "a norm of shape"),
        (with_tensors(diff_b=UP), "a bias of shape"),
        (with_tensors(diff_b=UP[0]), "a bias of shape .* and a weight of shape"),
        (with_tensors(hada_w1_a=UP), "in a LoRA module, which has no such part"),
        (with_tensors(bias_values=UP[0]), "not all of sparse_values"),
        (with_tensors(lora_up__weight=UP[..., None, None, None]), "of a convolution over time"),
        ({"transformer.transformer_blocks.0.attn.to_k.lora_A.weight": DOWN,
          "transformer.transformer_blocks.0.attn.to_k.lora_B.weight": UP}, "6 rows where 5 belong"),
        (with_tensors(something=UP), r"something \(6, 2\), which is no part of a LoRA"),
    ],
)  # fmt: skip
def test_what_is_refused_at_the_door(tmp_path: Path, state: Mapping[str, Tensor], words: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    with pytest.raises(FileError, match=words) as caught:
        read_lora(path)
    assert "x.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _cut_header,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = loras.write(tmp_path / "x.safetensors", loras.random_lora(loras.SD1))
    damage(path)
    with pytest.raises(FileError, match=r"'x\.safetensors' cannot be opened .* download or save it again"):
        read_lora(path)


class Bomb:
    """Runs when unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("the file was unpickled",)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin"])
def test_pickles_are_refused_unopened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    torch.save(Bomb(), path)
    with pytest.raises(FileError, match=r"convert it to \.safetensors"):
        read_lora(path)
    path = path.rename(path.with_suffix(".safetensors"))
    with pytest.raises(FileError, match="cannot be opened"):
        read_lora(path)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    loras.write(tmp_path / "vangogh.safetensors", loras.random_lora(loras.SD1))
    with pytest.raises(FileError, match=r"Did you mean 'vangogh\.safetensors'"):
        read_lora(tmp_path / "vangog.safetensors")
    with pytest.raises(FileError, match="is a folder: name a"):
        read_lora(tmp_path)


@pytest.mark.parametrize(
    "metadata", ["{", "[]", "1", json.dumps({"lora_alpha": "x"}), json.dumps({"unet.r": 4}),
                 json.dumps({"lora_alpha": 1, "alpha_pattern": {"(": 2}})]
)  # fmt: skip
def test_unreadable_settings_are_refused(tmp_path: Path, metadata: str) -> None:
    lora = loras.random_lora(loras.SD1)
    path = loras.write(tmp_path / "x.safetensors", lora, "peft", metadata={"lora_adapter_metadata": metadata})
    with pytest.raises(FileError, match=r"settings that belong to 'x\.safetensors' cannot be read"):
        read_lora(path)


NAME = "mid_block.attentions.0.transformer_blocks.0.attn1.to_v"


@pytest.mark.parametrize(
    ("patterns", "alpha"),
    [
        ({"to_v": 2, "attn1.to_v": 3}, 2),
        ({"attn1.to_v": 3, "to_v": 2}, 3),
        ({"ttn1.to_v": 3, "attn2.to_v": 5}, 8),
        ({"^mid_block.*to_v": 7, "to_v": 2}, 7),
        ({"to_v": 2, "^mid_block.*to_v": 7}, 2),
        ({"to_(q|v)": 6}, 6),
        ({**{f"layer.{i}": 1 for i in range(50_000)}, NAME: 9}, 9),
    ],
    ids=["first", "first again", "whole parts", "pattern", "name before pattern", "choice", "many"],
)
def test_the_first_pattern_that_fits_tells_alpha(tmp_path: Path, patterns: dict[str, float], alpha: float) -> None:
    module = next(module for module in loras.SD1 if module.canonical == LINEAR)
    lora = loras.random_lora([module], rank=4)
    settings = {"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": patterns}
    metadata = {"lora_adapter_metadata": json.dumps(settings)}
    (delta,) = read_lora(
        loras.write(tmp_path / "x.safetensors", lora, "peft", metadata=metadata)
    ).weights.deltas.values()
    torch.testing.assert_close(
        delta.dense().double(), torch.from_numpy(alpha / 4 * lora[module].matrix()), atol=1e-6, rtol=1e-5
    )


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "patterns",
    [{"(a+)+b": 1}, {"(x|y)*z": 1}, {".*.*.*.*.*x": 1}, {f"a{i}.*": 1 for i in range(501)}, {"a{1,9}{1,9}": 1}],
)
def test_patterns_that_could_take_for_ever_are_refused(tmp_path: Path, patterns: dict[str, float]) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"lora_alpha": 1, "r": 1, "alpha_pattern": patterns})}
    path = loras.write(tmp_path / "x.safetensors", loras.random_lora(loras.SD1), "peft", metadata=metadata)
    with pytest.raises(FileError, match=r"settings that belong to 'x\.safetensors' cannot be read"):
        read_lora(path)


def test_an_interrupt_that_torch_mistakes_for_an_error_is_still_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors 0.8 and torch 2.13 turn about every second Ctrl+C while a tensor is made into a ValueError."""
    path = loras.write(tmp_path / "x.safetensors", loras.random_lora(loras.SD1[:1]))
    failures = [ValueError("could not determine the shape")]

    class Interrupted:
        def __init__(self, *arguments: object, **named: object) -> None:
            self._file = safe_open(*arguments, **named)

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

        def get_tensor(self, name: str) -> Tensor:
            if failures:
                raise failures.pop()
            return self._file.get_tensor(name)

    monkeypatch.setattr("lib_nplora.files.tensor_file.safe_open", Interrupted)
    deltas = read_lora(path).weights.deltas
    with pytest.raises(KeyboardInterrupt):
        list(deltas.values())
    assert len(list(deltas.values())) == 1
    failures += [ValueError("really"), ValueError("really")]
    with pytest.raises(FileError, match=r"cannot be read \(really\)"):
        list(deltas.values())
