"""Methods that are told moments of the inputs, against regressions on the inputs themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib_nplora.errors import HostError, RequestError
from lib_nplora.fusion.fused import FusedLora
from lib_nplora.fusion.walk import fuse
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.delta import Delta, factored
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.methods.moments import Observations, Seen, stacked_downs
from lib_nplora.methods.table import method_named, methods, parameters, readers
from lib_nplora.methods.tolerance import Disturbance
from lib_nplora.request.roles import format_roles, parse_roles
from lib_nplora.request.tag import format_tag, parse_tag

from ..matrices import KEY, lora, randn, random_delta
from ..reference import observed as reference
from .layers import exact, request

OBSERVING = ("ssr", "ridge", "npx", "tau")
X_CONTENT = (randn(20, 20, seed=51).double() @ randn(20, 60, seed=52).double()).numpy()
X_STYLE = (randn(20, 20, seed=53).double() @ randn(20, 45, seed=54).double()).numpy()
CONTENT, STYLE = lora("dog", random_delta(12, 20, 3, 1)), lora("vangogh", random_delta(12, 20, 4, 5, 0.5))
WHOLE = lora("vangogh", DenseDelta(randn(12, 20, seed=9), (12, 20)))


def seen(*loras: LoraWeights, x_content: np.ndarray = X_CONTENT, x_style: np.ndarray = X_STYLE) -> Observations:
    """The moments of all that LoRAs hold of the layer KEY, from the inputs themselves."""
    modules = [((one.digest, key), factored(delta).down) for one in loras for key, delta in one.deltas.items()]
    spans, down = stacked_downs(modules)
    moments = []
    for x in (x_content, x_style):
        z = down.double() @ torch.from_numpy(x)
        moments.append(z @ z.T / z.shape[1])
    return Observations({KEY: Seen(spans, *moments)})


def run(
    method: str,
    content: LoraWeights = CONTENT,
    style: LoraWeights = STYLE,
    observations: Observations | None = None,
    **given,
) -> FusedLora:
    return fuse(request(method, **given), [content], [style], ByteLru(0), observations or seen(content, style))


def update(lora: LoraWeights) -> np.ndarray:
    factors = factored(lora.deltas[KEY])
    return (factors.up.double() @ factors.down.double()).numpy()


def off(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def down(*loras: LoraWeights) -> np.ndarray:
    return np.concatenate([factored(delta).down.double().numpy() for one in loras for delta in one.deltas.values()])


# The table


def test_they_stand_in_the_table_but_not_among_those_that_loras_are_enough_for():
    assert not set(OBSERVING) & set(methods())
    assert set(methods(observing=True)) == {*methods(), *OBSERVING}
    assert all(method_named(name).observes for name in OBSERVING)
    assert set(parameters(observing=True)) - set(parameters()) == {"ridge", "tau"}
    assert [one.name for one in readers("ridge", observing=True)] == ["ssr", "ridge"]
    assert readers("ridge") == []


@pytest.mark.parametrize("name", OBSERVING)
def test_without_a_model_to_look_at_they_are_refused(name):
    with pytest.raises(
        RequestError, match=rf"^method={name} looks at the model at work, .*\(fuse_into, generate\): choose another"
    ):
        fuse(request(name), [CONTENT], [STYLE], ByteLru(0))


@pytest.mark.parametrize("name", OBSERVING)
def test_what_was_seen_is_part_of_the_fingerprint(name):
    other = seen(CONTENT, STYLE, x_style=X_CONTENT)
    assert run(name).fingerprint == run(name).fingerprint != run(name, observations=other).fingerprint


@pytest.mark.parametrize("name", OBSERVING)
def test_a_layer_that_was_not_looked_at_is_named(name):
    with pytest.raises(HostError, match="layer layer was not looked at"):
        run(name, observations=Observations({}))


@pytest.mark.parametrize(("name", "key"), [("ssr", "ridge"), ("tau", "tau")])
@pytest.mark.parametrize("text", ["-1", "nan", "much"])
def test_values_that_make_no_sense_are_refused(name, key, text):
    with pytest.raises(RequestError, match=f"{key}={text} is"):
        method_named(name).parameter(key).read(text)


def test_a_tag_of_theirs_is_read_and_written_and_no_hint_tells_of_it():
    tag = "<nplora:dog:vangogh:method=tau:tau=0.1>"
    asked = parse_tag(tag[1:-1].split(":")[1:])
    assert (asked.method.name, dict(asked.given)) == ("tau", {"tau": 0.1})
    assert format_tag(asked) == tag
    roles = parse_roles([one[1:-1].split(":")[1:] for one in format_roles(asked).split(" ")])
    assert roles == asked
    with pytest.raises(RequestError, match=r"unknown key 'zeal'\. Known: c, s, .*, density, seed\.$"):
        parse_tag(["dog", "vangogh", "zeal=1"])


# Regressions


@pytest.mark.parametrize("style", [STYLE, WHOLE], ids=["factors", "no factors"])
@pytest.mark.parametrize(("c", "s"), [(1.0, 1.0), (0.7, -1.3)])
@pytest.mark.parametrize("ridge", [0.0, 1e-4, 0.5])
@pytest.mark.parametrize("name", ["ssr", "ridge"])
def test_closed_forms_are_the_least_squares_solution(name, ridge, c, s, style):
    dc, ds = c * update(CONTENT), s * update(style)
    towards = dc + ds if name == "ridge" else None
    expected = reference.fitted(down(CONTENT, style), (dc, X_CONTENT), (ds, X_STYLE), ridge, towards)
    found = run(name, style=style, c=c, s=s, ridge=ridge).deltas[KEY]
    assert off(exact(found), expected) < 1e-6
    assert factored(found).rank == (7 if style is STYLE else 15)


def test_ssr_does_on_each_side_s_inputs_what_that_side_does():
    """As far as both can be had at once: wholly where the inputs of one are nothing to the other."""
    for_content, for_style = reference.unanswered(down(STYLE)), reference.unanswered(down(CONTENT))
    assert (for_content.shape, for_style.shape) == ((20, 16), (20, 17))
    assert reference.unanswered(down(CONTENT, STYLE)).shape == (20, 13)
    observations = seen(CONTENT, STYLE, x_content=for_content, x_style=for_style)
    found = exact(run("ssr", observations=observations, ridge=0.0).deltas[KEY])
    assert off(found @ for_content, update(CONTENT) @ for_content) < 1e-6
    assert off(found @ for_style, update(STYLE) @ for_style) < 1e-6


def test_a_large_ridge_is_the_plain_merge():
    assert off(exact(run("ridge", ridge=1e9).deltas[KEY]), update(CONTENT) + update(STYLE)) < 1e-6


def test_a_few_inputs_are_enough_to_solve():
    few = {"x_content": X_CONTENT[:, :2], "x_style": X_STYLE[:, :1]}
    found = exact(run("ssr", observations=seen(CONTENT, STYLE, **few), ridge=0.0).deltas[KEY])
    assert off(found @ few["x_content"], update(CONTENT) @ few["x_content"]) < 1e-5
    assert off(found @ few["x_style"], update(STYLE) @ few["x_style"]) < 1e-5


@pytest.mark.parametrize("name", OBSERVING)
def test_where_nothing_comes_in_both_are_added_up(name):
    nothing = np.zeros((20, 3))
    found = run(name, observations=seen(CONTENT, STYLE, x_content=nothing, x_style=nothing))
    assert off(exact(found.deltas[KEY]), update(CONTENT) + update(STYLE)) < 1e-6


@pytest.mark.parametrize("name", ["ssr", "ridge"])
def test_slices_are_fitted_one_by_one(name):
    """The content holds q, k and v in one piece, the style in three, and all of them meet the same inputs."""
    keys = [replace(KEY, rows=(4 * i, 4 * i + 4)) for i in range(3)]
    parts = [random_delta(4, 20, 2, 31 + 2 * i) for i in range(3)]
    sliced = LoraWeights("vangogh", "digest of slices", dict(zip(keys, parts)))
    found = run(name, style=sliced)
    assert list(found.deltas) == keys
    for i, (key, part) in enumerate(zip(keys, parts)):
        dc, ds = update(CONTENT)[4 * i : 4 * i + 4], exact(part)
        stacked = np.concatenate([down(CONTENT), part.down.double().numpy()])
        towards, ridge = (None, 1e-4) if name == "ssr" else (dc + ds, 0.3)
        expected = reference.fitted(stacked, (dc, X_CONTENT), (ds, X_STYLE), ridge, towards)
        assert off(exact(found.deltas[key]), expected) < 1e-6


@pytest.mark.parametrize("name", ["ridge", "npx", "tau"])
def test_it_does_not_matter_how_an_update_is_factored(name):
    delta, mix = CONTENT.deltas[KEY], randn(3, 3, seed=71)
    other = replace(CONTENT, deltas={KEY: replace(delta, up=delta.up @ mix, down=torch.linalg.solve(mix, delta.down))})
    assert off(exact(run(name, content=other).deltas[KEY]), exact(run(name).deltas[KEY])) < 1e-5


def test_several_loras_a_side():
    """As one whose factors are those of both, stacked."""
    hat = LoraWeights("hat", "digest of hat", {KEY: random_delta(12, 20, 2, 41)})
    one, other = CONTENT.deltas[KEY], hat.deltas[KEY]
    both = lora("both", replace(one, up=torch.cat([one.up, other.up], 1), down=torch.cat([one.down, other.down])))
    asked = request("ssr")
    several = replace(asked, contents=asked.contents * 2)
    found = fuse(several, [CONTENT, hat], [STYLE], ByteLru(0), seen(CONTENT, hat, STYLE))
    assert off(exact(found.deltas[KEY]), exact(run("ssr", content=both).deltas[KEY])) < 1e-6


def test_they_are_balanced_before_they_are_fitted():
    weights = run("ssr", balance="down").summary.layers[KEY].weights
    assert weights[0] < 1
    expected = run("ssr", c=weights[0], s=weights[1]).deltas[KEY]
    assert off(exact(run("ssr", balance="down").deltas[KEY]), exact(expected)) < 1e-6


# Projections


@pytest.mark.parametrize(("mu", "beta"), [(0.0, 0.0), (0.5, 1 / 3), (np.inf, 1.0)])
def test_npx_takes_away_what_the_style_foretells(mu, beta):
    found = exact(run("npx", mu=mu).deltas[KEY]) - update(STYLE)
    foretold = reference.foretold(update(CONTENT), update(STYLE), X_STYLE)
    assert off(found @ X_STYLE, update(CONTENT) @ X_STYLE - beta * foretold) < 1e-5
    if beta == 1:
        cross = (found @ X_STYLE) @ (update(STYLE) @ X_STYLE).T
        assert np.abs(cross).max() < 1e-4 * np.abs((update(CONTENT) @ X_STYLE) @ (update(STYLE) @ X_STYLE).T).max()


@pytest.mark.parametrize("mu", [0.5, np.inf])
def test_npx_is_np_where_all_directions_are_alike(mu):
    alike = seen(CONTENT, STYLE, x_style=np.eye(20))
    assert off(exact(run("npx", observations=alike, mu=mu).deltas[KEY]), exact(run("np", mu=mu).deltas[KEY])) < 1e-5


def test_npx_leaves_alone_what_the_style_does_not_read():
    """A direction that stands in the style's down, and that its up gives no weight."""
    delta = STYLE.deltas[KEY]
    padded: Delta = replace(
        delta, up=torch.cat([delta.up, torch.zeros(12, 1)], 1), down=torch.cat([delta.down, randn(1, 20, seed=81)])
    )
    found = run("npx", style=replace(lora("padded", padded), digest="padded"), mu=np.inf)
    assert off(exact(found.deltas[KEY]), exact(run("npx", mu=np.inf).deltas[KEY])) < 1e-5


