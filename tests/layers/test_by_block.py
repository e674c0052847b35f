"""Strengths with exceptions by block."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.layers.block import LABELS, UNKNOWN, Block
from lib_nplora.layers.by_block import (
    ByBlock,
    check_blocks,
    listed,
    read_by_block,
    read_exceptions,
    written_exceptions,
)
from lib_nplora.methods.texts import format_number, parse_mu, parse_number

numbers = st.floats(allow_nan=False, allow_infinity=False)
labels = (*LABELS, UNKNOWN)
blocks = st.builds(Block, st.sampled_from(labels), st.none() | st.integers(0, 9999))
pairs = st.dictionaries(blocks, numbers, max_size=6)
strengths = st.builds(
    lambda usual, found: ByBlock(usual, tuple(sorted(found.items(), key=lambda pair: pair[0]))), numbers, pairs
)

read = partial(parse_number, "c")


def parsed(text: str, usual: float = 1.0) -> ByBlock[float]:
    return read_by_block(text, read, usual)


@given(strengths, numbers)
def test_a_strength_reads_back(strength, usual):
    assert parsed(strength.written(format_number), usual) == strength


@given(strengths, st.randoms())
def test_the_order_the_case_and_spaces_do_not_matter(strength, random):
    exceptions = written_exceptions(strength.exceptions, format_number)
    random.shuffle(exceptions)
    text = " , ".join([format_number(strength.usual), *(one.upper().replace("@", " @ ") for one in exceptions)])
    assert parsed(text) == strength


@given(strengths.filter(lambda strength: strength.exceptions))
def test_the_usual_value_may_be_left_out(strength):
    text = ",".join(written_exceptions(strength.exceptions, format_number))
    assert parsed(text, strength.usual) == strength


def test_writes_the_usual_value_first_and_blocks_in_the_order_of_the_model():
    assert parsed("out1@3,in@2") == ByBlock(1.0, ((Block("in"), 2.0), (Block("out", 1), 3.0)))
    assert (
        parsed("0.5,out1@3,mid@2,te2@1,in10@0,in2@-1").written(format_number) == "0.5,te2@1,in2@-1,in10@0,mid@2,out1@3"
    )
    assert ByBlock(0.5).written(format_number) == "0.5"
    assert read_by_block("0.5,out@hard", parse_mu, 0.5) == ByBlock(0.5, ((Block("out"), math.inf),))


# What counts where


def test_a_number_counts_before_its_label_and_that_before_the_usual_value():
    strength = parsed("1,out@2,out1@3,in4@5")
    counts = {"out1": 3, "out0": 2, "out10": 2, "in4": 5, "in40": 1, "in": 1, "out": 2, "mid": 1, "double1": 1}
    assert {name: strength.at(Block.parse(name)) for name in counts} == counts
    assert strength.at(None) == 1
    unordered = ByBlock(1.0, ((Block("out", 1), 3.0), (Block("out"), 2.0)))
    assert (unordered.at(Block("out", 1)), unordered.at(Block("out", 0))) == (3, 2)


@given(strengths, blocks)
def test_the_nearest_exception_counts(strength, block):
    found = dict(strength.exceptions)
    assert strength.at(block) == found.get(block, found.get(Block(block.label), strength.usual))


def test_an_exception_of_0_is_one():
    assert parsed("1,mid@0").at(Block("mid")) == 0


# What is refused


@pytest.mark.parametrize("text", ["mid@1,mid@1", "0.5,out1@1,in@2,OUT01@3", "in@1,mid@1, IN @ 2"])
def test_a_block_given_twice_is_refused(text):
    with pytest.raises(RequestError, match=r"block (mid|out1|in) is given twice"):
        parsed(text)


def test_a_block_and_all_of_its_label_are_two():
    assert len(parsed("1,in@2,in4@3").exceptions) == 2


@pytest.mark.parametrize("name", ["duoble7", "down1", "7", "in99999", "in-1", "mid block"])
@pytest.mark.parametrize("before", ["", "0.5,", "mid@1,"])
def test_an_unknown_block_is_refused(before, name):
    with pytest.raises(RequestError, match=f"there is no block '{name}'"):
        parsed(f"{before}{name}@1")


@pytest.mark.parametrize("piece", ["", "1", "mid", "mid@", "@1", "@", " @ ", "mid 1"])
def test_a_piece_that_is_no_exception_is_refused(piece):
    said = rf"'{piece.strip()}' is no exception by block: write it as block@value, such as mid@2"
    for text in (f"0.5,in@1,{piece}", f"in@1,{piece}"):
        with pytest.raises(RequestError, match=said):
            parsed(text)
    with pytest.raises(RequestError, match=said):
        read_exceptions([piece], read)


def test_values_are_refused_by_who_reads_them():
    for text in ("x,mid@1", "1,mid@x", "mid@x"):
        with pytest.raises(RequestError, match="c=x is not a number"):
            parsed(text)
    with pytest.raises(RequestError, match="c= is not a number"):
        parsed("")
    with pytest.raises(RequestError, match="c=1@2 is not a number"):
        parsed("mid@1@2")


def test_a_decimal_comma_is_still_told():
    with pytest.raises(RequestError, match=r"c=0,8 is not a number\. Write 0\.8\."):
        parsed("0,8")
    with pytest.raises(RequestError, match=r"mu=0,5 is not a number\. Write 0\.5: mu is a number from 0 up"):
        read_by_block("0,5", parse_mu, 0.5)


@given(st.text("0123456789.,@ eEmidoutnhar-+", max_size=30))
def test_any_text_is_a_strength_or_refused(text):
    with suppress(RequestError):
        strength = parsed(text)
        assert parsed(strength.written(format_number)) == strength


# What a model has

SD15 = [Block("te", 1), *(Block("in", i) for i in range(12)), Block("mid"), *(Block("out", i) for i in range(12))]
FLUX = [Block("in"), *(Block("double", i) for i in range(19)), *(Block("single", i) for i in range(38)), Block("out")]


def test_blocks_that_the_model_has_are_fine():
    check_blocks([Block("in"), Block("in", 11), Block("out", 0), Block("mid"), Block("te"), Block("te", 1)], SD15)
    check_blocks([Block("in"), Block("double"), Block("single", 37)], FLUX)
    check_blocks([], SD15)


@pytest.mark.parametrize(
    ("block", "there", "has"),
    [
        (Block("double", 7), SD15, "te1, in0 to in11, mid and out0 to out11"),
        (Block("in", 12), SD15, "te1, in0 to in11, mid and out0 to out11"),
        (Block("te", 2), SD15, "te1, in0 to in11, mid and out0 to out11"),
        (Block("mid"), FLUX, "in, double0 to double18, single0 to single37 and out"),
        (Block("in", 1), FLUX, "in, double0 to double18, single0 to single37 and out"),
        (Block("mid"), [Block("in", 3)], "in3"),
        (Block("mid"), [Block(UNKNOWN)], "none that is known"),
    ],
)
def test_a_block_that_the_model_has_not_is_refused_with_a_list(block, there, has):
    with pytest.raises(RequestError) as caught:
        check_blocks([*there[:1], block], there)
    assert str(caught.value) == f"this model has no block {block}: it has {has}"


def test_nothing_is_refused_where_no_block_is_known_to_be():
    check_blocks([Block("mid")], [])


def test_the_list_is_in_the_order_of_the_model():
    assert listed(reversed(SD15)) == listed([*SD15, *SD15]) == "te1, in0 to in11, mid and out0 to out11"
    assert listed([Block("te", 1), Block("te", 2), Block("mid")]) == "te1 to te2 and mid"


def test_the_list_names_no_block_that_is_not_there():
    """Flux has CLIP-L and T5, but no CLIP-G."""
    assert listed([Block("te", 3), Block("te", 1), *FLUX]).startswith("te1, te3, in, double0")
    assert listed([Block("in", i) for i in (1, 2, 4, 5, 8)]) == "in1 to in2, in4 to in5 and in8"


def test_the_list_of_nothing():
    assert listed([]) == "none that is known"
