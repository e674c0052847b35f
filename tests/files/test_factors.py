"""LoHa, LoKr and GLoRA files are read as exact factors where these are small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lycoris.wrapper import LycorisNetwork
from safetensors.torch import save_file
from torch import nn

from lib_nplora.files import read_lora
from lib_nplora.layers.key import ModuleKey
from lib_nplora.maths.delta import Delta
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta, pays
from tests import reference
from tests.files.judging import matrix, opened
from tests.files.trained import RECIPES, added, randomise
from tests.reference import kinds

LINEAR, CONV = "lora_unet_mid_block_attentions_0_proj_in", "lora_unet_mid_block_resnets_0_conv1"

Form = tuple[tuple[int, ...], bool]

dtypes = st.sampled_from([torch.float16, torch.bfloat16, torch.float32])
forms = st.sampled_from([((), False), ((3, 3), False), ((1, 1), True), ((3, 3), True), ((3, 1), True)])
"""Kernel, and whether there is a core: without one, a file does not tell the kernel, but the layer's name."""

ranks = st.integers(1, 5)


@dataclass(frozen=True)
class Half:
    """A factor of an entrywise or Kronecker product, as a file holds it: whole, a product, or one with a core.

    rank
        None for a whole one.
    """

    out: int
    in_: int
    rank: int | None
    kernel: tuple[int, ...]
    core: bool

    @property
    def least(self) -> int:
        """The highest rank that its matrix can have."""
        most = min(self.out, self.in_ * int(np.prod(self.kernel)))
        return most if self.rank is None else min(most, self.rank)

    def shapes(self, name: str, core: str) -> dict[str, tuple[int, ...]]:
        if self.rank is None:
            return {name: (self.out, self.in_, *self.kernel)}
        if self.core:
            shapes = {f"{name}_a": (self.rank, self.out), f"{name}_b": (self.rank, self.in_)}
            return {**shapes, core: (self.rank, self.rank, *self.kernel)}
        return {f"{name}_a": (self.out, self.rank), f"{name}_b": (self.rank, self.in_ * int(np.prod(self.kernel)))}

    def matrix(self, t: kinds.Arrays, name: str, core: str) -> np.ndarray:
        """(out, in * kernel), float64."""
        if self.rank is None:
            return kinds.flat(t[name])
        if self.core:
            return kinds.flat(kinds.tucker(t[core], t[f"{name}_a"], t[f"{name}_b"]))
        return t[f"{name}_a"] @ t[f"{name}_b"]


def delta_of(layer: str, tensors: dict[str, torch.Tensor]) -> Delta:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_file({f"{layer}.{role}": tensor for role, tensor in tensors.items()}, path)
        (delta,) = read_lora(path).weights.deltas.values()
    return delta


def assert_read(
    tensors: dict[str, torch.Tensor], kernel: tuple[int, ...], expected: np.ndarray, rank: int, alpha: float
) -> None:
    delta = delta_of(CONV if kernel else LINEAR, {**tensors, "alpha": torch.tensor(alpha)})
    shape = expected.shape
    small = 2 * rank * (shape[0] + shape[1]) <= shape[0] * shape[1]
    assert isinstance(delta, LowRankDelta if small else DenseDelta)
    if isinstance(delta, LowRankDelta):
        assert delta.rank == rank
        assert {delta.up.dtype, delta.down.dtype} == {torch.float32}
    assert delta.kernel == kernel
    assert delta.shape == shape
    assert reference.error(matrix(delta), expected) < 1e-6


def random(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {role: torch.randn(shape, generator=generator).to(dtype) for role, shape in shapes.items()}


def wide(tensors: dict[str, torch.Tensor]) -> kinds.Arrays:
    return {role: tensor.double().numpy() for role, tensor in tensors.items()}


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), ranks, forms, dtypes, st.integers(0, 99))
def test_a_loha_of_any_shape(out: int, in_: int, rank: int, form: Form, dtype: torch.dtype, seed: int) -> None:
    half = Half(out, in_, rank, *form)
    names = (("hada_w1", "hada_t1"), ("hada_w2", "hada_t2"))
    tensors = random({**half.shapes(*names[0]), **half.shapes(*names[1])}, dtype, seed)
    one, two = (half.matrix(wide(tensors), *name) for name in names)
    assert_read(tensors, half.kernel, 3 / rank * one * two, rank * rank, 3)


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 8), st.integers(1, 8), st.none() | ranks),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.none() | ranks),
    forms,
    dtypes,
    st.integers(0, 99),
)
def test_a_lokr_of_any_shape(
    first: tuple[int, int, int | None],
    second: tuple[int, int, int | None],
    form: Form,
    dtype: torch.dtype,
    seed: int,
) -> None:
    one, two = Half(*first, (), False), Half(*second, *form)
    names = (("lokr_w1", "lokr_t1"), ("lokr_w2", "lokr_t2"))
    tensors = random({**one.shapes(*names[0]), **two.shapes(*names[1])}, dtype, seed)
    product = np.kron(one.matrix(wide(tensors), *names[0]), two.matrix(wide(tensors), *names[1]))
    rank = two.rank or one.rank
    scale = 3 / rank if rank else 1
    assert_read(tensors, two.kernel, scale * product, one.least * two.least, 3)


