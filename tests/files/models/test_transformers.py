"""Transformers' layers that files hold whole, in slices, or with halves swapped."""

from __future__ import annotations

import pytest

from lib_nplora.files import names
from tests import loras


@pytest.mark.parametrize("blocks", [loras.FLUX, loras.SD3], ids=["flux", "sd3"])
def test_whole_layers_and_slices_meet(blocks: list[loras.Block]) -> None:
    """Whatever the spelling, slices lie one behind the other in the rows of the layer that others hold whole."""
    for block in blocks:
        for spelled in loras.WHOLE_SPELLINGS.values():
            split = names.split(spelled(block.original)[0])
            assert split is not None
            slot = names.slot_of(split[0])
            assert slot is not None
            assert slot.layer == f"lora_unet_{block.canonical}"
            assert slot.rows((block.height, block.width)) is None
            assert slot.is_swapped((block.height, block.width)) == block.swapped
        for spelled in loras.SPLIT_SPELLINGS.values():
            end = 0
            for name, height in block.pieces.items():
                split = names.split(spelled(name)[0])
                assert split is not None
                slot = names.slot_of(split[0])
                assert slot is not None
                assert slot.layer == f"lora_unet_{block.canonical}"
                assert not slot.is_swapped((height, block.width))
                if len(block.pieces) > 1:
                    assert slot.rows((height, block.width)) == (end, end + height)
                    assert slot.rows((height,)) == (end, end + height)
                end += height


def test_xlabs_has_q_k_and_v_of_a_single_block_without_mlp() -> None:
    slot = names.slot_of("single_blocks.7.processor.qkv")
    assert slot is not None
    assert slot.layer == "lora_unet_single_transformer_blocks_7_qkv_mlp"
    assert slot.rows((48, 16)) == (0, 48)
    with pytest.raises(ValueError, match="64 rows where 48 belong"):
        slot.rows((64, 16))
