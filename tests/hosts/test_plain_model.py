"""The model of a host is one small class: here for a torch module with a few linear layers, and without a shelf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_nplora.errors import HostError
from lib_nplora.fusion.walk import fuse
from lib_nplora.hosts import Host, ShelfFile
from lib_nplora.hosts.protocol import shelf_of
from lib_nplora.layers.block import Block
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.request.tag import parse_tag

from ..reference import np_lora as reference
from ..reference.k_lora import Pair, winners


class PlainModel:
    """See Model. Writes into the weights of a module's linear layers, and keeps what stood there."""

    checkpoint = None

    def __init__(self, module):
        self._layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)}
        self._kept, self._applied = {}, {}

    def token(self):
        return id(self._layers)

    def blocks(self):
        return {ModuleKey(name, "unet").place.block for name in self._layers}

    def dtype(self, key):
        return self._layers[key.name].weight.dtype

    def load(self, file):
        tensors = load_file(file.path)
        names = {tensor.partition(".")[0] for tensor in tensors}
        deltas = {
            ModuleKey(name, "unet"): LowRankDelta.from_factors(tensors[f"{name}.up"], tensors[f"{name}.down"])
            for name in names & set(self._layers)
        }
        return LoraWeights(file.name, file.stamp, deltas, tuple(sorted(names - set(self._layers))))

    def apply(self, fused):
        self.clear()
        self._applied = {lora: dict(lora.first_winners()) for lora in fused}
        self._write({key.name for lora in fused for key in lora.deltas})

    def swap(self, fused, winners):
        changed = {key.name for key, winner in winners.items() if self._applied[fused][key] != winner}
        self._applied[fused].update(winners)
        self._write(changed)

    def clear(self):
        for name, weight in self._kept.items():
            self._layers[name].weight.data.copy_(weight)
        self._kept, self._applied = {}, {}

    def _write(self, names):
        for name in names:
            layer, key = self._layers[name], ModuleKey(name, "unet")
            kept = self._kept.setdefault(name, layer.weight.data.clone())
            updates = [lora.update(key, winners) for lora, winners in self._applied.items() if key in lora.deltas]
            layer.weight.data.copy_(kept.double() + sum(update.dense().double() for update in updates))


ATTENTION = (
    "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
    "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
    "mid_block_attentions_0_transformer_blocks_0_attn1_to_v",
    "up_blocks_1_attentions_2_transformer_blocks_0_attn2_to_out_0",
)
OTHERS = ("mid_block_attentions_0_transformer_blocks_0_ff_net_2", "up_blocks_1_attentions_2_proj_in")
UNTOUCHED = "time_embedding_linear_1"
WIDTH, RANKS, STEPS = 24, {"dog": 3, "vangogh": 4}, 8


@pytest.fixture
def module() -> torch.nn.ModuleDict:
    torch.manual_seed(1)
    return torch.nn.ModuleDict({name: torch.nn.Linear(WIDTH, WIDTH) for name in (*ATTENTION, *OTHERS, UNTOUCHED)})


@pytest.fixture
def host(module) -> Host:
    return Host("a module", PlainModel(module), None)


@pytest.fixture
def deltas(tmp_path) -> dict[str, dict[str, np.ndarray]]:
    """LoRA -> layer -> its update in float64. The LoRAs lie in files."""
    made = {}
    for seed, (lora, rank) in enumerate(RANKS.items()):
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name in (*ATTENTION, *OTHERS):
            loudness = 0.5 + torch.rand(1, generator=generator)
            tensors[f"{name}.up"] = loudness * torch.randn(WIDTH, rank, generator=generator)
            tensors[f"{name}.down"] = torch.randn(rank, WIDTH, generator=generator)
        save_file(tensors, tmp_path / f"{lora}.safetensors")
        numbers = {name: tensor.double().numpy() for name, tensor in tensors.items()}
        made[lora] = {name: numbers[f"{name}.up"] @ numbers[f"{name}.down"] for name in (*ATTENTION, *OTHERS)}
    return made


@pytest.fixture
def fused(host, deltas, tmp_path):
    """Makes a tag of both into a fusion for the host's model."""

    def make(*pieces: str):
        loras = [host.model.load(on_disk(tmp_path / f"{name}.safetensors")) for name in RANKS]
        return fuse(parse_tag([*RANKS, *pieces]), loras[:1], loras[1:], ByteLru(0))

    return make


def on_disk(path: Path) -> ShelfFile:
    return ShelfFile(path.stem, str(path), path.stem)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: layer.weight.data.clone() for name, layer in module.items()}


def added(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: (weight.double() - before[name].double()).numpy() for name, weight in weights(module).items()}


def np_lora(content: np.ndarray, style: np.ndarray, mu: float) -> np.ndarray:
    return reference.fused([(1.0, content)], [(1.0, style)], mu)


def k_lora(deltas: dict[str, dict[str, np.ndarray]], step: int) -> dict[str, str]:
    """The LoRA whose turn it is in each layer, at this step of STEPS."""
    pairs = {name: Pair(deltas["dog"][name], deltas["vangogh"][name], *RANKS.values()) for name in ATTENTION}
    names = {"content": "dog", "style": "vangogh"}
    return {name: names[side] for name, side in winners(pairs, step, STEPS, alpha=1.5, beta=0.5).items()}


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, change in expected.items():
        assert np.abs(found[name] - change).max() < 1e-5, name


def test_a_fusion_is_applied_and_cleared_to_the_bit(host, module, deltas, fused):
    before = weights(module)
    for mu in ("0.5", "2"):
        host.model.apply([fused(mu)])
        found = added(module, before)
        check(
            found,
            {name: np_lora(content, deltas["vangogh"][name], float(mu)) for name, content in deltas["dog"].items()},
        )
        assert not found[UNTOUCHED].any()
    host.model.apply([fused("0.5"), fused("method=direct")])
    check(
        added(module, before),
        {
            name: np_lora(content, deltas["vangogh"][name], 0.5) + content + deltas["vangogh"][name]
            for name, content in deltas["dog"].items()
        },
    )
    host.model.clear()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(module).items())


def test_layers_change_hands_with_the_steps(host, module, deltas, fused):
    before = weights(module)
    both = {name: deltas["dog"][name] + deltas["vangogh"][name] for name in OTHERS}
    lora, turns, changes = fused("method=klora"), k_lora(deltas, 0), 0
    host.model.apply([lora])
    for step in range(STEPS):
        earlier, last = weights(module), turns
        turns = k_lora(deltas, step)
        host.model.swap(lora, lora.schedule.winners(step, STEPS))
        check(added(module, before), {**both, **{name: deltas[turn][name] for name, turn in turns.items()}})
        changed = {name for name, weight in weights(module).items() if not torch.equal(weight, earlier[name])}
        assert changed == {name for name in turns if turns[name] != last[name]}
        changes += len(changed)
    assert changes > 1
    host.model.clear()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(module).items())


def test_what_fits_no_layer_is_named(host, tmp_path):
    tensors = {
        f"{name}.{side}": torch.ones(WIDTH, WIDTH) for name in (ATTENTION[0], "elsewhere") for side in ("up", "down")
    }
    save_file(tensors, tmp_path / "odd.safetensors")
    assert host.model.load(on_disk(tmp_path / "odd.safetensors")).unmatched == ("elsewhere",)


def test_the_blocks_are_those_of_the_layers(host):
    assert {Block("in", 1), Block("mid"), Block("out", 5)} <= set(host.model.blocks())


def test_without_a_shelf_no_name_is_found(host):
    with pytest.raises(HostError, match="a module keeps no list of LoRAs"):
        shelf_of(host)
