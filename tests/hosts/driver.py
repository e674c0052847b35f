"""How the contract suite drives a host, real or stand-in."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..methods.klora_reference import scale, top_k_sum

Factors = tuple[np.ndarray, np.ndarray]
"""up (out, rank) and down (rank, in), float64."""


@dataclass(frozen=True)
class Module:
    """A layer that a LoRA can change, by its kohya name."""

    name: str
    out: int
    inp: int
    kernel: int = 0


@dataclass(frozen=True)
class Picture:
    """What came out.

    pixels
        One hash a picture.
    inner
        Pixels of the inner pass, if one was asked for.
    """

    pixels: tuple[str, ...]
    infotext: str
    comments: tuple[str, ...]
    inner: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class Call:
    """The watched layers after one call of the diffusion model.

    number, planned
        How many calls the sampler had made before, and how many it plans.
    steps
        The sampler's.
    labels
        By layer, that of the reference that its weight equals; `?` if it equals none.
    error
        Worst relative Frobenius error of a layer to the reference that is nearest to it.
    """

    number: int
    planned: int
    steps: int
    labels: Mapping[str, str]
    error: float

    @classmethod
    def of(cls, number: int, planned: int, steps: int, found: Mapping[str, tuple[str, float]]) -> Call:
        """From the nearest reference of each layer, and its error."""
        labels = {name: label if error < SAME else "?" for name, (label, error) in found.items()}
        return cls(number, planned, steps, labels, max(error for _, error in found.values()))


SAME = 1e-4
"""Relative error under which float32 weights hold a reference."""


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

    @abstractmethod
    def generate(
        self,
        prompt: str,
        *,
        hr_prompt: str | None = None,
        batch_size: int = 1,
        n_iter: int = 1,
        img2img: bool = False,
        disable_extra_networks: bool = False,
        inner: tuple[str, str] | None = None,
        panel: Sequence[Any] | None = None,
        steps: int = 2,
        sampler: str = "Euler",
        stop: tuple[str, int] | None = None,
    ) -> Picture:
        """Make pictures.

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
        """

    @abstractmethod
    def watch(self, references: Mapping[str, Mapping[str, Factors]]) -> None:
        """From now on, compare layers with references after each call of the model: label -> layer -> update.

        The same layers under each label; {} ends it.
        """

    @abstractmethod
    def seen(self) -> list[Call]:
        """What was seen during the last picture."""

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


def factors(path: Path) -> dict[str, Factors]:
    """A kohya LoRA's deltas in float64, read without any code of ours."""
    tensors = {name: tensor.double().numpy() for name, tensor in load_file(path).items()}
    result = {}
    for name in tensors:
        base, dot, _ = name.partition(".lora_down.weight")
        if dot:
            down = tensors[name].reshape(len(tensors[name]), -1)
            up = tensors[f"{base}.lora_up.weight"].reshape(-1, len(down))
            scale = tensors[f"{base}.alpha"].item() / len(down)
            if f"{base}.lora_mid.weight" in tensors:
                mid = tensors[f"{base}.lora_mid.weight"]
                down = np.tensordot(mid, down, axes=(1, 0)).transpose(0, 3, 1, 2).reshape(len(mid), -1)
            result[base] = up * scale, down
    return result


def fused(
    content: Path,
    style: Path,
    mu: float,
    *,
    c: float = 1.0,
    s: float = 1.0,
    te: float = 1.0,
    unet: float = 1.0,
    k: int | None = None,
) -> dict[str, Factors]:
    """What `<nplora:content:style:mu:...>` means, in float64: dW_s + dW_c (I - beta V V^T), NP-LoRA Eq. 26-28."""
    contents, styles = factors(content), factors(style)
    beta = 1.0 if mu == float("inf") else mu / (1 + mu)
    result = {}
    for name in {**contents, **styles}:
        weight = te if name.startswith("lora_te") else unet
        parts = []
        if name in styles:
            up_s, down_s = styles[name]
            parts.append((s * weight * up_s, down_s))
        if name in contents:
            up_c, down_c = contents[name]
            if name in styles:
                q, r = np.linalg.qr(down_s.T)
                _, _, vt = np.linalg.svd(up_s @ r.T, full_matrices=False)
                v = (q @ vt.T)[:, :k]
                down_c = down_c - beta * (down_c @ v) @ v.T
            parts.append((c * weight * up_c, down_c))
        result[name] = (
            np.concatenate([up for up, _ in parts], axis=1),
            np.concatenate([down for _, down in parts]),
        )
    return result


