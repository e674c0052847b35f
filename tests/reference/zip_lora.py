"""ZipLoRA on a network of two layers, in float64, with gradients by hand: arXiv 2311.13600, Eq. 4, by Adam."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def forward(layers: Sequence[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(what the first layer gives after tanh, what the second one gives) for rows x."""
    hidden = np.tanh(x @ layers[0].T)
    return hidden, hidden @ layers[1].T


def gradients(layers: Sequence[np.ndarray], x: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """Gradients of the mean squared error, one for each layer's weight."""
    hidden, y = forward(layers, x)
    to_y = 2 * (y - target) / y.size
    to_hidden = (to_y @ layers[1]) * (1 - hidden**2)
    return [to_hidden.T @ x, to_y.T @ hidden]


def mergers(
    weights: Sequence[np.ndarray],
    updates: Sequence[Sequence[np.ndarray]],
    inputs: Sequence[np.ndarray],
    lr: float,
    steps: int,
    alike: float,
) -> list[list[np.ndarray]]:
    """[side][layer] after so many steps from 1; `updates` are each side's, by layer, `inputs` what each meets."""
    targets = [forward([w + d for w, d in zip(weights, own)], x)[1] for own, x in zip(updates, inputs)]
    found = [[np.ones(weight.shape[1]) for weight in weights] for _ in updates]
    first = [[np.zeros_like(m) for m in side] for side in found]
    second = [[np.zeros_like(m) for m in side] for side in found]
    for step in range(1, steps + 1):
        merged = [
            weight + sum(own[layer] * side[layer] for own, side in zip(updates, found))
            for layer, weight in enumerate(weights)
        ]
        of_weights = [gradients(merged, x, target) for x, target in zip(inputs, targets)]
        slopes = [
            [
                sum((of[layer] * updates[side][layer]).sum(0) for of in of_weights)
                + alike * np.sign(found[0][layer] * found[1][layer]) * found[1 - side][layer] / weights[layer].shape[1]
                for layer in range(len(weights))
            ]
            for side in range(2)
        ]
        for side in range(2):
            for layer, slope in enumerate(slopes[side]):
                first[side][layer] = 0.9 * first[side][layer] + 0.1 * slope
                second[side][layer] = 0.999 * second[side][layer] + 0.001 * slope**2
                mean, spread = first[side][layer] / (1 - 0.9**step), second[side][layer] / (1 - 0.999**step)
                found[side][layer] = found[side][layer] - lr * mean / (np.sqrt(spread) + 1e-8)
    return found
