"""How far weights are from float64's, in the numbers of their own format."""

from __future__ import annotations

import torch
from nplora_probe_weights import Originals, keys_of, parameters, used


def spacing(values, dtype):
    """The distance of a format's numbers where each value is."""
    numbers = torch.finfo(dtype)
    _, exponents = torch.frexp(values)
    return (numbers.eps * torch.exp2(exponents.double() - 1)).clamp(min=numbers.smallest_normal * numbers.eps)


class Part:
    """Sums over the layers of a part."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.error = self.ideal = self.beyond_half = 0.0
        self.count = self.total = self.squares = 0.0

    def take(self, weight, original, update):
        """Measure a layer, float64 but for the weight."""
        exact = original + update
        unit = spacing(exact, self.dtype)
        off = weight.double().flatten(1) - exact
        largest, norm = exact.abs().max(), update.norm()
        self.error = max(self.error, float(off.norm() / norm))
        self.ideal = max(self.ideal, float((exact.to(self.dtype).double() - exact).norm() / norm))
        self.beyond_half = max(self.beyond_half, float(((off.abs() - unit / 2) / largest).max()))
        in_units = (off / unit)[exact.abs() > largest / 1024]  # below, float32's own rounding is a large part of a unit
        self.count += in_units.numel()
        self.total += float(in_units.sum())
        self.squares += float(in_units.square().sum())

    def measured(self):
        """See Rounding."""
        mean = self.total / self.count
        return {
            "dtype": str(self.dtype).removeprefix("torch."),
            "error": self.error,
            "ideal": self.ideal,
            "beyond_half": self.beyond_half,
            "mean": mean,
            "spread": (self.squares / self.count - mean**2) ** 0.5,
        }


ENOUGH = 2**18
"""So many of a layer's weights are measured, in rows that are spread over it, for all would take minutes."""


def measure(expected):
    """{part: what it measures}, and how many parameters that the reference does not name are not the checkpoint's."""
    parts, outside = {}, 0
    originals = Originals()
    names = keys_of({key.rpartition(".")[0] for key in expected.keys()})  # noqa: SIM118
    for key, (layer, parameter) in parameters().items():
        weight = used(layer, parameter)
        original = originals.get(key, getattr(layer, parameter))
        if original is None:
            continue
        if key in names:
            name = names[key]
            rows = slice(None, None, -(-weight.numel() // ENOUGH))
            update = expected.get_tensor(f"{name}.up")[rows] @ expected.get_tensor(f"{name}.down")
            part = parts.setdefault(name.split("_")[1], Part(weight.dtype))
            part.take(weight[rows], original[rows].double().flatten(1), update)
        elif "embedding" not in key:  # of these, Forge and Neo make float32 once they have rounded them
            outside += not torch.equal(weight.float(), original.float())
    return {"parts": {name: part.measured() for name, part in parts.items()}, "outside": outside, "layers": len(names)}
