"""Pictures that need no network."""

from __future__ import annotations

import numpy as np
import pytest

from lab.data import SIZE, Pictures
from lab.model.parts import new_pipeline
from lab.model.pipeline import MiniPipeline
from lab.words import ALL_STYLES, ALL_SUBJECTS


@pytest.fixture(scope="session")
def noise_pictures() -> Pictures:
    """As many as there are, of nothing: soft noise, another for each."""
    blocks = np.random.default_rng(0).integers(0, 256, (len(ALL_SUBJECTS), len(ALL_STYLES), 6, 6, 3), np.uint8)
    return Pictures(tuple(ALL_SUBJECTS), tuple(ALL_STYLES), blocks.repeat(SIZE // 6, 2).repeat(SIZE // 6, 3))


@pytest.fixture
def pipe() -> MiniPipeline:
    made = new_pipeline(seed=3)
    made.set_progress_bar_config(disable=True)
    return made
