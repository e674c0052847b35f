import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from peft.utils import merge_utils

from lib_nplora.errors import RequestError
from lib_nplora.fusion.fused import FusedLora
from lib_nplora.fusion.outcome import Outcome
from lib_nplora.fusion.walk import fuse
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.delta import total
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.maths.subspace import right_svd
from lib_nplora.methods.selection import EVEN
from lib_nplora.methods.table import (
    METHODS,
    OPTIONS,
    Basis,
    Layer,
    Method,
    Settings,
    blora,
    dare,
    direct,
    hard,
    method_named,
    null_space,
    output_space,
    reverse,
    scope_named,
    ties,
)
from lib_nplora.request.request import HARD, FusionRequest, Source

from .. import reference
from ..matrices import KEY, lora, random_delta

mus = st.one_of(st.floats(0, 100), st.just(math.inf))
PROJECTIONS = ("np", "hard", "reverse", "uspace")
FUSING = [name for name, method in METHODS.items() if method.fuse]
KEEPING = (*PROJECTIONS, "direct", "dare")
"""Those whose deltas are still one for each LoRA."""


def basis_of(kind: Basis | None, contents, styles) -> torch.Tensor | None:
    if kind is None:
        return None
    deltas = contents if kind is Basis.CONTENT_INPUT else styles
    if kind is Basis.STYLE_OUTPUT:
        deltas = [delta.transposed() for delta in deltas]
    return right_svd(deltas).basis(RankRule())


def layer(kind: Basis | None = Basis.STYLE_INPUT) -> Layer:
    styles = [random_delta(12, 20, 4, 1), random_delta(12, 20, 2, 3)]
    contents = [random_delta(12, 20, 3, 5), random_delta(12, 20, 1, 7)]
    return Layer(contents, styles, basis_of(kind, contents, styles))


def deltas(layer: Layer):
    return [*layer.contents, *layer.styles]


def exact(delta) -> np.ndarray:
    return delta.dense().double().numpy()


def run(request: FusionRequest, content, style) -> FusedLora:
    """Fuse LoRAs of one layer each, or ready ones."""
    sides = [
        one if isinstance(one, LoraWeights) else lora(name, one)
        for name, one in (("content", content), ("style", style))
    ]
    return fuse(request, sides[:1], sides[1:], ByteLru(0))


def request(method: str, c: float = 1.0, s: float = 1.0, mu: float = 0.5, **options) -> FusionRequest:
    return FusionRequest((Source("dog", c, c),), (Source("vangogh", s, s),), mu, method=method, **options)


# All of the table


@pytest.mark.parametrize("name", METHODS)
def test_a_row_does_one_thing(name):
    method = METHODS[name]
    assert sum(part is not None for part in (method.fuse, method.rule, method.owner)) == 1
    assert set(method.reads) <= {"mu", "k", *OPTIONS}
    assert (method.basis is None) == ("k" not in method.reads)
    assert method.about


@pytest.mark.parametrize("name", METHODS)
def test_what_a_row_does_not_read_changes_nothing(name):
    """And what it reads does, in a layer and over a schedule."""
    method = METHODS[name]
    key = ModuleKey("up_blocks_0_attentions_0_attn1_to_q", "unet")
    second = ModuleKey("up_blocks_0_attentions_1_ff_net_0_proj", "unet")
    sides = [
        LoraWeights(one, one, {key: random_delta(24, 32, 3, 10 * seed), second: random_delta(24, 32, 3, 10 * seed + 5)})
        for seed, one in ((1, "content"), (2, "style"))
    ]

    def seen(asked: FusionRequest):
        fused = fuse(asked, sides[:1], sides[1:], ByteLru(0))
        held = [(at, delta.dense()) for part in (fused.deltas, fused.rivals) for at, delta in part.items()]
        letters = fused.schedule.letters(40) if fused.schedule else {}
        return [(at, matrix.numpy().tobytes()) for at, matrix in held], letters

    plain = request(name)
    changed = {
        "mu": replace(plain, mu=3.0),
        "k": replace(plain, k=RankRule.parse("1")),
        "alpha": replace(plain, alpha=0.4),
        "beta": replace(plain, beta=0.9),
        "scope": replace(plain, scope="attention" if method.defaults.scope == "all" else "all"),
        "density": replace(plain, density=0.7),
        "seed": replace(plain, seed=7),
    }
    for option, other in changed.items():
        assert (seen(other) != seen(plain)) == (option in method.reads), option


