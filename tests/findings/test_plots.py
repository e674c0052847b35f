"""What the pictures of a pair show, read back from what was drawn."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lib_nplora.command_line.main import main
from lib_nplora.findings.pictures import as_png, pictures, title_of
from lib_nplora.findings.plots import figure, png
from lib_nplora.findings.themes import DARK, LIGHT
from lib_nplora.fusion.outcome import Summary
from lib_nplora.jobs.pair import FileFusion
from lib_nplora.layers.block import Block
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.place import Place
from lib_nplora.methods.selection import Contest, Importance
from lib_nplora.methods.texts import HARD
from lib_nplora.request.request import FusionRequest, Source
from tests import loras

from .test_findings import DOWN, ROW, TEXT, UP

QUERY = ModuleKey("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", "unet")
ROWS = {DOWN: ROW, UP: replace(ROW, overlap=0.05, k=1), TEXT: replace(ROW, overlap=0.8), QUERY: ROW}


def request(content: str = "dog", **settings: object) -> FusionRequest:
    return FusionRequest.of((Source(content),), (Source("vangogh"),), **settings)


def fusion(rows=ROWS, schedule=None) -> FileFusion:
    return FileFusion(Summary({}), (), interference=rows, schedule=schedule)


def axes_of(drawn):
    return {axes.get_title(): axes for axes in drawn.axes}


def test_blocks_and_kinds_are_coloured_by_overlap_over_chance():
    axes = axes_of(figure(fusion(), request()))["How much the two meet"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["te1", "in4", "out3"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["self q", "feed-forward", "projection"]
    shown = axes.images[0].get_array()
    expected = [[np.nan, 8, np.nan], [1.4, np.nan, 1.4], [np.nan, np.nan, 0.5]]
    np.testing.assert_allclose(np.ma.filled(shown, np.nan), expected, rtol=1e-6)
    assert {text.get_text() for text in axes.texts} == {"8", ".5"}, "those far from 1 alone"


def test_the_spectrum_is_cut_at_k():
    axes = axes_of(figure(fusion(), request()))["The style's singular values"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1.0, 0.5])
    assert "protected: k = 2" in axes.get_legend_handles_labels()[1]


@pytest.mark.parametrize("mu", [0.5, 2.0, HARD])
def test_the_chosen_mu_lies_on_the_curve(mu):
    inside = 0.14
    removed = inside * (1 - 1 / (1 + mu) ** 2)
    rows = {DOWN: replace(ROW, removed=removed)}
    axes = axes_of(figure(fusion(rows), request(mu=mu)))["Share of the content's energy that np removes"]
    curve, limit, mark = axes.lines
    np.testing.assert_allclose(curve.get_ydata(), 14 * (1 - 1 / (1 + curve.get_xdata()) ** 2), atol=1e-9)
    np.testing.assert_allclose(limit.get_ydata(), 14)
    assert mark.get_ydata()[0] == pytest.approx(100 * removed)
    assert mark.get_xdata()[0] == min(mu, 5)


def test_other_methods_have_no_mark():
    axes = axes_of(figure(fusion(), request(method="direct")))["Share of the content's energy that np removes"]
    assert len(axes.lines) == 2


def test_the_schedule_has_layers_across_and_steps_down():
    contests = {UP: Contest(Importance(1, 1), Importance(1, 1)), DOWN: Contest(Importance(9, 9), Importance(1, 9))}
    asked = request(method="klora")
    schedule = asked.method.schedule(asked.values, contests)
    letters = schedule.letters(6)
    assert letters[UP] != letters[DOWN]
    axes = axes_of(figure(fusion(schedule=schedule), request(method="klora"), 6))["Who wins"]
    shown = axes.images[0].get_array()
    assert shown.shape == (6, 2)
    assert ["".join("s" if cell else "c" for cell in column) for column in shown.T] == [letters[DOWN], letters[UP]]
    assert "Who wins" not in axes_of(figure(fusion(), request()))


@pytest.mark.parametrize("name", ["$x^2$ $", "a\nb", "\\frac", "x" * 400])
def test_any_name_can_be_drawn(name):
    assert png(fusion(), request(name)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "rows",
    [
        {},
        {DOWN: replace(ROW, spectrum=(), overlap=0.0, chance=0.0, inside=0.0, removed=0.0, k=0, style_energy=0.0)},
        {DOWN: replace(ROW, overlap=0.0, inside=0.0, removed=0.0)},
        {DOWN: replace(ROW, overlap=1.0, chance=1e-4)},
    ],
)
def test_pairs_at_the_edges_are_drawn(rows):
    assert png(fusion(rows), request()).startswith(b"\x89PNG")


@pytest.fixture
def pair(tmp_path, monkeypatch):
    loras.write(tmp_path / "c.safetensors", loras.random_lora(loras.SD1, 4, 1))
    loras.write(tmp_path / "s.safetensors", loras.random_lora(loras.SD1, 3, 2))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inspect(*arguments: str) -> int:
    return main(["inspect", "c.safetensors", "s.safetensors", *arguments])


@pytest.mark.parametrize("method", ["np", "klora"])
def test_the_command_line_writes_the_picture(pair, method):
    assert inspect("--method", method, "--plot", "out.png") == 0
    assert (pair / "out.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in pair.iterdir()) == ["c.safetensors", "out.png", "s.safetensors"]


def test_pictures_are_replaced_only_if_asked(pair, capsys):
    (pair / "out.png").write_text("mine")
    assert inspect("--plot", "out.png") == 2
    assert "exists" in capsys.readouterr().err
    assert (pair / "out.png").read_text() == "mine"
    assert inspect("--plot", "out.png", "--overwrite") == 0
    assert (pair / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("out", "told"), [("out.jpg", "end in .png"), ("nowhere/out.png", "does not exist")])
def test_pictures_that_cannot_be_written(pair, capsys, out, told):
    assert inspect("--plot", out) == 2
    assert told in capsys.readouterr().err


def test_without_matplotlib_only_the_picture_is_missing(pair, capsys, monkeypatch):
    for name in ["matplotlib", *(name for name in sys.modules if name.startswith("matplotlib."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert inspect() == 0
    capsys.readouterr()
    assert inspect("--plot", "out.png") == 2
    assert capsys.readouterr().err == "nplora: plots need matplotlib: pip install matplotlib\n"


UNET = ["te1", "in", *(f"in{i}" for i in range(12)), "mid", *(f"out{i}" for i in range(12)), "out"]
TRANSFORMER = ["te1", "te3", "in", *(f"double{i}" for i in range(19)), *(f"single{i}" for i in range(38)), "out"]


@pytest.mark.parametrize("names", [UNET, TRANSFORMER], ids=["SD 1.5", "Flux"])
@pytest.mark.parametrize("draw", [figure, lambda *pair: pictures(*pair)[0]], ids=["whole", "for a page"])
def test_all_blocks_of_a_model_can_be_read(names, draw, monkeypatch):
    places = {name: Place(Block.parse(name), "self q") for name in names}
    monkeypatch.setattr(ModuleKey, "place", property(lambda key: places[key.name]))
    drawn = draw(fusion({ModuleKey(name, "unet"): ROW for name in reversed(names)}), request())
    drawn.draw_without_rendering()
    axes = axes_of(drawn)["How much the two meet"]
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == names
    boxes = [label.get_window_extent() for label in labels]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))
    assert len(axes.texts) == 0


PLOT = 250
"""Pixels that a page of 400 leaves a plot."""


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_a_page_has_each_plot_by_itself_in_its_theme(theme):
    contests = {UP: Contest(Importance(1, 1), Importance(1, 1)), DOWN: Contest(Importance(9, 9), Importance(1, 9))}
    asked = request(method="klora")
    drawn = pictures(fusion(schedule=asked.method.schedule(asked.values, contests)), asked, 6, theme)
    assert [title_of(one) for one in drawn] == [
        "How much the two meet",
        "The style's singular values",
        "Share of the content's energy that np removes",
        "Who wins",
    ]
    assert drawn[0].axes[0].texts
    for one in drawn:
        pixels = PLOT / 72 / one.get_figwidth()
        written = [text for axes in one.axes for text in (*axes.texts, *axes.get_yticklabels(), *_explained(axes))]
        assert all(text.get_fontsize() * pixels > 9 for text in written)
        for axes in one.axes:
            assert axes.title.get_color() == theme.ink
            assert all(label.get_color() == theme.ink for label in axes.get_yticklabels())
        assert as_png(one).startswith(b"\x89PNG")
    middle = drawn[0].axes[0].images[0].cmap(0.5)
    assert (sum(middle[:3]) / 3 > 0.5) == (theme is LIGHT)


def _explained(axes):
    return legend.get_texts() if (legend := axes.get_legend()) else ()


def test_a_page_has_its_plots_in_its_language():
    words = {"The style's singular values": "Singulärwerte", "protected: k = {k}": "geschützt: k = {k}", "%": "v. H."}
    drawn = pictures(fusion(), request(), words=words)
    spectrum, removed = drawn[1].axes[0], drawn[2].axes[0]
    assert title_of(drawn[1]) == "Singulärwerte"
    assert "geschützt: k = 2" in [text.get_text() for text in spectrum.get_legend().get_texts()]
    assert removed.get_ylabel() == "v. H."
    assert title_of(drawn[0]) == "How much the two meet"


def test_a_page_has_no_plot_of_two_that_do_not_meet():
    assert pictures(fusion({}), request()) == []
