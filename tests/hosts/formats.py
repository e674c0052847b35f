"""Random LoRA files of every kind, under kohya's names, as their trainers write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .driver import Module

Tensors = dict[str, Tensor]
RANK = 3


class Maker:
    """Makes the tensors of one layer."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, size: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self._generator) * size

    def lora(self, module: Module) -> Tensors:
        up, down = self.normal(module.out, RANK), self.normal(RANK, _fan_in(module), size=_fan_in(module) ** -0.5)
        if module.kernel:
            up, down = up[..., None, None], down.reshape(RANK, *_kernel(module))
        return {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(2.0)}

    def dora(self, module: Module) -> Tensors:
        """The magnitude of each input channel."""
        ones = (1, 1) if module.kernel else ()
        return {**self.lora(module), "dora_scale": 1 + self.normal(1, module.inp, *ones).abs()}

    def dora_out(self, module: Module) -> Tensors:
        """The magnitude of each output channel."""
        ones = (1, 1) if module.kernel else ()
        return {**self.lora(module), "dora_scale": 1 + self.normal(module.out, 1, *ones).abs()}

    def loha(self, module: Module) -> Tensors:
        size = _fan_in(module) ** -0.25
        factors = {}
        for i in ("1", "2"):
            factors[f"hada_w{i}_a"] = self.normal(module.out, RANK, size=size)
            factors[f"hada_w{i}_b"] = self.normal(RANK, _fan_in(module), size=size)
        return {**factors, "alpha": torch.tensor(2.0)}

    def loha_tucker(self, module: Module) -> Tensors:
        if module.kernel < 2:
            return self.loha(module)
        factors = {}
        for i in ("1", "2"):
            factors[f"hada_t{i}"] = self.normal(RANK, RANK, module.kernel, module.kernel, size=0.5)
            factors[f"hada_w{i}_a"] = self.normal(RANK, module.out, size=0.5)
            factors[f"hada_w{i}_b"] = self.normal(RANK, module.inp, size=0.5)
        return {**factors, "alpha": torch.tensor(2.0)}

    def lokr(self, module: Module) -> Tensors:
        w1 = self.normal(4, 4)
        kernel = _kernel(module)[1:]
        if len(kernel) and kernel[0] > 1:
            return {"lokr_w1": w1, "lokr_w2": self.normal(module.out // 4, module.inp // 4, *kernel, size=0.1)}
        return {
            "lokr_w1": w1,
            "lokr_w2_a": self.normal(module.out // 4, RANK, size=0.3),
            "lokr_w2_b": self.normal(RANK, module.inp // 4, size=0.3),
            "alpha": torch.tensor(2.0),
        }

    def full(self, module: Module) -> Tensors:
        diff = self.normal(module.out, *_kernel(module), size=_fan_in(module) ** -0.5)
        return {"diff": diff, **({"diff_b": self.normal(module.out, size=0.1)} if has_bias(module.name) else {})}

    def norm(self, module: Module) -> Tensors:
        return {"w_norm": self.normal(module.out, size=0.1), "b_norm": self.normal(module.out, size=0.1)}

    def glora(self, module: Module) -> Tensors:
        return {
            "a1.weight": self.normal(RANK, module.inp, size=0.3),
            "a2.weight": self.normal(module.inp, RANK, size=0.1),
            "b1.weight": self.normal(RANK, module.inp, size=0.1),
            "b2.weight": self.normal(module.out, RANK, size=0.3),
            "alpha": torch.tensor(2.0),
        }

    def ia3(self, module: Module) -> Tensors:
        on_input = module.out == module.inp
        return {
            "weight": self.normal(module.inp if on_input else module.out, size=0.3),
            "on_input": torch.tensor(on_input),
        }

    def oft(self, module: Module) -> Tensors:
        return {"oft_blocks": self.normal(module.out // 4, 4, 4, size=0.2), "alpha": torch.tensor(0.0)}

    def boft(self, module: Module) -> Tensors:
        return {"oft_blocks": self.normal(2, module.out // 4, 4, 4, size=0.2), "alpha": torch.tensor(0.0)}


LINEAR_ONLY = {"glora", "ia3"}
"""Kinds that trainers, or the hosts, have for linear layers alone."""


def write(path: Path, kind: str, modules: tuple[Module, ...], norms: tuple[Module, ...], seed: int) -> Path:
    """Write a file of this kind for `modules`; of norms, for `norms`."""
    make: Callable[[Module], Tensors] = getattr(Maker(seed), kind)
    chosen = norms if kind == "norm" else [m for m in modules if not (m.kernel and kind in LINEAR_ONLY)]
    tensors = {}
    for module in chosen:
        for role, tensor in make(module).items():
            tensors[f"{module.name}.{role}"] = tensor.contiguous()
    save_file(tensors, path)
    return path


def has_bias(name: str) -> bool:
    """Whether the layer has one in Stable Diffusion."""
    return not name.endswith(("_to_q", "_to_k", "_to_v"))


def _kernel(module: Module) -> tuple[int, ...]:
    """All dimensions of the layer's weight but the first."""
    return (module.inp, module.kernel, module.kernel) if module.kernel else (module.inp,)


def _fan_in(module: Module) -> int:
    return module.inp * max(module.kernel, 1) ** 2