@pytest.mark.parametrize("name", KEEPING)
@given(mu=mus)
def test_a_method_keeps_shapes_and_the_number_of_deltas(name, mu):
    method = METHODS[name]
    before = layer(method.basis)
    after = method.fuse(before, Settings(mu))
    for old, new in zip(deltas(before), deltas(after), strict=True):
        assert (old.shape, old.kernel) == (new.shape, new.kernel)
        assert new.dense().isfinite().all()
        assert name == "dare" or old.rank == new.rank


@pytest.mark.parametrize("name", PROJECTIONS)
@given(mu=mus)
def test_a_projection_adds_no_energy(name, mu):
    method = METHODS[name]
    before = layer(method.basis)
    after = method.fuse(before, Settings(mu))
    for old, new in zip(deltas(before), deltas(after)):
        assert new.energy() <= old.energy() * (1 + 1e-6)


@pytest.mark.parametrize("name", FUSING)
def test_a_method_leaves_its_input_alone(name):
    before = layer(METHODS[name].basis)
    saved = [(delta.up.clone(), delta.down.clone()) for delta in deltas(before)]
    METHODS[name].fuse(before, Settings(1.0))
    for delta, (up, down) in zip(deltas(before), saved):
        assert torch.equal(delta.up, up)
        assert torch.equal(delta.down, down)


@given(mus)
def test_direct_changes_nothing(mu):
    before = layer(None)
    assert direct(before, Settings(mu)) is before


def test_method_named():
    assert method_named("np") is METHODS["np"]
    with pytest.raises(RequestError, match=r"there is no method 'dircet'\. Did you mean 'direct'\?"):
        method_named("dircet")
    with pytest.raises(RequestError, match=r"there is no method ''\. Known: np, hard, direct, klora, klora\*, fixed"):
        method_named("")


def test_scope_named():
    assert scope_named("all")("anything")
    with pytest.raises(RequestError, match=r"there is no scope 'al'\. Did you mean 'all'\?"):
        scope_named("al")


def test_defaults_are_the_papers():
    klora, star = METHODS["klora"].settings(0.5), METHODS["klora*"].settings(0.5)
    assert (klora.alpha, klora.beta, klora.scope) == (1.5, 0.5, "attention")
    assert (star.alpha, star.beta, star.scope) == (1.5, 1.3, "attention")
    assert METHODS["ties"].settings(0.5).density == 0.2
    assert METHODS["klora*"].settings(0.5, beta=0.0, alpha=None) == replace(star, beta=0.0)


# Projections


@given(mus)
def test_null_space_never_touches_the_styles(mu):
    before = layer()
    assert null_space(before, Settings(mu)).styles is before.styles


def test_null_space_at_zero_is_direct():
    before = layer()
    assert all(new is old for new, old in zip(null_space(before, Settings(0.0)).contents, before.contents))


def test_null_space_projects_each_content():
    before = layer()
    after = null_space(before, Settings(math.inf))
    for old, new in zip(before.contents, after.contents):
        assert (new.dense() @ before.basis).norm() < 1e-5 * (old.dense() @ before.basis).norm()


@given(mus)
def test_hard_is_null_space_without_end_whatever_mu_is(mu):
    before = layer()
    for new, old in zip(deltas(hard(before, Settings(mu))), deltas(null_space(before, Settings(math.inf)))):
        assert torch.equal(new.dense(), old.dense())


@pytest.mark.parametrize("mu", [0.0, 0.5, HARD])
def test_hard_in_a_fusion(mu):
    pair = random_delta(12, 20, 3, 1), random_delta(12, 20, 4, 3)
    named, spelled = run(request("hard", 0.7, 1.2, mu), *pair), run(request("np", 0.7, 1.2, HARD), *pair)
    assert torch.equal(named.deltas[KEY].dense(), spelled.deltas[KEY].dense())
    assert named.summary.removed == spelled.summary.removed > 0


@pytest.mark.parametrize("mu", [0.0, 0.5, 3.0, HARD])
@pytest.mark.parametrize("k", ["all", "2", "90%"])
def test_reverse_is_null_space_with_the_roles_swapped(mu, k):
    content, style = random_delta(12, 20, 3, 1), random_delta(12, 20, 4, 3)
    rule = RankRule.parse(k)
    ours = run(replace(request("reverse", 0.7, -1.2, mu), k=rule), content, style)
    swapped = run(replace(request("np", -1.2, 0.7, mu), k=rule), style, content)
    assert torch.allclose(ours.deltas[KEY].dense(), swapped.deltas[KEY].dense(), atol=1e-5)
    v = reference.basis([exact(content)], k)
    expected = 0.7 * exact(content) - 1.2 * exact(style) @ reference.projector(v, mu)
    assert reference.error(exact(ours.deltas[KEY]), expected) < 1e-5
    assert ours.summary.removed == 0