def content_inside_style(measured: np.ndarray, content: Factors, style: Factors) -> float:
    """Share of the content's energy that a fused delta (out, in) still has inside the style's subspace V."""
    style_dense = style[0] @ style[1]
    q, _ = np.linalg.qr(style[1].T)
    return float(np.square((measured - style_dense) @ q).sum() / np.square(content[0] @ content[1]).sum())


def output_side(content: Path, style: Path, mu: float) -> dict[str, Factors]:
    """What method=uspace means: dW_s + (I - beta U U^T) dW_c, U the left singular vectors of dW_s."""
    contents, styles = factors(content), factors(style)
    beta = 1.0 if mu == float("inf") else mu / (1 + mu)
    result = {}
    for name, (up_c, down_c) in contents.items():
        up_s, down_s = styles[name]
        u, _ = np.linalg.qr(up_s)
        result[name] = (
            np.concatenate([up_s, up_c - beta * u @ (u.T @ up_c)], axis=1),
            np.concatenate([down_s, down_c]),
        )
    return result


def ties(content: np.ndarray, style: np.ndarray, density: float) -> np.ndarray:
    """What method=ties means for one layer, arXiv 2306.01708, Alg. 1; NaN where rounding to float32 decides."""
    trimmed, unsure = [], np.zeros(content.shape, dtype=bool)
    for delta in (content, style):
        magnitudes = np.abs(delta)
        smallest = np.sort(magnitudes, axis=None)[-max(int(density * delta.size), 1)]
        trimmed.append(np.where(magnitudes >= smallest, delta, 0.0))
        unsure |= np.abs(magnitudes - smallest) < 1e-5 * smallest
    total = trimmed[0] + trimmed[1]
    unsure |= (np.abs(total) < 1e-5 * np.abs(trimmed[0])) & (trimmed[1] != 0)
    agreeing = [np.where(np.sign(delta) == np.sign(total), delta, 0.0) for delta in trimmed]
    count = sum((delta != 0).astype(int) for delta in agreeing)
    return np.where(unsure, np.nan, sum(agreeing) / np.maximum(count, 1))


def is_attention(name: str) -> bool:
    """Whether a layer of the diffusion model belongs to an attention, by its kohya name."""
    return name.startswith("lora_unet") and ("_attn1_to_" in name or "_attn2_to_" in name)


def winners(
    content: Path, style: Path, method: str, steps: int, *, alpha: float = 1.5, beta: float | None = None
) -> dict[str, str]:
    """Who wins which attention layer, `c` or `s` for each step: arXiv 2502.18461, Eq. 1-12.

    As in klora_reference, but with sums made once: the models that are driven are large.
    """
    contents, styles = factors(content), factors(style)
    beta = {"klora": 0.5, "klora*": 1.3, "fixed": 0.5}.get(method) if beta is None else beta
    names = [name for name in contents if name in styles and is_attention(name)]
    sums, totals = {}, np.zeros(2)
    for name in names:
        k = contents[name][1].shape[0] * styles[name][1].shape[0]
        sides = [up @ down for up, down in (contents[name], styles[name])]
        sums[name] = [top_k_sum(side, k) for side in sides]
        totals += [np.abs(side).sum() for side in sides]
    gamma = totals[0] / totals[1]
    result = dict.fromkeys(names, "")
    for t in range(steps):
        s = scale(t, steps, alpha, beta, star=method == "klora*")
        for name, (content_sum, style_sum) in sums.items():
            content_wins = s <= 1 if method == "fixed" else content_sum >= style_sum * gamma * s
            result[name] += "c" if content_wins else "s"
    return result
