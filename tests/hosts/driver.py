"""How the contract suite drives a host, real or stand-in."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ..reference.matrices import Factors


@dataclass(frozen=True)
class Module:
    """A layer that a LoRA can change, by its kohya name."""

    name: str
    out: int
    inp: int
    kernel: int = 0


@dataclass(frozen=True)
class Job:
    """Pictures to be made.

    hr_prompt
        Turns hires fix on. An empty string means the host's default, which is the first prompt.
    inner
        (scripts, prompt) of a second pass inside the first, as face fixers run one: scripts is `none` for no script
        runner at all, or `other` for one without our extension.
    panel
        The first of our script's arguments, as the API takes them; the rest are those of the page.
    sampler
        `Euler`, or `Heun`, which calls the model twice a step, but once in the last.
    stop
        (how, call) of an end in the middle of the picture: `interrupted` or `skipped` after that call of the
        model, as the buttons do, or `fail` within it, which raises an exception here, too.
    size
        Width and height, where the host is a real one.
    """

    prompt: str
    _: KW_ONLY
    hr_prompt: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    img2img: bool = False
    disable_extra_networks: bool = False
    inner: tuple[str, str] | None = None
    panel: Sequence[Any] | None = None
    steps: int = 2
    sampler: str = "Euler"
    stop: tuple[str, int] | None = None
    size: int = 64
    negative_prompt: str = ""


@dataclass(frozen=True)
class Picture:
    """What came out.

    pixels
        One hash a picture.
    inner
        Pixels of the inner pass, if one was asked for.
    params
        What a program gets beside the pictures: `extra_generation_params` in the API's `info`.
    """

    pixels: tuple[str, ...]
    infotext: str
    comments: tuple[str, ...]
    inner: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The model's weights against a reference.

    unet, te
        Worst relative Frobenius error of (weight - original) over the layers of that part.
    outside
        Largest absolute change of any layer that the reference does not name.
    """

    unet: float
    te: float
    outside: float

    @property
    def worst(self) -> float:
        return max(self.unet, self.te)


SAME = 1e-4
"""Relative error under which float32 weights hold a reference."""


@dataclass(frozen=True)
class Call:
    """The watched layers after one call of the diffusion model.

    number, planned
        How many calls the sampler had made before, and how many it plans.
    steps
        The sampler's.
    labels
        Layer -> that of the reference that its weight equals; `?` if it equals none.
    error
        Worst relative Frobenius error of a layer to the reference that is nearest to it.
    """

    number: int
    planned: int
    steps: int
    labels: Mapping[str, str]
    error: float

    @classmethod
    def of(
        cls, number: int, planned: int, steps: int, found: Mapping[str, tuple[str, float]], same: float = SAME
    ) -> Call:
        """From the nearest reference of each layer, and its error, which is less than `same` if they are the same."""
        labels = {name: label if error < same else "?" for name, (label, error) in found.items()}
        return cls(number, planned, steps, labels, max(error for _, error in found.values()))


def nearest(delta: np.ndarray, references: Mapping[str, Factors]) -> tuple[str, float]:
    """Label of the reference that a layer's delta is nearest to, and its relative error."""
    dense = {label: up @ down for label, (up, down) in references.items()}
    scale = max(np.linalg.norm(reference) for reference in dense.values())
    errors = {label: float(np.linalg.norm(delta - reference) / scale) for label, reference in dense.items()}
    label = min(errors, key=errors.__getitem__)
    return label, errors[label]


class Driver(ABC):
    """One running host with our extension in it."""

    lora_dir: Path
    modules: tuple[Module, ...]
    norms: tuple[Module, ...]
    kinds: tuple[str, ...]
    """The kinds of LoRA file that the host loads: names in formats.Maker."""

    def generate(self, prompt: str, **options: Any) -> Picture:
        """Make the pictures of Job(prompt, **options)."""
        return self.run(Job(prompt, **options))

    @abstractmethod
    def run(self, job: Job) -> Picture:
        """Make pictures."""

    @abstractmethod
    def watch(self, references: Mapping[str, Mapping[str, Factors]]) -> None:
        """From now on, compare layers with references after each call of the model: label -> layer -> update.

        The same layers under each label; {} ends it.
        """

    @abstractmethod
    def seen(self) -> list[Call]:
        """What was seen during the last picture."""

    @abstractmethod
    def logged(self) -> str:
        """What the log has gained since the last picture was begun."""

    @abstractmethod
    def sweep(
        self, prompt: str, axes: Sequence[tuple[str, Sequence[str]]], *, panel: Sequence[Any] | None = None
    ) -> list[Picture]:
        """Make an X/Y/Z plot of up to three axes, (label, values) each. Returns its cells, X running fastest."""

    @abstractmethod
    def set_option(self, name: str, value: Any) -> None:
        """Change a setting, as the settings page does."""

    @abstractmethod
    def compare(self, reference: Mapping[str, Factors]) -> Comparison:
        """The weights as the last picture left them, minus the checkpoint's."""

    @abstractmethod
    def delta(self, name: str, kind: str = "weight") -> np.ndarray:
        """What has been added to a layer's weight, (out, in), or to its bias, (out, 1), float32."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of every weight, to the bit."""

    @abstractmethod
    def counts(self) -> Mapping[str, int]:
        """How often our adapter has read a LoRA (`loads`) and decomposed a layer (`decompositions`) so far."""

    @abstractmethod
    def switch_checkpoint(self) -> None:
        """Load another checkpoint of the same family; called again, the first."""


def write_lora(
    path: Path,
    modules: tuple[Module, ...],
    *,
    seed: int,
    rank: int = 4,
    alpha: float | None = None,
    dtype: torch.dtype = torch.float32,
    tucker: bool = False,
    gains: Sequence[float] = (1.0,),
    metadata: dict[str, str] | None = None,
) -> Path:
    """A random kohya LoRA, strong enough to change a picture.

    tucker
        Whether 3x3 convolutions have a `lora_mid`.
    gains
        What the modules' updates are multiplied by, in turn.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, gain in zip(modules, itertools.cycle(gains)):
        fan_in = module.inp * max(module.kernel, 1) ** 2
        up = gain * torch.randn(module.out, rank, generator=generator) / rank**0.5
        down = torch.randn(rank, fan_in, generator=generator) / fan_in**0.5
        if module.kernel > 1 and tucker:
            up, down = up[..., None, None], down[:, : module.inp, None, None]
            mid = torch.randn(rank, rank, module.kernel, module.kernel, generator=generator)
            tensors[f"{module.name}.lora_mid.weight"] = mid.to(dtype)
        elif module.kernel:
            up, down = up[..., None, None], down.reshape(rank, module.inp, module.kernel, module.kernel)
        tensors[f"{module.name}.lora_up.weight"] = up.to(dtype).contiguous()
        tensors[f"{module.name}.lora_down.weight"] = down.to(dtype).contiguous()
        tensors[f"{module.name}.alpha"] = torch.tensor(float(rank if alpha is None else alpha))
    save_file(tensors, path, metadata=metadata)
    return path
