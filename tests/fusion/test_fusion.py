import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_nplora.errors import MismatchError, RequestError
from lib_nplora.fusion.fused import FusedLora
from lib_nplora.fusion.outcome import Outcome
from lib_nplora.fusion.walk import fingerprint, fuse, fuse_layers, layers
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.lowrank import LowRankDelta, column_products, row_products
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.maths.subspace import right_svd
from lib_nplora.methods import bases
from lib_nplora.methods.texts import HARD
from lib_nplora.request.request import FusionRequest, Source

from .. import reference
from ..matrices import KEY, lora, randn, random_delta, with_spectrum
from ..reference import interference

TOLERANCE = 1e-5
MUS = [0.0, 0.1, 0.5, 1.0, 10.0, HARD]
RULES = ["all", "1", "3", "50%", "90%", "100%"]


class Factors:
    """Factors as a file holds them, for our maths and for the reference."""

    def __init__(self, up: torch.Tensor, down: torch.Tensor, mid: torch.Tensor | None = None, scale: float = 1.0):
        self.delta = LowRankDelta.from_factors(up, down, mid, scale)
        self.dense = reference.dense(up, down, mid, scale)

    @classmethod
    def random(
        cls,
        out: int,
        in_: int,
        rank: int,
        seed: int,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        stretch: float = 1.0,
    ) -> "Factors":
        up, down = randn(out, rank, seed=seed, scale=stretch), randn(rank, in_, seed=seed + 1)
        return cls(up.to(dtype), down.to(dtype), scale=scale)


def request(
    contents: Sequence[float] = (1.0,), styles: Sequence[float] = (1.0,), mu: float = 0.5, k: str = "all", **rest
) -> FusionRequest:
    """Weights of each side -> request."""
    sides = (
        tuple(Source(f"{role}{i}", w, w) for i, w in enumerate(weights))
        for role, weights in (("content", contents), ("style", styles))
    )
    return FusionRequest.of(*sides, mu=mu, k=RankRule.parse(k), **rest)


def run(request_: FusionRequest, contents: Sequence[LowRankDelta], styles: Sequence[LowRankDelta]) -> FusedLora:
    """Fuse LoRAs of one layer each."""
    return fuse(
        request_,
        [lora(f"content{i}", delta) for i, delta in enumerate(contents)],
        [lora(f"style{i}", delta) for i, delta in enumerate(styles)],
        ByteLru(0),
    )


def exact(delta: LowRankDelta) -> np.ndarray:
    return reference.dense(delta.up, delta.down)


