"""The parts of a new model, with random weights."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from lab.data import SIZE
from lab.model.flow import PATCH
from lab.model.pipeline import MiniPipeline
from lab.words import BEGIN, PAD, UNKNOWN, vocabulary

WIDTH = 96
"""Numbers that stand for a word."""

WORDS = 12
"""Words of a caption, the mark at its beginning included; what is longer is cut."""


def new_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    ids = {word: index for index, word in enumerate(vocabulary())}
    words = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, ids[BEGIN])])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, unk_token=UNKNOWN, bos_token=BEGIN, model_max_length=WORDS
    )


def new_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary()),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=WORDS,
            hidden_act="gelu",
            pad_token_id=vocabulary().index(PAD),
            bos_token_id=vocabulary().index(BEGIN),
            eos_token_id=vocabulary().index(PAD),
        )
    )


def new_unet() -> UNet2DConditionModel:
    """3.7 million parameters: 12 x 12 patches in 48 channels, 6 x 6 in 128, attention in the smaller."""
    return UNet2DConditionModel(
        sample_size=SIZE // PATCH,
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        block_out_channels=(48, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        # The mean of the words stands beside the time, as the pooled text does in SDXL.
        class_embed_type="projection",
        projection_class_embeddings_input_dim=WIDTH,
    )


def new_pipeline(seed: int = 0) -> MiniPipeline:
    torch.manual_seed(seed)
    return MiniPipeline(new_unet(), new_text_encoder(), new_tokenizer(), FlowMatchEulerDiscreteScheduler())
