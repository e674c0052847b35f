"""14: strengths by block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lib_nplora.layers.block import UNKNOWN

from ...reference.kohya import Factors, factors, fused
from .loras import HARD


def block_of(name: str) -> str:
    """The block of a layer by its kohya name, as lora-block-weight counts them: a UNet's input and output blocks."""
    if name.startswith("lora_te"):
        return "te1"
    if found := re.match(r"lora_unet_(down|up)_blocks_(\d)_(\w+?)_(\d)_", name):
        side, block, what, layer = found.groups()
        index = 3 * int(block) + (2 if "sampler" in what else int(layer))
        return f"in{index + 1}" if side == "down" else f"out{index}"
    if name == "lora_unet_conv_in":
        return "in0"
    if name.startswith("lora_unet_mid_block"):
        return "mid"
    return "in" if "embedding" in name else "out"


def label(block: str) -> str:
    return block.rstrip("0123456789")


def last_label(path: Path) -> str:
    """`out`; `in` for the stand-ins' small model, which has no output blocks."""
    return "out" if any(block_of(name).startswith("out") for name in factors(path)) else "in"


def by_block(content: Path, style: Path, **strengths: dict[str, float]) -> dict[str, Factors]:
    """What a tag with exceptions means: strength -> block, or its label -> value; "" for the others."""

    def at(values: dict[str, float], block: str) -> float:
        return values.get(block, values.get(label(block), values.get("", 1.0)))

    made: dict[Any, dict[str, Factors]] = {}
    result = {}
    for name in {**factors(content), **factors(style)}:
        here = {key: at(values, block_of(name)) for key, values in strengths.items()}
        if here.get("c") == here.get("s") == 0:
            continue
        combined = tuple(here.items())
        if combined not in made:
            made[combined] = fused(content, style, **here)
        result[name] = made[combined][name]
    return result


class Blocks:
    def test_14_every_block_has_its_own_strengths(self, driver, loras):
        last = last_label(loras.dog)
        picture = driver.generate(
            f"a cat <nplora:dog:vangogh:0.5,mid@2,{last}@hard:c=1,{last}@0.6:s=1,mid@0.3,te1@0.5>"
        )
        assert all("hardly overlap" in comment for comment in picture.comments)
        expected = by_block(
            loras.dog,
            loras.vangogh,
            mu={"": 0.5, "mid": 2.0, last: HARD},
            c={"": 1.0, last: 0.6},
            s={"": 1.0, "mid": 0.3, "te1": 0.5},
        )
        found = driver.compare(expected)
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_14_roles_take_exceptions_too(self, driver, loras):
        driver.generate(
            "a cat <lora:dog:0.8:role=content:blocks=in@0.6,te@0> <lora:vangogh:role=style:mu=0.5,mid@hard>"
        )
        expected = by_block(
            loras.dog,
            loras.vangogh,
            mu={"": 0.5, "mid": HARD},
            c={"": 0.8, "in": 0.6, "te": 0.0},
            s={"": 1.0},
        )
        found = driver.compare(expected)
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_14_a_block_at_0_is_not_touched(self, driver, loras):
        """`outside` is the largest change of any layer that the reference does not name: none at all, to the bit."""
        last = last_label(loras.dog)
        driver.generate(f"a cat <nplora:dog:vangogh:1:c=1,{last}@0,mid@0:s=1,{last}@0,mid@0>")
        expected = by_block(
            loras.dog, loras.vangogh, mu={"": 1.0}, **{side: {"": 1.0, last: 0.0, "mid": 0.0} for side in "cs"}
        )
        left_out = set(factors(loras.dog)) - set(expected)
        assert {label(block_of(name)) for name in left_out} == {"mid", last}
        found = driver.compare(expected)
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_14_a_block_that_the_model_lacks_is_refused(self, driver, loras, plain):
        picture = driver.generate("a cat <nplora:dog:vangogh:0.5,single7@2>")
        (comment,) = picture.comments
        assert "this model has no block single7: it has te1" in comment
        assert "mid" in comment
        assert picture.pixels == plain

    def test_14_no_layer_of_the_model_is_in_an_unknown_block(self, driver, loras):
        """A block that any layer is in would be taken."""
        (comment,) = driver.generate(f"a cat <nplora:dog:vangogh:0.5,{UNKNOWN}@2>").comments
        assert f"this model has no block {UNKNOWN}: it has te1" in comment

    def test_14_the_panel_and_the_plot_are_their_tags(self, driver, loras):
        tag = "<nplora:dog:vangogh:0.5,mid@2:c=1,in@0.6>"
        pixels = driver.generate(f"a cat {tag}").pixels
        panel = [{"content": "dog", "style": "vangogh", "mu_by_block": "mid@2", "content_by_block": "in@0.6"}]
        picture = driver.generate("a cat", panel=panel)
        assert picture.infotext.startswith(f"a cat {tag}\n")
        assert picture.pixels == pixels
        panel = [{"content": "dog", "style": "vangogh", "content_weight": "1,in@0.6"}]
        cells = driver.sweep("a cat", [("[NP-LoRA] mu by block", ("none", "mid@2"))], panel=panel)
        assert [cell.pixels == pixels for cell in cells] == [False, True]
