"""The table of methods: what holds for every row, and which rows it takes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.fusion.walk import fingerprint, fuse
from lib_nplora.layers.by_block import ByBlock
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.methods import bases
from lib_nplora.methods.balance import BALANCE
from lib_nplora.methods.method import Method, Sum, Turns, added_up
from lib_nplora.methods.parameter import Parameter
from lib_nplora.methods.table import every_parameter, method_named, methods, parameters, readers, register, usual
from lib_nplora.request.request import FusionRequest

from ..matrices import random_delta
from .layers import FOR_ANY_LAYER, deltas, layer_of, request, two_a_side, values

mus = st.one_of(st.floats(0, 100), st.just(math.inf))
KEEPING = ("np", "hard", "reverse", "uspace", "direct", "dare")
"""Those whose deltas are still one for each LoRA."""

ATTENTION = ModuleKey("up_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "unet")
FEED_FORWARD = ModuleKey("up_blocks_0_attentions_1_transformer_blocks_0_ff_net_0_proj", "unet")

OTHERS = {
    "mu": 3.0,
    "k": RankRule(count=1),
    "alpha": 0.4,
    "beta": 0.9,
    "density": 0.7,
    "seed": 7,
    "balance": "down",
}
"""Parameter -> a value that is no method's default."""


def other(method: Method, name: str):
    """A value that is not the method's default; of the scope, which has two, the other one."""
    if name != "scope":
        return OTHERS[name]
    scope = method.parameter("scope")
    return "attention" if scope and scope.default == "all" else "all"


def pair() -> list[LoraWeights]:
    return [
        LoraWeights(
            one, one, {ATTENTION: random_delta(24, 32, 3, 10 * i), FEED_FORWARD: random_delta(24, 32, 3, 10 * i + 5)}
        )
        for i, one in ((1, "content"), (2, "style"))
    ]


def seen(asked: FusionRequest):
    """What a fusion makes of two layers, over a schedule."""
    sides = pair()
    fused = fuse(asked, sides[:1], sides[1:], ByteLru(0))
    held = [(at, delta.dense()) for part in (fused.deltas, fused.rivals) for at, delta in part.items()]
    letters = fused.schedule.letters(40) if fused.schedule else {}
    return [(at, matrix.numpy().tobytes()) for at, matrix in held], letters


def fingerprint_of(asked: FusionRequest) -> str:
    sides = pair()
    return fingerprint(asked, sides[:1], sides[1:])


# Every row


@pytest.mark.parametrize("name", FOR_ANY_LAYER)
def test_a_row_does_one_thing(name):
    """What takes turns has a rule, and the rest has none; what cuts a basis reads k, and the rest does not."""
    method = methods()[name]
    made = method.fuse(two_a_side(ATTENTION), values(name))
    assert isinstance(made, Turns) == (method.rule is not None) == method.changes_with_steps
    projects = bool({bases.STYLE_INPUT, bases.CONTENT_INPUT, bases.STYLE_OUTPUT} & set(method.needs))
    assert projects == (method.parameter("k") is not None)
    assert projects == (isinstance(made, Sum) and made.protected is not None)
    assert method.projects_by is None or projects
    assert method.about
    assert method.told
    assert method.name in repr(method)


@pytest.mark.parametrize("name", methods())
def test_a_row_names_each_parameter_once_and_a_default_that_reads_back(name):
    own = methods()[name].parameters
    assert len({one.name for one in own}) == len(own)
    assert set(own) <= {one for method in methods().values() for one in method.parameters}
    for parameter in own:
        assert parameter.read(parameter.write(parameter.held(parameter.default))) == parameter.held(parameter.default)
        assert parameter.words
        assert parameter.takes
        for trial in parameter.trials:
            assert parameter.write(parameter.read(trial)) == trial


