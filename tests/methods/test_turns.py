"""Methods whose layers take turns: their schedules. K-LoRA's own are in test_klora.py."""

from __future__ import annotations

import pytest
import torch

from lib_nplora.errors import RequestError
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.methods.method import Sum, Turns
from lib_nplora.methods.selection import EVEN
from lib_nplora.methods.table import methods
from lib_nplora.methods.turns import SCOPE, by_step

from ..matrices import KEY, random_delta
from .layers import layer_of, request, run, values


def winners(method: str, steps: int, **options) -> str:
    rule = methods()[method].rule(values(method, **options))
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
        request("klora*", alpha=0.0).check()
    assert winners("klora", 3, alpha=0.0, beta=1.0) == "ccc"


# Scope


def test_scopes():
    assert SCOPE.read("all") == SCOPE.read(" All ") == "all"
    with pytest.raises(RequestError, match=r"there is no scope 'al'\. Did you mean 'all'\?"):
        SCOPE.read("al")


@pytest.mark.parametrize(
    ("name", "part", "scopes"),
    [
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0", "unet", {"attention", "all"}),
        ("lora_unet_mid_block_attentions_0_proj_in", "unet", {"all"}),
        ("single_blocks.0.linear10", "unet", {"all"}),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "te", set()),
    ],
)
def test_a_scope_holds_layers_of_the_diffusion_model(name, part, scopes):
    layer = layer_of([random_delta(8, 9, 2, 1)], [random_delta(8, 9, 2, 3)], ModuleKey(name, part))
    made = {scope: by_step(layer, values("fixed", scope=scope)) for scope in ("attention", "all")}
    assert {scope for scope, one in made.items() if isinstance(one, Turns)} == scopes
    assert all(isinstance(one, Sum) for scope, one in made.items() if scope not in scopes)
