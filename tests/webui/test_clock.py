"""The sampler's step, as told from the host's count of the model's calls."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lib_nplora.webui import clock


def steps_told(steps: int, total_steps: int, calls: int) -> list[int]:
    told = []
    for call in range(calls):
        denoiser = SimpleNamespace(step=call, steps=steps, total_steps=total_steps)
        step, of = clock.step_of(SimpleNamespace(denoiser=denoiser))
        assert of == steps
        told.append(step)
    return told


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 150])
def test_one_call_a_step(steps):
    assert steps_told(steps, steps, steps) == list(range(steps))


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 150])
def test_second_order_samplers_call_twice_but_for_the_last_step(steps):
    told = steps_told(steps, 2 * steps, 2 * steps - 1)
    assert told == [call // 2 for call in range(2 * steps - 1)]
    assert sorted(set(told)) == list(range(steps))


def test_a_sampler_that_goes_on_stays_at_its_last_step():
    assert steps_told(4, 4, 9) == [0, 1, 2, 3, 3, 3, 3, 3, 3]
