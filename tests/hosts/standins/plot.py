"""The hosts' X/Y/Z plot: the same options, the same order of cells."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from .common import module


class AxisOption:
    def __init__(self, label, type, apply, format_value=None, confirm=None, cost=0.0, choices=None, prepare=None):
        self.label = label
        self.type = type
        self.apply = apply
        self.confirm = confirm
        self.cost = cost
        self.choices = choices
        self.prepare = prepare


def plot_module():
    """The script's module, as a host that ran it keeps it."""
    nothing = AxisOption("Nothing", str, lambda p, x, xs: None)
    return module("xyz_grid.py", AxisOption=AxisOption, axis_options=[nothing])


def cells(options: Sequence[AxisOption], p: Any, axes: Sequence[tuple[str, Sequence[str]]], make: Callable[[Any], Any]):
    """Make every cell of a plot of up to three axes. Returns them with X innermost."""
    chosen = [next(option for option in options if option.label == label) for label, _ in axes]
    values = [[option.type(text) for text in texts] for option, (_, texts) in zip(chosen, axes)]
    for option, xs in zip(chosen, values):
        if option.confirm:
            option.confirm(p, xs)
    slowest_first = sorted(range(len(axes)), key=lambda axis: (-chosen[axis].cost, -axis))
    made = {}
    for indices in itertools.product(*(range(len(values[axis])) for axis in slowest_first)):
        cell = dict(zip(slowest_first, indices))
        pc = copy.copy(p)
        for axis, option in enumerate(chosen):
            option.apply(pc, values[axis][cell[axis]], values[axis])
        made[tuple(cell[axis] for axis in range(len(axes)))] = make(pc)
    wanted = sorted(made, key=lambda indices: indices[::-1])
    return [made[indices] for indices in wanted]