@pytest.mark.parametrize("parameter", parameters())
@pytest.mark.parametrize("name", FOR_ANY_LAYER)
def test_what_a_row_does_not_read_changes_nothing(name, parameter):
    """And what it reads does, in a layer or over a schedule."""
    method = methods()[name]
    plain = request(name)
    changed = plain.with_values(**{parameter: other(method, parameter)})
    read = method.parameter(parameter) is not None
    assert changed != plain
    assert (seen(changed) != seen(plain)) == read
    assert (fingerprint_of(changed) != fingerprint_of(plain)) == read
    assert changed.unread == ([] if read else [parameter])


@pytest.mark.parametrize("parameter", [one.name for one in parameters().values() if one.by_block])
@pytest.mark.parametrize("name", FOR_ANY_LAYER)
def test_a_value_of_one_block_counts_there_alone(name, parameter):
    """Both layers stand in output blocks, the attention in out0 and the feed-forward in out1."""
    method = methods()[name]
    blocks = ATTENTION.place.block, FEED_FORWARD.place.block
    assert [str(block) for block in blocks] == ["out0", "out1"]
    plain, there = parameters()[parameter].default, other(method, parameter)
    exceptional = request(name).with_values(**{parameter: ByBlock(plain, ((blocks[1], there),))})
    wanted = [*by_layer(request(name), ATTENTION), *by_layer(request(name, **{parameter: there}), FEED_FORWARD)]
    assert [*by_layer(exceptional, ATTENTION), *by_layer(exceptional, FEED_FORWARD)] == wanted
    assert (fingerprint_of(exceptional) != fingerprint_of(request(name))) == (method.parameter(parameter) is not None)
    elsewhere = request(name).with_values(**{parameter: ByBlock(plain, ((replace(blocks[0], label="in"), there),))})
    assert seen(elsewhere) == seen(request(name))


def by_layer(asked: FusionRequest, key: ModuleKey) -> list[bytes]:
    held, _ = seen(asked)
    return [matrix for at, matrix in held if at == key]


@pytest.mark.parametrize("name", KEEPING)
@given(mu=mus)
def test_a_method_keeps_shapes_and_the_number_of_deltas(name, mu):
    before = two_a_side()
    after = methods()[name].fuse(before, values(name, mu=mu))
    for old, new in zip(deltas(before), deltas(after), strict=True):
        assert (old.shape, old.kernel) == (new.shape, new.kernel)
        assert new.dense().isfinite().all()
        assert name == "dare" or old.rank == new.rank


@pytest.mark.parametrize("name", FOR_ANY_LAYER)
def test_a_method_leaves_its_input_alone(name):
    before = two_a_side(ATTENTION)
    saved = [(delta.up.clone(), delta.down.clone()) for delta in deltas(before)]
    methods()[name].fuse(before, values(name, mu=1.0))
    for delta, (up, down) in zip(deltas(before), saved):
        assert torch.equal(delta.up, up)
        assert torch.equal(delta.down, down)


@pytest.mark.parametrize("name", FOR_ANY_LAYER)
def test_a_method_declares_what_it_needs(name):
    """A layer that fulfils no other need is enough."""
    method, asked_for = methods()[name], []
    layer = two_a_side(ATTENTION)
    spied = replace(layer, fulfil=lambda need, of: asked_for.append(need) or layer.fulfil(need, of))
    method.fuse(spied, values(name))
    for balance in BALANCE.trials if method.parameter("balance") else ():
        method.weigh(spied, values(name, balance=balance))
    assert set(asked_for) == set(method.needs)


def test_defaults_are_the_papers():
    def defaults(name: str) -> dict[str, object]:
        return {one.name: one.default for one in methods()[name].parameters}

    assert defaults("klora") == {"alpha": 1.5, "beta": 0.5, "scope": "attention", "balance": "off"}
    assert defaults("klora*") == {"alpha": 1.5, "beta": 1.3, "scope": "attention", "balance": "off"}
    assert defaults("ties") == {"density": 0.2, "balance": "off"}
    assert defaults("np") == {"mu": 0.5, "k": RankRule(), "balance": "off"}
    star = request("klora*", beta=0.0, alpha=None).values
    assert dict(star.held) == {"alpha": 1.5, "beta": 0.0, "scope": "attention", "balance": "off"}