def test_a_style_of_zeros_changes_nothing():
    nothing = lora("vangogh", STYLE.deltas[KEY].scaled(0.0))
    for name in OBSERVING[2:]:
        assert off(exact(run(name, style=nothing).deltas[KEY]), update(CONTENT)) < 1e-6


def power(update_: np.ndarray) -> float:
    return float(((update_ @ X_STYLE) ** 2).sum())


@pytest.mark.parametrize("k", ["all", "2"])
def test_tau_takes_no_more_than_it_must(k):
    directions = parameters()["k"].parse(k)
    whole, style = power(update(CONTENT)), power(update(STYLE))
    least = power(exact(run("tau", tau=0.0, k=directions).deltas[KEY]) - update(STYLE))
    assert least < whole
    tau = (whole + least) / 2 / style
    left = power(exact(run("tau", tau=tau, k=directions).deltas[KEY]) - update(STYLE))
    assert left == pytest.approx(tau * style, rel=1e-4)
    plain = exact(run("tau", tau=1.001 * whole / style, k=directions).deltas[KEY])
    assert off(plain, update(CONTENT) + update(STYLE)) < 1e-6
    mus = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0, np.inf)
    assert least <= min(power(exact(run("np", mu=mu, k=directions).deltas[KEY]) - update(STYLE)) for mu in mus) * (
        1 + 1e-5
    )


