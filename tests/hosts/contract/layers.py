"""Which layers the suite looks at, and how it measures them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..driver import Driver, Factors, Module, factors


def some_layers(driver: Driver) -> list[str]:
    """Names of layers of every kind and part, few enough to be fetched one by one."""
    names = [module.name for module in driver.modules]
    return names[:: max(1, len(names) // 12)]


def sample(driver: Driver) -> tuple[Module, ...]:
    """A small layer of every part, kernel and proportion."""

    def kind(module: Module) -> tuple[str, int, bool, bool]:
        return module.name[:7], module.kernel, module.out > module.inp, module.out < module.inp

    largest_first = sorted(driver.modules, key=lambda module: -module.out * module.inp)
    return tuple({kind(module): module for module in largest_first}.values())


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative, in the Frobenius norm."""
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-12))


def inside(content: np.ndarray, style: np.ndarray) -> np.ndarray:
    """What of the content lies along the style's directions, as many as hold all but 1e-6 of its energy."""
    style = np.asarray(style, dtype=np.float64)
    wide = style.shape[0] < style.shape[1]
    energies, vectors = np.linalg.eigh(style @ style.T if wide else style.T @ style)
    kept = np.cumsum(energies) > 1e-6 * energies.sum()
    v = style.T @ vectors[:, kept] / np.sqrt(energies[kept]) if wide else vectors[:, kept]
    return content @ v @ v.T


def added(*parts: Factors) -> Factors:
    """The sum of updates of one layer."""
    return np.concatenate([up for up, _ in parts], axis=1), np.concatenate([down for _, down in parts])


def dense(path: Path) -> dict[str, np.ndarray]:
    """By layer, the update that a file holds."""
    return {name: up @ down for name, (up, down) in factors(path).items()}
