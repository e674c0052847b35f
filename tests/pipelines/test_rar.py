"""LoRA.rar in a pipeline: the hypernetwork is named as a file."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lib_nplora.errors import RequestError
from lib_nplora.pipelines import fuse_into
from tests.methods import narrow
from tests.pipelines import loras, tiny
from tests.reference import lora_rar
from tests.reference import pipelines as reference


def test_columns_of_q_and_out_are_weighed(tmp_path, monkeypatch):
    file = narrow.written(tmp_path / "hypernet.safetensors", tiny.HIDDEN, monkeypatch)
    pipe, paths = tiny.made("SDXL"), [tmp_path / f"{name}.safetensors" for name in ("dog", "vangogh")]
    contents, styles = (
        reference.updates(loras.write(path, pipe, seed=seed, only="^..unet.*attn")) for seed, path in enumerate(paths)
    )
    before, weighed = loras.weights(pipe), 0
    with fuse_into(pipe, *paths, method="rar", hypernet=file):
        for name, content in contents.items():
            change = loras.layers(pipe)[name].weight.detach().double() - before[f"{name}.weight"].double()
            if re.search(r"to_q$|to_out\.0$", name):
                weighed += 1
                expected = lora_rar.merged(lora_rar.narrow_hypernet(tiny.HIDDEN), content, styles[name])
            else:
                expected = content + styles[name]
            assert np.linalg.norm(change.numpy() - expected) < 1e-4 * np.linalg.norm(expected), name
    assert 2 * weighed == len(contents) > 8
    with pytest.raises(RequestError, match=r"needs LoRA.rar's hypernetwork, .*hypernet='FILE'"):
        fuse_into(pipe, *paths, method="rar")
    with pytest.raises(RequestError, match=r"'dog.safetensors' is not LoRA.rar's hypernetwork"):
        fuse_into(pipe, *paths, method="rar", hypernet=str(paths[0]))
