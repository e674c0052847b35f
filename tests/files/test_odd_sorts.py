"""Rare spellings mean what the usual one means; what cannot be fused as a file is refused by what was found in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_nplora.errors import FileError
from lib_nplora.files import read_lora
from tests import loras
from tests.files import odd_sorts
from tests.files.bad_rows import QUERY, normal, packed, whole

READ = {**odd_sorts.spellings(), **odd_sorts.without_effect()}
REFUSED = odd_sorts.refused()


def test_there_are_many() -> None:
    assert len(READ) + len(REFUSED) >= 70


@pytest.mark.parametrize("what", READ)
def test_it_means_what_the_usual_spelling_means(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(packed(READ[what]))
    found = {str(key): delta.dense().double() for key, delta in read_lora(path).weights.deltas.items()}
    right = odd_sorts.meaning()
    assert found.keys() == right.keys()
    for layer, delta in right.items():
        torch.testing.assert_close(found[layer].flatten(1), delta, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "transformer"])
def test_any_component_may_be_said_twice(tmp_path: Path, component: str) -> None:
    if component == "transformer":
        state = loras.block_tensors(loras.random_blocks(loras.FLUX), "diffusers")
    else:
        modules = [module for module in loras.SDXL if module.component == component]
        state = loras.tensors(loras.random_lora(modules), "peft")
    right, twice = tmp_path / "right.safetensors", tmp_path / "twice.safetensors"
    save_file(state, right)
    save_file({f"{component}.{name}": tensor for name, tensor in state.items()}, twice)
    once, again = (read_lora(path).weights.deltas for path in (right, twice))
    assert once.keys() == again.keys()
    assert once
    assert all(torch.equal(once[key].dense(), again[key].dense()) for key in once)


def test_a_bias_beside_rank_0_is_kept(tmp_path: Path) -> None:
    bias = normal(8)
    state = {f"{QUERY}.lora_up.weight": torch.zeros(8, 0), f"{QUERY}.lora_down.weight": torch.zeros(0, 8)}
    save_file({**state, f"{QUERY}.diff_b": bias}, tmp_path / "x.safetensors")
    deltas = read_lora(tmp_path / "x.safetensors").weights.deltas
    assert {str(key): delta.dense().flatten().tolist() for key, delta in deltas.items()} == {
        f"{QUERY}.bias": bias.tolist()
    }


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_by_what_was_found(tmp_path: Path, what: str) -> None:
    tensors, words = REFUSED[what]
    (tmp_path / "x.safetensors").write_bytes(packed(tensors))
    with pytest.raises(FileError, match=words) as caught:
        read_lora(tmp_path / "x.safetensors")
    for said in (str(caught.value), caught.value.told("API")):
        assert "WebUI loads it, <nplora:...> in a prompt fuses it" in said
        assert "damaged" not in said


def test_the_header_is_told(tmp_path: Path) -> None:
    header = {"modelspec.architecture": "flux-9/lora", "ss_network_module": "networks.new" + "x" * 200}
    (tmp_path / "x.safetensors").write_bytes(packed({f"{QUERY}.first.weight": normal(8, 2)}, header))
    told = r"\(its header says modelspec\.architecture flux-9/lora, ss_network_module networks\.newx{148}\.\.\.\)"
    with pytest.raises(FileError, match=told):
        read_lora(tmp_path / "x.safetensors")


def test_rank_0_everywhere_is_no_lora_to_fuse(tmp_path: Path) -> None:
    ranks = {"up": torch.zeros(8, 0), "down": torch.zeros(0, 8)}
    save_file({f"{QUERY}.lora_{side}.weight": value for side, value in ranks.items()}, tmp_path / "x.safetensors")
    with pytest.raises(FileError, match=r"'x\.safetensors' changes nothing, since all its layers are of rank 0"):
        read_lora(tmp_path / "x.safetensors")


def test_two_adapters_in_one_file_are_told_apart_by_the_user(tmp_path: Path) -> None:
    state = {f"unet.conv_in.lora_{side}.{name}.weight": normal(4, 4) for side in "AB" for name in ("dog", "cat")}
    save_file({**whole(), **state}, tmp_path / "x.safetensors")
    with pytest.raises(
        FileError, match=r"one thing twice, as \S+\.(dog|cat)\.weight and as .*: save it with one of them"
    ):
        read_lora(tmp_path / "x.safetensors")