@pytest.mark.parametrize(
    ("found", "allowed", "beta"),
    [
        (Disturbance(4.0, 2.0, 2.0), 4.0, 0.0),
        (Disturbance(4.0, 2.0, 2.0), 2.5, 0.5),
        (Disturbance(4.0, 2.0, 2.0), 1.0, 1.0),
        (Disturbance(4.0, 1.0, 2.0), 1.0, 0.5),
        (Disturbance(4.0, -1.0, 2.0), 1.0, 0.0),
        (Disturbance(4.0, 0.0, 0.0), 1.0, 0.0),
    ],
)
def test_the_least_projection_that_is_enough(found, allowed, beta):
    assert found.least(allowed) == pytest.approx(beta)


def test_moments_of_a_layer_are_picked_by_whose_they_are():
    """Rows and columns of those LoRAs alone that hold the rows at hand, contents first."""
    key = ModuleKey("layer", "unet", (0, 4))
    part = LoraWeights("part", "digest of part", {key: random_delta(4, 20, 2, 61)})
    found = fuse(request("ssr"), [CONTENT], [part], ByteLru(0), seen(part, CONTENT))
    again = fuse(request("ssr"), [CONTENT], [part], ByteLru(0), seen(CONTENT, part))
    assert off(exact(found.deltas[key]), exact(again.deltas[key])) < 1e-6
