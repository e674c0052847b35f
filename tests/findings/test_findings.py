"""What the interference of a pair is told as, and its sums by groups of layers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lib_nplora.findings.groups import Group, groups_by_block, groups_by_part
from lib_nplora.findings.said import say
from lib_nplora.findings.sentences import findings, removed_at, verdict
from lib_nplora.findings.strength import at_strength, without_strength
from lib_nplora.fusion.interference import Interference
from lib_nplora.fusion.outcome import LayerReport, Outcome, Summary
from lib_nplora.jobs.pair import FileFusion, FilePair, inspect_files
from lib_nplora.layers.block import Block
from lib_nplora.layers.by_block import ByBlock
from lib_nplora.layers.key import ModuleKey
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.methods.texts import HARD
from lib_nplora.request.request import FusionRequest, Source
from tests import loras

ROW = Interference(
    content_energy=4.0, style_energy=1.0, overlap=0.14, chance=0.1, inside=0.14, removed=0.0778, style_rank=7.0,
    angle=30.0, start=0.01, spectrum=(2.0, 1.0), k=2,
)  # fmt: skip
DOWN, UP = (ModuleKey(f"lora_unet_{side}_blocks_1_attentions_0_proj_in", "unet") for side in ("down", "up"))
TEXT = ModuleKey("lora_te1_text_model_encoder_layers_0_mlp_fc1", "te")


def said(rows: dict[ModuleKey, Interference], merges_plainly: bool = False, **settings: object) -> str:
    request = FusionRequest.of((Source("dog"),), (Source("vangogh"),), **settings)
    return "\n".join(map(str, findings(FileFusion(Summary({}), (), merges_plainly, interference=rows), request)))


def test_the_total_is_told_first():
    first = said({DOWN: ROW}).splitlines()[0]
    assert first == (
        "The two share 14 % of the content's energy, 1.4 x what unrelated LoRAs would share; mu = 0.5 removes 7.8 %."
    )


def test_groups_are_weighted_by_energy():
    loud = replace(ROW, content_energy=12.0, overlap=0.5, chance=0.2, removed=0.4, style_energy=3.0)
    total = Group.of([ROW, loud])
    assert total.layers == 2
    assert total.overlap == pytest.approx((4 * 0.14 + 12 * 0.5) / 16)
    assert total.chance == pytest.approx((4 * 0.1 + 12 * 0.2) / 16)
    assert total.removed == pytest.approx((4 * 0.0778 + 12 * 0.4) / 16)
    assert total.norm_ratio == pytest.approx(2.0)
    groups = groups_by_block({UP: loud, TEXT: ROW, DOWN: ROW})
    assert list(groups) == ["te1", "in4", "out3"]
    assert groups["out3"].overlap == pytest.approx(0.5)
    parts = groups_by_part({UP: loud, TEXT: ROW, DOWN: ROW})
    assert {name: group.layers for name, group in parts.items()} == {"diffusion model": 2, "text encoder": 1}


def test_blocks_and_parts_are_compared():
    text = said({DOWN: ROW, UP: replace(ROW, overlap=0.3), TEXT: replace(ROW, overlap=0.05)})
    assert (
        "In the diffusion model 22 %, 2.2 x what unrelated LoRAs would share; "
        "in the text encoder 5 %, no more than unrelated LoRAs would share."
    ) in text
    assert (
        "Most in out3 (30 %, 3 x what unrelated LoRAs would share), "
        "least in te1 (5 %, no more than unrelated LoRAs would share)."
    ) in text


def test_a_pair_that_mu_can_do_nothing_for_is_told():
    weak = replace(ROW, overlap=0.006, chance=0.006, inside=0.006, removed=0.0033)
    assert "mu can't do much for this pair: even hard removes only 0.6 %." in said({DOWN: weak})
    assert "can't do much" not in said({DOWN: ROW})


def test_one_start_is_told():
    same = replace(ROW, overlap=0.78, inside=0.78, start=0.8)
    text = said({DOWN: same, UP: same})
    assert "trained from the same start" in text
    assert "hard would remove 78 %, most of the subject; mu = 0.21 removes a quarter." in text
    assert removed_at(0.2133) * 0.78 == pytest.approx(0.25, abs=1e-3)
    assert "same start" not in said({DOWN: ROW})
    assert "same start" not in said({DOWN: replace(same, start=None)})


def test_other_methods_are_told_what_np_would_do():
    text = said({DOWN: replace(ROW, removed=0.0)}, method="direct", mu=HARD)
    told = "; method=direct does not look at that, np at mu = hard would remove 14 %."
    assert text.splitlines()[0].endswith(told)
    assert "mu = hard removes 7.8 %" in said({DOWN: ROW}, method="hard", mu=0.5)


def test_another_mu_in_some_blocks_is_told_where_it_counts():
    by_block = ByBlock(0.5, ((Block("mid"), 2.0),))
    assert "mu = 0.5 (others by block) removes 7.8 %" in said({DOWN: ROW}, mu=by_block)
    assert "np at mu = 0.5 (others by block) would remove 7.8 %" in said({DOWN: ROW}, mu=by_block, method="klora")
    assert "mu = hard removes 7.8 %" in said({DOWN: ROW}, mu=by_block, method="hard")


def test_a_style_that_uses_nearly_all_directions():
    wide = replace(ROW, chance=0.99, overlap=0.99)
    assert "k=32 or k=90%" in said({DOWN: wide})
    assert "k=32 or k=90%" not in said({DOWN: wide}, k=RankRule(count=32))


@pytest.mark.parametrize(
    ("energies", "told"), [((16, 1), "The content is 4 x as strong"), ((1, 25), "The style is 5 x"), ((2, 1), None)]
)
def test_a_side_that_is_much_stronger(energies, told):
    text = said({DOWN: replace(ROW, content_energy=energies[0], style_energy=energies[1])})
    assert told in text if told else "as strong as" not in text


OTHER = ModuleKey("lora_unet_mid_block_attentions_0_proj_in", "unet")


def test_balance_is_named_beside_the_weight_as_something_to_try():
    """The style is 4 x as strong in one block and 2 x in the other, so sqrt(1 / 4) and sqrt(1 / 2) are its weights."""
    rows = {
        DOWN: replace(ROW, content_energy=1.0, style_energy=16.0, meeting=(2.0, 0.5)),
        OTHER: replace(ROW, content_energy=1.0, style_energy=4.0, meeting=(math.sqrt(2), math.sqrt(0.5))),
    }
    told = "The style is 3.2 x as strong as the content: lower its weight if the content is lost"
    scaled = "0.55 on average; most in in4 (0.5)"
    assert f"{told}, or try balance=layer, which scales it to {scaled}." in said(rows)
    assert f"{told}." in said(rows, method="blora")


def test_what_balance_does_is_told():
    row = replace(ROW, content_energy=4.0, style_energy=4.0)
    report = LayerReport(Outcome.FUSED, 4.0, 4.0, weights=(2.0, 0.5))
    request = FusionRequest.of((Source("dog"),), (Source("vangogh"),), balance="layer")
    fusion = FileFusion(Summary({DOWN: report}), (), interference={DOWN: row})
    assert str(findings(fusion, request)[-1]) == "balance=layer: the style is scaled to 0.5 on average."


def test_pairs_with_nothing_in_common():
    assert "plain merge" in said({}, merges_plainly=True)
    assert said({}).startswith("Nothing of the two meets in this fusion")
    assert "plain merge" in said({DOWN: replace(ROW, style_energy=0.0)})
    assert "plain merge" in said({DOWN: replace(ROW, content_energy=0.0)})


def test_about_as_much_as_unrelated_loras_is_no_more_than_they_share():
    assert "no more than unrelated LoRAs would share; mu" in said({DOWN: replace(ROW, overlap=0.104, chance=0.1)})
    assert "x chance" not in said({DOWN: ROW, UP: ROW, TEXT: ROW})


@pytest.mark.parametrize("method", ["np", "hard", "direct"])
@pytest.mark.parametrize("mu", [0.0, 0.3, HARD, ByBlock(0.5, ((Block("in"), 2.0),))])
def test_a_strength_that_was_not_measured_is_told_as_if_it_was(tmp_path, method, mu):
    """Two routes to one sentence: measured at that mu, and at the default and told for it."""
    for name, seed in (("c", 1), ("s", 2)):
        loras.write(tmp_path / f"{name}.safetensors", loras.random_lora(loras.SD1, 4, seed))
    request = FusionRequest.of((Source("c"),), (Source("s"),), method, **({"mu": mu} if method == "np" else {}))
    pair = FilePair(tmp_path / "c.safetensors", tmp_path / "s.safetensors", request)
    measured = inspect_files(pair)
    usual = inspect_files(replace(pair, request=without_strength(request)))
    assert str(verdict(at_strength(usual, request), request)) == str(verdict(measured, request))
    for key, row in at_strength(usual, request).interference.items():
        assert row.removed == pytest.approx(measured.interference[key].removed, abs=1e-6)


def test_a_sentence_is_told_in_another_language():
    said = say("{what} removes {share}", what=say("mu"), share="7 %")
    assert str(said) == "mu removes 7 %"
    assert said.told({"{what} removes {share}": "{share} nimmt {what} weg", "mu": "My"}) == "7 % nimmt My weg"
    assert said.told({"{what} removes {share}": "{unknown} {what}"}) == "{unknown} mu"
