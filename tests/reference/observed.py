"""Regressions on stacked inputs, in float64: what methods that are told moments alone must come to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def fitted(
    down: Matrix, content: tuple[Matrix, Matrix], style: tuple[Matrix, Matrix], ridge: float, towards: Matrix | None
) -> Matrix:
    """The update U D that least squares finds, a row of the system for every input and for the penalty.

    content, style
        (update, inputs (in, n)) of either side.
    towards
        The update that the penalty pulls to, in the Frobenius norm of U D; None for |U|^2.
    """
    rows, answers = [], []
    energy = 0.0
    for update, x in (content, style):
        z = down @ x
        rows.append(z.T / np.sqrt(x.shape[1]))
        answers.append((update @ x).T / np.sqrt(x.shape[1]))
        energy += (z**2).sum() / x.shape[1]
    if towards is None:
        rows.append(np.sqrt(ridge * energy / len(down)) * np.eye(len(down)))
        answers.append(np.zeros((len(down), len(content[0]))))
    else:
        basis = np.linalg.svd(down, full_matrices=False)[2][: np.linalg.matrix_rank(down)]
        met = sum(((basis @ x) ** 2).sum() / x.shape[1] for _, x in (content, style))
        weight = np.sqrt(ridge * met / len(basis))
        rows.append(weight * down.T)
        answers.append(weight * towards.T)
    solution = np.linalg.lstsq(np.concatenate(rows), np.concatenate(answers), rcond=None)[0]
    return solution.T @ down


def unanswered(down: Matrix) -> Matrix:
    """Orthonormal inputs (in, n), all those for which `down` (r, in) gives nothing."""
    return np.linalg.svd(down)[2][np.linalg.matrix_rank(down) :].T


def foretold(content: Matrix, style: Matrix, x: Matrix) -> Matrix:
    """What of the content's effect on inputs x (in, n) depends linearly on the style's there, (out, n)."""
    effect = (style @ x).T
    return (effect @ np.linalg.lstsq(effect, (content @ x).T, rcond=1e-9)[0]).T