# Finding rows


def test_method_named():
    assert method_named("np") is methods()["np"]
    assert method_named(" KLoRA ") is methods()["klora"]
    with pytest.raises(RequestError, match=r"there is no method 'dircet'\. Did you mean 'direct'\?"):
        method_named("dircet")
    with pytest.raises(RequestError, match=r"there is no method ''\. Known: np, hard, direct, klora, klora\*, fixed"):
        method_named("")


def test_methods_stand_in_their_order_and_the_first_is_the_usual():
    orders = [method.order for method in methods().values()]
    assert orders == sorted(orders)
    assert usual() is methods()["np"]
    assert all(name == method.name for name, method in methods().items())


def test_parameters_stand_as_methods_name_them():
    assert list(parameters()) == ["mu", "k", "balance", "alpha", "beta", "scope", "density", "seed"]
    assert list(every_parameter()) == [*parameters(), "hypernet"]
    for name, parameter in every_parameter().items():
        assert parameter is readers(name)[0].parameter(name)
        assert readers(name) == [method for method in methods().values() if method.parameter(name)]
    assert readers("none") == []


# Adding rows

LEVEL = Parameter("level", float, default=1.0, words="how much", takes="a number")


def added(name: str = "mine", order: int = 1000, *own: Parameter) -> Method:
    return Method(
        name,
        order,
        about="a test",
        told="a test",
        source="",
        fuse=lambda layer, values: added_up(layer),
        parameters=own,
    )


def test_an_added_method_is_there_until_it_is_undone():
    before = methods(), parameters()
    undo = register(added("mine", 1000, LEVEL))
    try:
        assert list(methods()) == [*before[0], "mine"]
        assert list(parameters()) == [*before[1], "level"]
        assert method_named("Mine") is methods()["mine"]
        assert readers("level") == [methods()["mine"]]
        assert seen(request("mine")) == seen(request("direct"))
    finally:
        undo()
    assert (methods(), parameters()) == before
    undo()
    assert methods() == before[0]


def test_a_method_may_stand_between_others():
    undo = register(added("first", 0, LEVEL))
    try:
        assert usual().name == next(iter(methods())) == "first"
        assert next(iter(parameters())) == "level"
    finally:
        undo()
    assert usual().name == "np"


@pytest.mark.parametrize(("name", "order"), [("np", 1000), ("mine", 1), ("np", 1)])
def test_a_taken_name_or_order_is_refused(name, order):
    before = methods()
    with pytest.raises(ValueError, match=f"methods np and {name} share a name or an order"):
        register(added(name, order))
    assert methods() == before


def test_another_default_of_a_parameter_is_taken():
    mu = parameters()["mu"]
    undo = register(added("mine", 1000, mu.defaulting(2.0)))
    try:
        assert parameters()["mu"] is mu
        assert request("mine").values[mu] == 2.0
        assert request("mine", mu=0.5).given == (("mu", ByBlock(0.5)),)
        assert request("mine", mu=2.0).given == ()
    finally:
        undo()


@pytest.mark.parametrize(
    "change",
    [
        {"parse": float},
        {"format": str},
        {"by_block": False},
        {"words": "something else"},
        {"number": float},
        {"label": "My"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_parameter_that_another_method_reads_differently_is_refused(change):
    before = methods()
    theirs = replace(parameters()["mu"], default=9.0, **change)
    with pytest.raises(ValueError, match="methods np and mine read mu differently"):
        register(added("mine", 1000, theirs))
    assert methods() == before


def test_an_empty_side_is_no_reason_to_fail():
    """Methods that are for lone layers meet one."""
    for method in methods().values():
        if method.takes_lone_layers:
            for sides in (([random_delta(6, 8, 2, 1)], []), ([], [random_delta(6, 8, 2, 1)])):
                method.fuse(layer_of(*sides, ATTENTION), values(method.name))
