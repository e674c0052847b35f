"""Our axes in a plot like the hosts'."""

from __future__ import annotations

import itertools
import sys
import types

import pytest

from lib_nplora.errors import NotFoundError, RequestError
from lib_nplora.jobs.session import Session
from lib_nplora.methods.table import parameters
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.tag import format_tag, parse_tag
from lib_nplora.webui import axes, plot, running

from ..hosts.standins import plot as standin
from ..hosts.standins.common import module
from .test_infotext import Shelf, host_of


@pytest.fixture
def options(monkeypatch):
    """The plot's own options, ours among them."""
    made = standin.plot_module()
    scripts = module(
        "modules.scripts",
        scripts_data=[types.SimpleNamespace(module=module("other.py")), types.SimpleNamespace(module=made)],
    )
    monkeypatch.setitem(sys.modules, "modules", module("modules", scripts=scripts))
    monkeypatch.setitem(sys.modules, "modules.scripts", scripts)
    running.start(Session(host_of(Shelf(dog="d", vangogh="v", ink="i"))))
    undo = plot.install()
    yield made.axis_options
    undo()
    running.stop()


def option(options, name):
    return next(option for option in options if option.label == f"[NP-LoRA] {name}")


def test_the_axes_are_there_once_and_go_again(options):
    labels = [option.label for option in options]
    assert labels[1:] == [
        f"[NP-LoRA] {name}"
        for names in (
            ("mu", "mu by block", "k", "balance", "content", "style", "method"),
            ("content weight", "content weight by block", "style weight", "style weight by block"),
            ("alpha", "beta", "scope", "density", "seed"),
        )
        for name in names
    ]
    undo = plot.install()
    assert [option.label for option in options] == labels
    undo()
    assert [option.label for option in options] == ["Nothing"]


def test_a_host_without_a_plot_is_left_alone(monkeypatch):
    scripts = module("modules.scripts", scripts_data=[])
    monkeypatch.setitem(sys.modules, "modules", module("modules", scripts=scripts))
    monkeypatch.setitem(sys.modules, "modules.scripts", scripts)
    plot.install()()


VALUES = {
    "mu": ("0", "hard"),
    "content": ("dog", "ink"),
    "style": ("vangogh", "ink"),
    "k": ("2", "all"),
    "method": ("np", "direct"),
}


@pytest.mark.parametrize("names", list(itertools.permutations(VALUES, 3)))
def test_the_pair_is_varied_outermost_and_mu_innermost(options, names):
    slow_to_fast = ["style", "content", "method", "k", "mu"]
    made = []
    chosen = [(f"[NP-LoRA] {name}", VALUES[name]) for name in names]
    standin.cells(options, types.SimpleNamespace(), chosen, lambda p: made.append(dict(plot.of_cell(p))))
    changes = {name: sum(a[name] != b[name] for a, b in itertools.pairwise(made)) for name in names}
    assert sorted(names, key=changes.get) == sorted(names, key=slow_to_fast.index)
    assert sorted(changes.values()) == [1, 3, 7]


def test_a_cell_keeps_its_values_to_itself(options):
    p = types.SimpleNamespace()
    cells = standin.cells(options, p, [("[NP-LoRA] mu", ("0", "1")), ("[NP-LoRA] k", ("2",))], plot.of_cell)
    assert cells == [{"mu": "0", "k": "2"}, {"mu": "1", "k": "2"}]
    assert plot.of_cell(p) == {}


@pytest.mark.parametrize(
    ("name", "value", "error", "reason"),
    [
        ("mu", "lots", RequestError, "[NP-LoRA] mu: mu=lots is not a number: mu is a number from 0 up, or 'hard'"),
        ("mu", "-1", RequestError, "negative"),
        ("k", "some", RequestError, "k=some is not 'all'"),
        ("method", "direkt", RequestError, "Did you mean 'direct'?"),
        ("style", "vangog", NotFoundError, "there is no LoRA called 'vangog'"),
        ("content", "a:b", RequestError, "has ':' in its name"),
        ("alpha", float("inf"), RequestError, "[NP-LoRA] alpha: alpha=inf is not a finite number"),
        ("beta", float("nan"), RequestError, "[NP-LoRA] beta: beta=nan is not a finite number"),
        ("density", 1.5, RequestError, "[NP-LoRA] density: density=1.5 is not a share"),
        ("seed", -1, RequestError, "[NP-LoRA] seed: seed=-1 is not a whole number"),
        ("scope", "atention", RequestError, "there is no scope 'atention'. Did you mean 'attention'?"),
    ],
)
def test_a_value_that_no_cell_could_use_is_refused_before_the_first(options, name, value, error, reason):
    with pytest.raises(error) as raised:
        option(options, name).confirm(None, [value])
    assert reason in str(raised.value)


@pytest.mark.parametrize("name", ["mu", "content", "style", "k", "method", "scope"])
def test_every_choice_is_a_value(options, name):
    choices = option(options, name).choices()
    assert len(choices) > 1
    option(options, name).confirm(None, choices)