def check(
    contents: Sequence[Factors],
    styles: Sequence[Factors],
    mu: float = 0.5,
    k: str = "all",
    weights: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:
    """Our fusion against the reference."""
    of_contents, of_styles = weights or ([1.0] * len(contents), [1.0] * len(styles))
    fused = run(request(of_contents, of_styles, mu, k), [x.delta for x in contents], [x.delta for x in styles])
    expected = reference.fused(
        [(w, x.dense) for w, x in zip(of_contents, contents)], [(w, x.dense) for w, x in zip(of_styles, styles)], mu, k
    )
    if not any((*of_contents, *of_styles)):
        assert KEY not in fused.deltas
        return
    delta = fused.deltas[KEY]
    assert delta.rank == sum(x.delta.rank for x in (*contents, *styles))
    assert reference.error(exact(delta), expected) < TOLERANCE


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize(
    ("rank_c", "rank_s"),
    [(1, 1), (2, 2), (4, 4), (8, 8), (32, 32), (64, 64), (128, 128), (4, 32), (32, 4), (1, 128), (128, 1)],
)
def test_any_ranks(rank_c, rank_s, mu):
    check([Factors.random(200, 160, rank_c, 1)], [Factors.random(200, 160, rank_s, 3)], mu)


@pytest.mark.parametrize("mu", [0.5, HARD])
@pytest.mark.parametrize(("out", "in_"), [(16, 24), (24, 16), (300, 20), (20, 300), (1, 30), (30, 1), (1, 1)])
@pytest.mark.parametrize("rank", [4, 32, 64])
def test_any_shape_even_of_less_than_rank(out, in_, rank, mu):
    check([Factors.random(out, in_, rank, 1)], [Factors.random(out, in_, rank, 3)], mu)


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize("k", RULES)
def test_any_rule(k, mu):
    check([Factors.random(100, 80, 16, 1)], [Factors.random(100, 80, 16, 3)], mu, k)


@pytest.mark.parametrize("mu", [0.5, HARD])
@pytest.mark.parametrize("k", ["all", "3", "90%"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("alpha", [1.0, 4.0, 0.3, 1e-3, 64.0])
def test_any_dtype_and_alpha(dtype, alpha, k, mu):
    check(
        [Factors.random(64, 48, 8, 1, scale=alpha / 8, dtype=dtype)],
        [Factors.random(64, 48, 16, 3, scale=alpha / 16, dtype=dtype)],
        mu,
        k,
    )


@pytest.mark.parametrize("mu", [0.5, HARD])
@pytest.mark.parametrize("content", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("style", [1e-4, 1.0, 1e4])
def test_any_scale(content, style, mu):
    check([Factors.random(64, 48, 8, 1, stretch=content)], [Factors.random(64, 48, 8, 3, stretch=style)], mu, k="5")


def deficient(side: str, rank: int, seed: int) -> Factors:
    """Half of the rank is there twice."""
    up, down = randn(96, rank, seed=seed), randn(rank, 80, seed=seed + 1)
    if side in ("up", "both"):
        up[:, rank // 2 :] = up[:, : rank // 2]
    if side in ("down", "both"):
        down[rank // 2 :] = down[: rank // 2].flip(0)
    return Factors(up, down, scale=0.3)


@pytest.mark.parametrize("mu", [0.5, HARD])
@pytest.mark.parametrize("k", ["all", "3", "90%"])
@pytest.mark.parametrize("style", ["up", "down", "both"])
@pytest.mark.parametrize("content", ["up", "down", "both"])
@pytest.mark.parametrize("rank", [2, 8, 64])
def test_deficient_factors(rank, content, style, k, mu):
    check([deficient(content, rank, 1)], [deficient(style, rank, 3)], mu, k)


@pytest.mark.parametrize("k", ["1", "2", "3", "4", "5", "all", "60%", "90%"])
def test_repeated_singular_values(k):
    content = Factors.random(40, 36, 4, 1)
    check([content], [Factors(*with_spectrum(40, 36, [3.0, 2.0, 2.0, 2.0, 1.0], seed=7))], HARD, k)
    check([content], [Factors(*with_spectrum(40, 36, [1.0] * 8, seed=7))], HARD, k)


@pytest.mark.parametrize("decades", [1, 3, 5])
@pytest.mark.parametrize("k", ["2", "7", "all", "99.9%"])
def test_a_decaying_spectrum(decades, k):
    style = Factors(*with_spectrum(96, 80, list(np.logspace(0, -decades, 16)), seed=5))
    check([Factors.random(96, 80, 8, 1)], [style], HARD, k)
    check([style], [style], HARD, k)


@pytest.mark.parametrize("mu", [0.0, 0.5, HARD])
@pytest.mark.parametrize("k", ["all", "2", "50%"])
@pytest.mark.parametrize("zero", ["content up", "content down", "content both", "style up", "style down", "style both"])
def test_zeros(zero, k, mu):
    role, side = zero.split()
    up, down = randn(20, 4, seed=1), randn(4, 30, seed=2)
    nothing = Factors(up * (side == "down"), down * (side == "up"))
    something = Factors.random(20, 30, 4, 5)
    pair = (nothing, something) if role == "content" else (something, nothing)
    check([pair[0]], [pair[1]], mu, k)
    check([nothing], [nothing], mu, k)


@pytest.mark.parametrize("mu", [0.5, HARD])
@pytest.mark.parametrize("kind", ["1x1", "3x3", "Tucker", "mixed"])
def test_convolutions(kind, mu):
    def conv(seed: int, tucker: bool, kernel: int) -> Factors:
        up = randn(24, 4, 1, 1, seed=seed)
        if tucker:
            mid = randn(4, 4, kernel, kernel, seed=seed + 2)
            return Factors(up, randn(4, 10, 1, 1, seed=seed + 1), mid, 0.5)
        return Factors(up, randn(4, 10, kernel, kernel, seed=seed + 1), None, 0.5)

    kernel = 1 if kind == "1x1" else 3
    content, style = conv(1, kind == "Tucker", kernel), conv(5, kind in ("Tucker", "mixed"), kernel)
    check([content], [style], mu)
    assert run(request(), [content.delta], [style.delta]).deltas[KEY].kernel == (kernel, kernel)


@pytest.mark.parametrize("mu", [0.0, 0.5, HARD])
@pytest.mark.parametrize(
    "weights",
    [
        ([1.0], [1.0]),
        ([0.8], [1.2]),
        ([-1.0], [1.0]),
        ([1.0], [-0.5]),
        ([0.0], [1.0]),
        ([1.0], [0.0]),
        ([0.0], [0.0]),
        ([1.0, -0.3], [0.7]),
        ([1.0], [0.7, 0.0]),
        ([1.0, 0.4, 0.0], [0.7, -1.0]),
    ],
)
def test_weights_and_several_loras(weights, mu):
    contents = [Factors.random(48, 40, 4 + i, 10 * i) for i, _ in enumerate(weights[0])]
    styles = [Factors.random(48, 40, 3 + i, 100 + 10 * i) for i, _ in enumerate(weights[1])]
    check(contents, styles, mu, "all", weights)
    check(contents, styles, mu, "2", weights)


@settings(max_examples=200)
@given(
    out=st.integers(1, 40),
    in_=st.integers(1, 40),
    contents=st.lists(st.tuples(st.integers(1, 24), st.floats(0.1, 3)), min_size=1, max_size=3),
    styles=st.lists(st.tuples(st.integers(1, 24), st.floats(0.1, 3)), min_size=1, max_size=3),
    mu=st.one_of(st.just(HARD), st.floats(0, 100)),
    seed=st.integers(0, 2**20),
)
def test_anything(out, in_, contents, styles, mu, seed):
    """Styles weigh 10 more than drawn, so that no fusion comes close to cancelling itself."""
    check(
        [Factors.random(out, in_, rank, seed + 10 * i) for i, (rank, _) in enumerate(contents)],
        [Factors.random(out, in_, rank, seed + 1000 + 10 * i) for i, (rank, _) in enumerate(styles)],
        mu,
        "all",
        ([w for _, w in contents], [10 + w for _, w in styles]),
    )


CONTENT, STYLE = random_delta(48, 40, 6, 1), random_delta(48, 40, 5, 3)


def test_mu_zero_is_the_direct_merge():
    fused = run(request([0.8], [1.2], mu=0), [CONTENT], [STYLE]).deltas[KEY]
    plain = run(request([0.8], [1.2], mu=3, method="direct"), [CONTENT], [STYLE]).deltas[KEY]
    assert torch.equal(fused.up, plain.up)
    assert torch.equal(fused.down, plain.down)
    assert reference.error(exact(fused), 0.8 * exact(CONTENT) + 1.2 * exact(STYLE)) < 1e-6


@pytest.mark.parametrize("k", RULES)
@given(weights=st.tuples(st.floats(0.1, 2), st.floats(-2, 2)), seed=st.integers(0, 2**20))
def test_hard_leaves_the_style_alone_in_its_subspace(k, weights, seed):
    """(dW_m - w_s dW_s) V = 0. Measured: a share of 1e-14 of the content's energy."""
    content, style = random_delta(30, 24, 6, seed), random_delta(30, 24, 5, seed + 5)
    fused = run(request(weights[:1], weights[1:], HARD, k), [content], [style]).deltas[KEY]
    v = reference.basis([exact(style)], k)
    left = (exact(fused) - weights[1] * exact(style)) @ v
    assert np.linalg.norm(left) ** 2 < 1e-11 * np.linalg.norm(weights[0] * exact(content)) ** 2 + 1e-12


def test_identical_loras():
    """All of the content lies in its own subspace: hard leaves the style, softly 1 / (1 + mu) of the content stays."""
    for mu in (0.0, 0.5, 3.0):
        fused = run(request(mu=mu), [STYLE], [STYLE])
        assert reference.error(exact(fused.deltas[KEY]), (1 + 1 / (1 + mu)) * exact(STYLE)) < 1e-6
        assert fused.summary.removed == pytest.approx(1 - 1 / (1 + mu) ** 2, abs=1e-5)
    fused = run(request(mu=HARD), [STYLE], [STYLE])
    assert reference.error(exact(fused.deltas[KEY]), exact(STYLE)) < 1e-6
    assert fused.summary.removed == pytest.approx(1, abs=1e-6)


def test_other_factors_of_the_same_deltas_fuse_to_the_same():
    def other(delta: LowRankDelta, seed: int) -> LowRankDelta:
        g = randn(delta.rank, delta.rank, seed=seed).double() + 4 * torch.eye(delta.rank)
        return LowRankDelta((delta.up.double() @ g).float(), torch.linalg.solve(g, delta.down.double()).float())

    one = run(request(mu=2), [CONTENT], [STYLE]).deltas[KEY]
    two = run(request(mu=2), [other(CONTENT, 7)], [other(STYLE, 9)]).deltas[KEY]
    assert reference.error(exact(two), exact(one)) < TOLERANCE


def test_more_mu_removes_more():
    removed = [run(request(mu=mu), [CONTENT], [STYLE]).summary.removed for mu in (0.0, 0.1, 0.5, 1.0, 10.0, 1e3, HARD)]
    assert removed[0] == 0
    assert removed == sorted(set(removed))
    assert removed[-2] == pytest.approx(removed[-1], rel=1e-5)


def test_more_directions_remove_more():
    removed = [run(request(mu=HARD, k=str(k)), [CONTENT], [STYLE]).summary.removed for k in range(1, 6)]
    assert removed == sorted(removed)
    assert removed[-1] == run(request(mu=HARD), [CONTENT], [STYLE]).summary.removed


@pytest.mark.parametrize("mu", MUS)
def test_removed_energy_follows_from_the_overlap(mu):
    beta = 1.0 if mu == HARD else mu / (1 + mu)
    report = run(request([0.7], [2.0], mu), [CONTENT], [STYLE]).summary.layers[KEY]
    inside = interference.row(exact(CONTENT), exact(STYLE), mu)["overlap"]
    assert report.outcome is Outcome.FUSED
    assert report.content_energy == pytest.approx(0.49 * np.linalg.norm(exact(CONTENT)) ** 2, rel=1e-6)
    assert report.removed == pytest.approx((1 - (1 - beta) ** 2) * inside, abs=1e-6)


def test_layers_of_one_side_are_added_as_they_are():
    contents, styles = lora("content", CONTENT, CONTENT), lora("style", STYLE)
    styles = replace(styles, deltas={**styles.deltas, ModuleKey("only style", "te"): STYLE})
    fused = fuse(request([0.5], [2.0], HARD), [contents], [styles], ByteLru(0))
    only_content, only_style = ModuleKey("layer1", "unet"), ModuleKey("only style", "te")
    assert [fused.summary.layers[key].outcome for key in (KEY, only_content, only_style)] == list(Outcome)[:3]
    counts = "1 layers fused, 1 content only, 1 style only, 0 added unprojected, 0 not matched; "
    assert str(fused.summary).startswith(counts)
    assert fused.summary.any_fused
    assert reference.error(exact(fused.deltas[only_content]), 0.5 * exact(CONTENT)) < 1e-6
    assert reference.error(exact(fused.deltas[only_style]), 2 * exact(STYLE)) < 1e-6
    assert fused.summary.layers[only_content].removed == fused.summary.layers[only_style].removed == 0
    total = sum(layer.content_energy for layer in fused.summary.layers.values())
    assert fused.summary.removed == pytest.approx(fused.summary.layers[KEY].removed_energy / total)


def test_no_common_layer():
    style = LoraWeights("style", "d", {ModuleKey("other", "unet"): STYLE})
    fused = fuse(request(), [lora("content", CONTENT)], [style], ByteLru(0))
    assert not fused.summary.any_fused
    assert len(fused.deltas) == 2


def test_multipliers_and_weights_of_each_part():
    te = ModuleKey("layer", "te")
    contents = LoraWeights("content", "c", {KEY: CONTENT, te: CONTENT})
    styles = LoraWeights("style", "s", {KEY: STYLE, te: STYLE})
    request_ = FusionRequest.of((Source("c", 0.5, 2.0),), (Source("s", 3.0, 0.25),), mu=0, te=0.1, unet=-1.0)
    fused = fuse(request_, [contents], [styles], ByteLru(0))
    assert reference.error(exact(fused.deltas[KEY]), -2 * exact(CONTENT) - 0.25 * exact(STYLE)) < 1e-6
    assert reference.error(exact(fused.deltas[te]), 0.05 * exact(CONTENT) + 0.3 * exact(STYLE)) < 1e-6


def test_layers_come_once_contents_first():
    content = LoraWeights("c", "c", {ModuleKey(name, "unet"): CONTENT for name in "ab"})
    style = LoraWeights("s", "s", {ModuleKey(name, "unet"): STYLE for name in "cba"})
    assert [key.name for key in layers([content], [style])] == ["a", "b", "c"]
    walked = [layer.key for layer in fuse_layers(request(), [content], [style], ByteLru(0))]
    assert walked == layers([content], [style])
    assert list(fuse(request(), [content], [style], ByteLru(0)).deltas) == walked


def test_shapes_that_differ_are_named():
    with pytest.raises(MismatchError) as caught:
        run(request(), [CONTENT], [random_delta(48, 41, 5, 3)])
    for word in ("content0", "style0", "layer", "48 x 40", "48 x 41"):
        assert word in str(caught.value)


def test_an_unknown_method_is_refused():
    with pytest.raises(RequestError, match="there is no method 'npp'"):
        run(request(method="npp"), [CONTENT], [STYLE])


def test_input_is_left_alone():
    saved = [side.clone() for delta in (CONTENT, STYLE) for side in (delta.up, delta.down)]
    run(request([0.5], [2.0], HARD), [CONTENT], [STYLE])
    assert all(map(torch.equal, saved, [side for delta in (CONTENT, STYLE) for side in (delta.up, delta.down)]))


@pytest.mark.parametrize("mu", [0.0, 0.5, HARD])
@pytest.mark.parametrize(
    "context",
    [
        pytest.param(lambda: torch.autocast("cpu", dtype=torch.bfloat16), id="autocast"),
        pytest.param(torch.inference_mode, id="inference"),
        pytest.param(torch.enable_grad, id="grad"),
    ],
)
def test_the_hosts_contexts_change_no_bit(context, mu):
    def both() -> tuple[FusedLora, ByteLru]:
        kept = ByteLru(0)
        loras = [lora("content", CONTENT, CONTENT)], [lora("style", STYLE)]
        return fuse(request([0.5], [0.7], mu), *loras, kept), kept

    outside, _ = both()
    with context():
        inside, kept = both()
        assert context is not torch.inference_mode or torch.is_inference_mode_enabled()
    for key, delta in inside.deltas.items():
        for side, other in ((delta.up, outside.deltas[key].up), (delta.down, outside.deltas[key].down)):
            assert torch.equal(side, other)
            assert side.dtype == torch.float32
            assert not side.is_inference()
            assert not side.requires_grad
    assert inside.summary.layers == outside.summary.layers
    basis = kept.get(("right singular vectors", (("digest of style", KEY),)), lambda: pytest.fail("no basis was kept"))
    assert not basis.vh.is_inference()


def test_the_context_of_whoever_walks_is_left_alone():
    """The walk must not leave float32 switched on between two layers."""
    walk = fuse_layers(request(), [lora("content", CONTENT, CONTENT)], [lora("style", STYLE, STYLE)], ByteLru(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in walk:
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.fixture
def decompositions(monkeypatch):
    """Counts the calls of right_svd, which still does its work."""
    calls = []
    monkeypatch.setattr(bases, "right_svd", lambda deltas: calls.append(len(deltas)) or right_svd(deltas))
    return calls


def test_mu_k_and_weights_are_swept_without_decomposing_again(decompositions):
    pair = [lora("content", CONTENT, CONTENT)], [lora("style", STYLE, STYLE)]
    bases = ByteLru(2**20)
    fuse(request(), *pair, bases)
    others = [request(mu=HARD), request(mu=0.0), request(k="2"), request(k="90%"), request([0.1], [3.0], unet=0.3)]
    swept = []
    for other in others:
        bases.begin_round()
        swept.append(fuse(other, *pair, bases))
    assert decompositions == [1, 1]
    for other, fused in zip(others, swept):
        assert torch.equal(fused.deltas[KEY].down, run(other, [CONTENT], [STYLE]).deltas[KEY].down)


def test_another_content_uses_the_same_bases(decompositions):
    bases = ByteLru(2**20)
    fuse(request(), [lora("content", CONTENT)], [lora("style", STYLE)], bases)
    fuse(request(), [lora("other", random_delta(48, 40, 3, 9))], [lora("style", STYLE)], bases)
    assert decompositions == [1]


def test_another_style_has_its_own_bases(decompositions):
    bases = ByteLru(2**20)
    styles = lora("style", STYLE), lora("other", CONTENT)
    for chosen in (styles[:1], styles[1:], styles, styles[::-1]):
        fuse(request(styles=[1.0] * len(chosen)), [lora("content", CONTENT)], chosen, bases)
    assert decompositions == [1, 1, 2, 2]


def test_direct_decomposes_nothing(decompositions):
    run(request(method="direct"), [CONTENT], [STYLE])
    assert decompositions == []


def test_each_delta_is_asked_for_once():
    """LoRAs read from disk layer by layer are read once."""

    class Counting(dict):
        asked = 0

        def __getitem__(self, key):
            Counting.asked += 1
            return super().__getitem__(key)

    loras = [lora("content", CONTENT, CONTENT), lora("style", STYLE, STYLE)]
    counted = [replace(x, deltas=Counting(x.deltas)) for x in loras]
    list(fuse_layers(request(), counted[:1], counted[1:], ByteLru(0)))
    assert Counting.asked == 4


def test_a_fingerprint_stands_for_what_changes_the_weights():
    pair = [lora("content", CONTENT)], [lora("style", STYLE)]
    base = request()
    others = [
        request(mu=0.6),
        request(mu=HARD),
        request(k="3"),
        request(k="3%"),
        request(method="direct"),
        request(te=0.5),
        request(unet=0.5),
        request([0.5]),
        request(styles=[0.5]),
    ]
    prints = [fingerprint(one, *pair) for one in (base, *others)]
    prints += [fingerprint(base, pair[1], pair[0]), fingerprint(base, pair[0], pair[0])]
    assert len(set(prints)) == len(prints)
    renamed = FusionRequest.of((Source("alias"),), (Source("style0"),))
    assert fingerprint(renamed, *pair) == fingerprint(base, *pair) == fuse(base, *pair, ByteLru(0)).fingerprint


def test_a_digest_of_another_file_changes_the_fingerprint():
    style = lora("style", STYLE)
    replaced = replace(style, digest="another")
    content = [lora("content", CONTENT)]
    assert fingerprint(request(), content, [style]) != fingerprint(request(), content, [replaced])


def test_nothing_is_nan_where_nothing_is():
    zero = LowRankDelta(torch.zeros(6, 2), torch.zeros(2, 8))
    fused = run(request(mu=HARD), [zero], [zero])
    assert fused.summary.removed == 0
    assert not math.isnan(fused.summary.layers[KEY].removed)
    assert torch.equal(fused.deltas[KEY].dense(), torch.zeros(6, 8))


def test_a_fingerprint_takes_no_notice_of_what_the_method_does_not_read():
    pair = [lora("content", CONTENT)], [lora("style", STYLE)]
    for method, same, other in (
        ("direct", {"mu": 3.0, "k": "1", "alpha": 1.0}, {"te": 2.0}),
        ("klora", {"mu": 3.0, "density": 0.1}, {"alpha": 1.0}),
        ("hard", {"mu": 3.0}, {"k": "1"}),
        ("dare", {"alpha": 3.0}, {"seed": 1}),
    ):
        base = request(method=method)
        assert fingerprint(request(**{"method": method, **same}), *pair) == fingerprint(base, *pair)
        assert fingerprint(request(**{"method": method, **other}), *pair) != fingerprint(base, *pair)


def test_a_factor_is_multiplied_with_itself_once_a_fusion():
    """The style's for its energy and its directions, `up` of the content for its energy before and after."""
    for products in (column_products, row_products):
        products.cache_clear()
    run(request(), [random_delta(24, 20, 3, 1)], [random_delta(24, 20, 4, 2)])
    assert column_products.cache_info().misses == len(("content", "style"))
    assert row_products.cache_info().misses == len(("content", "style", "projected content"))