@given(mus)
def test_reverse_never_touches_the_contents(mu):
    before = layer(Basis.CONTENT_INPUT)
    assert reverse(before, Settings(mu)).contents is before.contents


@pytest.mark.parametrize("form", ["factors", "matrix", "convolution"])
@pytest.mark.parametrize("mu", [0.0, 0.5, HARD])
@pytest.mark.parametrize("k", ["all", "2"])
def test_uspace_projects_on_the_left(mu, k, form):
    """dW_s + (I - beta U U^T) dW_c."""
    content, style = random_delta(15, 18, 3, 1), random_delta(15, 18, 4, 3)
    if form == "matrix":
        content = DenseDelta.of(content.dense())
    elif form == "convolution":
        content, style = (type(one)(one.up, one.down, (3, 3)) for one in (content, style))
    fused = run(replace(request("uspace", 0.7, 1.3, mu), k=RankRule.parse(k)), content, style)
    u = reference.basis([exact(style).T], k)
    expected = 1.3 * exact(style) + 0.7 * reference.projector(u, mu) @ exact(content)
    assert reference.error(exact(fused.deltas[KEY]), expected) < 1e-5
    assert fused.deltas[KEY].kernel == content.kernel
    assert fused.summary.layers[KEY].protected == u.shape[1] / 15


def test_uspace_leaves_nothing_in_the_styles_outputs():
    before = layer(Basis.STYLE_OUTPUT)
    after = output_space(before, Settings(math.inf))
    assert after.styles is before.styles
    for old, new in zip(before.contents, after.contents):
        assert (before.basis.T @ new.dense()).norm() < 1e-5 * old.dense().norm()


def test_the_bases_of_different_methods_are_not_mistaken_for_each_other():
    """They are kept in one place; here the layer is square, so that each would fit."""
    pair = [lora("content", random_delta(16, 16, 3, 1))], [lora("style", random_delta(16, 16, 4, 3))]
    kept = ByteLru(2**30)
    for _ in range(2):
        for name in (*PROJECTIONS, "klora"):
            fused, alone = (fuse(request(name, mu=HARD), *pair, cache) for cache in (kept, ByteLru(0)))
            assert torch.equal(fused.deltas[KEY].dense(), alone.deltas[KEY].dense())


# TIES


def ties_of(matrices, density: float) -> torch.Tensor:
    made = ties(
        Layer([DenseDelta.of(matrices[0])], [DenseDelta.of(one) for one in matrices[1:]]), Settings(density=density)
    )
    return total(deltas(made)).dense()


@runs(deadline=None)
@given(
    st.integers(2, 4),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([0.1, 0.2, 0.5, 0.83, 1.0]),
    st.integers(0, 999),
)
@pytest.mark.filterwarnings("ignore:The density")
def test_ties_is_peft_s(count, out, in_, density, seed):
    """PEFT trims to the same int(density n) elements, but to none where that is 0: there we keep one.

    It takes the sign of a sum of 0 for positive where we take none of the values: with random ones that happens only
    where all are trimmed. It elects before the weights are in, so they are 1 here.
    """
    matrices = [torch.randn(out, in_, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)]
    ours = ties_of(matrices, density)
    if int(density * out * in_):
        theirs = merge_utils.ties(matrices, torch.ones(count), density, "total")
        assert torch.allclose(ours, theirs, atol=1e-6)
    else:
        assert 1 <= int((ours != 0).sum()) <= count


def test_ties_by_hand():
    """Signs of the sums: +, -, none, +. The third cancels; the fourth is one side's alone."""
    first, second = torch.tensor([[4.0, 1.0, 2.0, 0.0]]), torch.tensor([[2.0, -3.0, -2.0, 5.0]])
    assert ties_of([first, second], 1.0).tolist() == [[3.0, -3.0, 0.0, 5.0]]
    assert ties_of([first, second], 0.5).tolist() == [[4.0, -3.0, 2.0, 5.0]]


def test_ties_counts_weights_in_the_election():
    """A content of 1 against a style of -1: the larger weight has the sign, and the mean is of those that agree."""
    pair = DenseDelta.of(torch.ones(2, 3)), DenseDelta.of(-torch.ones(2, 3))
    assert torch.equal(run(request("ties", 2, 1, density=1.0), *pair).deltas[KEY].dense(), torch.full((2, 3), 2.0))
    assert torch.equal(run(request("ties", 1, 2, density=1.0), *pair).deltas[KEY].dense(), torch.full((2, 3), -2.0))