@pytest.mark.parametrize("old", [False, True], ids=["as now", "of old"])
def test_a_glora_of_a_linear_layer(tmp_path: Path, old: bool) -> None:
    formula, parts = (kinds.glora_old, (2, 1)) if old else (kinds.glora, (1, 2))
    shapes = {f"a{parts[0]}.weight": (48, 2), f"a{parts[1]}.weight": (2, 48)}
    shapes |= {f"b{parts[0]}.weight": (64, 2), f"b{parts[1]}.weight": (2, 48)}
    tensors = {**random(shapes, torch.float32, 0), "alpha": torch.tensor(3.0)}
    base = torch.randn(64, 48)
    save_file({f"{LINEAR}.{role}": tensor for role, tensor in tensors.items()}, tmp_path / "x.safetensors")
    save_file({"mid_block.attentions.0.proj_in.weight": base}, tmp_path / "base.safetensors")
    (delta,) = read_lora(tmp_path / "x.safetensors", tmp_path / "base.safetensors").weights.deltas.values()
    assert isinstance(delta, LowRankDelta)
    assert delta.rank == 4
    roles = {role.replace(".", "__"): values for role, values in wide(tensors).items()}
    assert reference.error(matrix(delta), formula(roles, base.double().numpy())) < 1e-6


def wide_layers() -> nn.Module:
    """A linear layer and a convolution, wide enough for products to have a small rank in them."""
    attention = nn.ModuleDict({"proj_in": nn.Linear(192, 256)})
    resnet = nn.ModuleDict({"conv1": nn.Conv2d(96, 128, 3, padding=1)})
    return nn.ModuleDict(
        {"mid_block": nn.ModuleDict({"attentions": nn.ModuleList([attention]), "resnets": nn.ModuleList([resnet])})}
    )


PRODUCTS = [name for name in RECIPES if name.startswith(("LoHa", "LoKr"))]


@pytest.mark.parametrize("recipe", PRODUCTS)
def test_wide_layers_are_changed_as_lycoris_changes_them(tmp_path: Path, recipe: str) -> None:
    torch.manual_seed(0)
    model, trained = wide_layers(), wide_layers()
    trained.load_state_dict(model.state_dict())
    LycorisNetwork.apply_preset({"lora_prefix": "lycoris", "target_module": [], "target_name": ["mid_block.*"]})
    settings = {"lora_dim": 4, "conv_lora_dim": 3, "alpha": 2, "conv_alpha": 1, **RECIPES[recipe]}
    network = LycorisNetwork(trained, **settings, warn_on_unmatched=False)
    network.apply_to()
    randomise(network)
    network.save_weights(tmp_path / "x.safetensors", torch.float32, {})
    deltas = opened(tmp_path / "x.safetensors").weights.deltas
    expected = added(network.loras, model, "unet", "lycoris")
    assert {str(key) for key in deltas} == expected.keys() == {LINEAR, CONV}
    for name, values in expected.items():
        delta = deltas[ModuleKey(name, "unet")]
        whole = recipe in ("LoKr whole", "LoKr full_matrix")
        assert isinstance(delta, DenseDelta if whole else LowRankDelta), name
        assert reference.error(matrix(delta), values) < 1e-6


def test_factors_pay_where_two_of_them_take_no_more_room_than_a_matrix() -> None:
    assert pays(16, (64, 64))
    assert not pays(17, (64, 64))
    assert pays(19, (64, 96))
    assert not pays(20, (64, 96))
    assert pays(28, (64, 512))
    assert pays(28, (64, 128, 2, 2))
    assert not pays(29, (64, 128, 2, 2))
