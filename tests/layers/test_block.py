"""Blocks, as users write them and as a model has them."""

from __future__ import annotations

import random

import pytest

from lib_nplora.errors import RequestError
from lib_nplora.layers.block import LABELS, UNKNOWN, Block


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("in4", Block("in", 4)),
        ("mid", Block("mid")),
        ("out", Block("out")),
        (" OUT01 ", Block("out", 1)),
        ("Double7", Block("double", 7)),
        ("single0", Block("single", 0)),
        ("te2", Block("te", 2)),
    ],
)
def test_a_text_names_a_block(text, block):
    assert Block.parse(text) == block


@pytest.mark.parametrize("label", [*LABELS, UNKNOWN])
@pytest.mark.parametrize("number", [None, 0, 1, 37])
def test_every_block_reads_back(label, number):
    block = Block(label, number)
    assert Block.parse(str(block)) == block
    assert Block.parse(str(block).upper()) == block


@pytest.mark.parametrize(
    "text", ["", "4", "in 4", "in4.5", "in-1", "in4in5", "in99999", "down1", "blöck", "in²", "in\n4"]
)
def test_what_names_no_block_is_refused_with_those_that_are(text):
    with pytest.raises(RequestError, match=r"te, in, mid, double, single and out, each also with a number") as error:
        Block.parse(text)
    assert f"no block '{text}'" in str(error.value)


@pytest.mark.parametrize(("text", "meant"), [("duoble7", "double7"), ("text1", "te1"), ("singel", "single")])
def test_the_nearest_block_is_told(text, meant):
    with pytest.raises(RequestError, match=f"Did you mean '{meant}'"):
        Block.parse(text)


def test_a_block_without_a_number_stands_for_all_of_its_label():
    assert Block("out").covers(Block("out", 1))
    assert Block("out").covers(Block("out"))
    assert Block("out", 1).covers(Block("out", 1))
    assert not Block("out", 1).covers(Block("out", 10))
    assert not Block("out", 1).covers(Block("out"))
    assert not Block("in").covers(Block("out", 1))


def test_blocks_stand_in_the_order_of_the_model():
    unet = ["te1", "te2", "in", "in0", "in2", "in10", "mid", "out0", "out9", "out10", "out"]
    transformer = ["te1", "te3", "in", "double0", "double2", "double10", "single0", "single37", "out", "other"]
    for names in (unet, transformer):
        blocks = [Block.parse(name) for name in names]
        random.Random(0).shuffle(blocks)
        assert [str(block) for block in sorted(blocks)] == names
        assert max(blocks) >= min(blocks)