@pytest.mark.parametrize("name", ["ties", "dare"])
def test_sparse_methods_keep_the_kernel_and_change_lone_layers_too(name):
    """But no norms and biases."""
    conv = type(random_delta(6, 18, 2, 1))(
        *(getattr(random_delta(6, 18, 2, 1), side) for side in ("up", "down")), (3, 3)
    )
    bias, alone = ModuleKey("bias", "unet"), ModuleKey("alone", "te")
    content = LoraWeights("c", "c", {KEY: conv, bias: DenseDelta.of(torch.ones(4)), alone: conv})
    style = LoraWeights("s", "s", {KEY: conv, bias: DenseDelta.of(torch.ones(4))})
    fused = run(request(name, density=0.25), content, style)
    assert fused.deltas[KEY].kernel == (3, 3)
    assert fused.deltas[KEY].tensor().shape == (6, 2, 3, 3)
    assert torch.equal(fused.deltas[bias].dense(), torch.full((4, 1), 2.0))
    assert 0 < (fused.deltas[alone].dense() != 0).float().mean() < 0.5


# DARE


def thinned(seed: int, density: float, shape: tuple[int, int] = (40, 50)) -> tuple[torch.Tensor, torch.Tensor]:
    ones = DenseDelta.of(torch.ones(*shape))
    made = dare(Layer([ones], [ones]), Settings(seed=seed, density=density))
    return made.contents[0].dense(), made.styles[0].dense()


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.9, 1.0])
def test_dare_keeps_a_share_and_scales_it_up(density):
    for mask in thinned(3, density):
        kept = mask != 0
        assert torch.allclose(mask[kept], torch.tensor(1 / density))
        spread = (density * (1 - density) / mask.numel()) ** 0.5
        assert float(kept.double().mean()) == pytest.approx(density, abs=5 * spread + 1e-12)


def test_dare_is_the_delta_in_the_mean():
    delta = random_delta(20, 30, 3, 1)
    made = [dare(Layer([delta], []), Settings(seed=seed, density=0.4)).contents[0].dense() for seed in range(2000)]
    mean = torch.stack(made).double().mean(0)
    spread = delta.dense().abs() * (0.6 / 0.4 / 2000) ** 0.5
    assert ((mean - delta.dense()).abs() <= 6 * spread + 1e-6).all()
    assert reference.error(mean, exact(delta)) < 0.05


def test_dare_is_its_seed_s_and_neither_side_has_the_other_s_mask():
    content, style = thinned(1, 0.5)
    assert all(map(torch.equal, thinned(1, 0.5), (content, style)))
    for one, other in ((content, style), (content, thinned(2, 0.5)[0]), (style, thinned(2, 0.5)[1])):
        assert float(((one != 0) == (other != 0)).double().mean()) == pytest.approx(0.5, abs=0.06)


def test_dare_gives_several_loras_of_one_side_their_own_masks():
    ones = DenseDelta.of(torch.ones(40, 50))
    made = dare(Layer([ones, ones], [ones, ones]), Settings(density=0.5))
    masks = [delta.dense() != 0 for delta in deltas(made)]
    for i, mask in enumerate(masks):
        assert all(not torch.equal(mask, other) for other in masks[:i])


def test_dare_does_not_look_at_names_or_weights():
    delta, other = random_delta(20, 30, 3, 1), random_delta(20, 30, 3, 5)
    masks = []
    for name, c in (("lora_unet_a", 1.0), ("diffusion_model.a", -0.5)):
        key = ModuleKey(name, "unet")
        sides = (LoraWeights(role, role, {key: one}) for role, one in (("dog", delta), ("cat", other)))
        masks.append(run(request("dare", c, 0.0, seed=5), *sides).deltas[key].dense() != 0)
    assert torch.equal(*masks)


# Schedules


def winners(method: str, steps: int, **options) -> str:
    row: Method = METHODS[method]
    rule = row.rule(row.settings(0.5, **options))
    return "".join("c" if rule(EVEN, 1.0, step, steps) else "s" for step in range(steps))


def test_fixed_gives_the_content_the_first_third():
    """1.5 t / T + 0.5 <= 1 up to t = T / 3."""
    assert winners("fixed", 6) == "cccsss"
    assert winners("fixed", 30) == "c" * 11 + "s" * 19
    assert winners("fixed", 20) == "c" * 7 + "s" * 13
    assert winners("fixed", 10, beta=2.0) == "s" * 10
    assert winners("fixed", 10, alpha=0.0) == "c" * 10