def test_the_loras_are_those_of_the_moment(options):
    running.session().host.shelf.hashes["new"] = "n"
    assert "new" in option(options, "style").choices()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0, 0.1,hard,", ["0", "0.1", "hard"]),
        ("0-1 (+0.25)", ["0", "0.25", "0.5", "0.75", "1"]),
        ("0.1-0.45(+0.1)", ["0.1", "0.2", "0.3", "0.4"]),
        ("0-1 [3], hard", ["0", "0.5", "1", "hard"]),
        ("5-5 [1]", ["5"]),
        ("lots", ["lots"]),
        ("", []),
    ],
)
def test_ranges_of_mu_are_typed_as_for_the_hosts_numbers(options, text, values):
    assert option(options, "mu").prepare(text) == values


def test_a_weight_of_a_range_is_as_short_as_its_label(options):
    p = types.SimpleNamespace()
    option(options, "content weight").apply(p, 0.1 + 0.2, [])
    assert plot.of_cell(p) == {"content weight": "0.3"}


def test_the_methods_settings_reach_the_request(options):
    typed = {"alpha": "0.1", "beta": "-1", "density": "0.25", "seed": "7", "scope": "all"}
    values = [(f"[NP-LoRA] {name}", (text,)) for name, text in typed.items()]
    (cell,) = standin.cells(options, types.SimpleNamespace(), values[:3], plot.of_cell)
    (other,) = standin.cells(options, types.SimpleNamespace(), values[3:], plot.of_cell)
    for method, read in (
        ("klora", {"alpha": 0.1, "beta": -1.0, "scope": "all"}),
        ("dare", {"density": 0.25, "seed": 7}),
    ):
        pair = FusionRequest.of((Source("dog"),), (Source("ink"),), method, balance="layer")
        assert axes.applied(pair, {**cell, **other}) == pair.with_values(**read)


def test_a_seed_is_a_whole_number_for_the_plot_and_the_rest_are_not(options):
    assert [option(options, name).type for name in ("seed", "alpha", "beta", "density")] == [int, float, float, float]


def test_no_two_axes_cost_the_same():
    costs = {name: axis.cost for name, axis in axes.axes().items()}
    assert len(set(costs.values())) == len(costs)
    assert max(costs.values()) < 0.7
    assert min(costs.values()) == costs["mu"] > 0
    assert {"content", "style"} == set(sorted(costs, key=costs.get)[-2:])


def test_the_method_axis_takes_only_what_the_method_reads():
    request = FusionRequest.of((Source("dog"),), (Source("vangogh"),), "klora", alpha=2.0, scope="all")
    assert dict(axes.applied(request, {"method": "klora*"}).given)["alpha"] == 2
    assert axes.applied(request, {"method": "ties"}).given == ()
    switch = axes.applied(request, {"method": "switch"})
    assert switch.values[parameters()["scope"]] == "all"


TAG = "dog:vangogh:0.5,out@1:c=0.8,in@0.6"


@pytest.mark.parametrize(
    ("values", "tag"),
    [
        ({"mu by block": "mid@2 out@hard"}, "dog:vangogh:0.5,mid@2,out@hard:c=0.8,in@0.6"),
        ({"mu by block": "none"}, "dog:vangogh:0.5:c=0.8,in@0.6"),
        ({"mu": "2"}, "dog:vangogh:2,out@1:c=0.8,in@0.6"),
        ({"mu": "2,mid@1"}, "dog:vangogh:2,mid@1:c=0.8,in@0.6"),
        ({"mu by block": "none", "mu": "2"}, "dog:vangogh:2:c=0.8,in@0.6"),
        ({"mu": "hard", "mu by block": "mid@0"}, "dog:vangogh:hard,mid@0:c=0.8,in@0.6"),
        ({"content weight": "1"}, "dog:vangogh:0.5,out@1:c=1,in@0.6"),
        ({"content weight by block": "None"}, "dog:vangogh:0.5,out@1:c=0.8"),
        ({"style weight by block": "out1@0 in@0.5"}, "dog:vangogh:0.5,out@1:c=0.8,in@0.6:s=1,in@0.5,out1@0"),
    ],
)
def test_a_strength_and_its_exceptions_by_block_are_varied_apart(values, tag):
    request = parse_tag(TAG.split(":"))
    assert format_tag(axes.applied(request, values)) == f"<nplora:{tag}>"


@pytest.mark.parametrize("name", ["mu by block", "content weight by block", "style weight by block"])
def test_exceptions_by_block_are_looked_at_before_the_first_cell(options, name):
    ours = option(options, name)
    ours.confirm(None, ["mid@2 out@0.5", "none", " in1@0 "])
    for value, reason in (
        ("mid", f"[NP-LoRA] {name}: 'mid' is no exception by block: write it as block@value, such as mid@2"),
        ("middle@2", f"[NP-LoRA] {name}: there is no block 'middle'."),
        ("mid@2 mid@3", "block mid is given twice"),
        ("mid@much", "=much is not a number"),
    ):
        with pytest.raises(RequestError) as raised:
            ours.confirm(None, [value])
        assert reason in str(raised.value)


def test_hard_by_block_is_for_mu_alone(options):
    option(options, "mu by block").confirm(None, ["mid@hard"])
    with pytest.raises(RequestError, match="weight=hard is not a number"):
        option(options, "content weight by block").confirm(None, ["mid@hard"])
