"""The steps of the pictures that a diffusers pipeline makes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ..errors import HostError
from ..methods.method import Method

CALLBACK = "callback_on_step_end"

PLAIN = "_nplora_plain"
"""Attribute of a watched pipeline's class that holds the class that it has otherwise."""


def check(pipe: Any, method: Method) -> None:
    """Raises HostError for a method that changes with the steps if the pipeline cannot tell when one is done."""
    if method.changes_with_steps and CALLBACK not in inspect.signature(type(pipe).__call__).parameters:
        raise HostError(
            f"method={method.name} changes from step to step, and {type(pipe).__name__} does not tell its steps (it "
            f"takes no {CALLBACK}): choose another method"
        )


def watch(pipe: Any, step: Callable[[int, int], None]) -> None:
    """Have `step(number, steps)` called before each step of each picture; with (0, 1) before the first.

    Nobody else than the one who watched last is told. Python looks for `__call__` in the class, so the pipeline gets
    one of its own that is called the same. What the caller gives as callback is called, too.
    """
    unwatch(pipe)
    kind: Any = type(pipe)
    signature = inspect.signature(kind.__call__)

    @functools.wraps(kind.__call__)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        theirs: Any = given.arguments.get(CALLBACK)

        def on_step_end(pipe: Any, done: int, timestep: Any, tensors: Any) -> Any:
            tensors = theirs(pipe, done, timestep, tensors) if theirs else tensors
            steps = getattr(pipe, "num_timesteps", None) or len(pipe.scheduler.timesteps)
            if done + 1 < steps:
                step(done + 1, steps)
            return tensors

        given.arguments[CALLBACK] = on_step_end
        if hasattr(theirs, "tensor_inputs"):
            given.arguments[f"{CALLBACK}_tensor_inputs"] = theirs.tensor_inputs
        step(0, 1)
        return kind.__call__(*given.args, **given.kwargs)

    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    pipe.__class__ = type(kind)(kind.__name__, (kind,), {**names, PLAIN: kind, "__call__": call})


def unwatch(pipe: Any) -> None:
    """Leave the pipeline as it was before `watch`."""
    pipe.__class__ = getattr(type(pipe), PLAIN, type(pipe))