def test_switch_takes_turns():
    assert winners("switch", 7) == "cscscsc"
    assert winners("switch", 1) == "c"


def test_switch_gives_lone_layers_their_turn_with_nothing():
    alone = ModuleKey("alone", "unet")
    content = LoraWeights("c", "c", {KEY: random_delta(8, 9, 2, 1), alone: random_delta(8, 9, 2, 3)})
    style = LoraWeights("s", "s", {KEY: random_delta(8, 9, 2, 5)})
    for sides, silent in (((content, style), "style"), ((style, content), "content")):
        fused = run(request("switch", 0.5, 0.5), *sides)
        for step in range(4):
            by_step = fused.schedule.winners(step, 4)
            assert set(by_step) == {KEY, alone}
            lone = fused.update(alone, by_step).dense()
            if by_step[alone] == silent:
                assert torch.equal(lone, torch.zeros(8, 9))
            else:
                assert torch.allclose(lone, 0.5 * content.deltas[alone].dense())


def test_klora_star_needs_an_alpha():
    with pytest.raises(RequestError, match=r"alpha=0 makes no sawtooth: klora\* takes an alpha above 0"):
        METHODS["klora*"].rule(Settings(alpha=0.0))
    assert winners("klora", 3, alpha=0.0, beta=1.0) == "ccc"


# B-LoRA


BLOCKS = {
    "content": [
        "lora_unet_up_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "up_blocks.0.attentions.0.transformer_blocks.9.ff.net.0.proj",
        "up_blocks_0_attentions_0_proj_in",
        "lora_unet_output_blocks_0_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_0_1_transformer_blocks_3_attn2_to_v",
        "diffusion_model.output_blocks.0.1.proj_out.weight",
    ],
    "style": [
        "lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q",
        "up_blocks.0.attentions.1.transformer_blocks.9.ff.net.0.proj",
        "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_1_1_transformer_blocks_3_attn2_to_v",
        "diffusion_model.output_blocks.1.1.proj_out.weight",
    ],
    None: [
        "lora_unet_up_blocks_0_attentions_2_transformer_blocks_0_attn1_to_q",
        "lora_unet_up_blocks_0_resnets_0_conv1",
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_2_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_10_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_11_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_0_0_in_layers_2",
        "diffusion_model_input_blocks_0_1_proj_in",
        "lora_unet_mid_block_attentions_0_proj_in",
    ],
}


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in BLOCKS.items() for name in names])
def test_blocks_of_b_lora(owner, name):
    assert blora(name) == owner


def blocks(seed: int, names: list[str]) -> LoraWeights:
    parts = {ModuleKey(name, "unet"): random_delta(8, 9, 2, seed + i) for i, name in enumerate(names)}
    text = {ModuleKey(BLOCKS["content"][0], "te"): random_delta(8, 9, 2, seed + 50)}
    return LoraWeights(f"lora {seed}", f"digest {seed}", {**parts, **text})


def test_blora_holds_each_block_s_owner_alone_and_nothing_else():
    names = [names[0] for names in BLOCKS.values()]
    content, style = blocks(1, names), blocks(100, names)
    fused = run(request("blora", 0.7, 1.3), content, style)
    keys = {owner: ModuleKey(names[0], "unet") for owner, names in BLOCKS.items()}
    assert set(fused.deltas) == {keys["content"], keys["style"]}
    for owner, weights, strength in (("content", content, 0.7), ("style", style, 1.3)):
        expected = strength * exact(weights.deltas[keys[owner]])
        assert reference.error(exact(fused.deltas[keys[owner]]), expected) < 1e-6
    left_out = {key for key, report in fused.summary.layers.items() if report.outcome is Outcome.LEFT_OUT}
    assert left_out == {keys[None], ModuleKey(BLOCKS["content"][0], "te")}
    assert "2 left out" in str(fused.summary)


def test_a_pair_without_b_lora_s_blocks_is_refused():
    sd15 = [
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_mid_block_attentions_0_proj_in",
    ]
    with pytest.raises(
        RequestError, match="method=blora takes the content from one block of SDXL, and 'lora 1' has no"
    ):
        run(request("blora"), blocks(1, sd15), blocks(100, sd15))
    with pytest.raises(
        RequestError, match="method=blora takes the style from one block of SDXL, and 'lora 100' has no"
    ):
        run(request("blora"), blocks(1, BLOCKS["content"]), blocks(100, BLOCKS["content"]))
    run(request("blora"), blocks(1, BLOCKS["content"]), blocks(100, BLOCKS["style"]))
