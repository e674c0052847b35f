"""A folder that diffusers wrote, opened on the best device that is there."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from ..errors import FileError, HostError, RequestError, did_you_mean
from ..files import DTYPES

INDEX = "model_index.json"

INSTALL = "install it with pip install '.[diffusers]', in this project's folder"


def best_device() -> str:
    """As torch calls it."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usual_dtype(device: str) -> str:
    """Half precision on a GPU; older cards are slow at bf16."""
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    return "fp16" if device == "mps" else "fp32"


def open_pipeline(folder: Path, dtype: str | None = None, pipeline: str | None = None) -> Any:
    """A pipeline, its bars switched off.

    dtype
        A name from DTYPES; None for what suits the device.
    pipeline
        Module and class, such as `lab.model.pipeline.MiniPipeline`, for a folder that names one that diffusers does
        not have.

    Raises FileError for a folder that cannot be opened, RequestError for a class that is not there, HostError without
    diffusers.
    """
    named = class_in(folder)
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise HostError(f"diffusers cannot be used here ({error}): {INSTALL}") from error
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    kind = _class_named(pipeline) if pipeline else diffusers.DiffusionPipeline
    if not pipeline and not hasattr(diffusers, named):
        raise FileError(
            f"'{folder}' holds a {named}, which diffusers does not have: name its class with --pipeline MODULE.CLASS"
        )
    device = best_device()
    try:
        pipe = kind.from_pretrained(str(folder), dtype=DTYPES[dtype or usual_dtype(device)], local_files_only=True)
        pipe.to(device)
    except Exception as error:
        raise FileError(f"'{folder}' cannot be opened: {_reason(error)}") from error
    pipe.set_progress_bar_config(leave=False, disable=not sys.stderr.isatty())
    return pipe


def class_in(folder: Path) -> str:
    """The name of the pipeline's class. Raises FileError for what is no folder of a pipeline."""
    if folder.is_file():
        raise FileError(f"'{folder}' is a file: name a folder that holds a {INDEX}, as diffusers saves pipelines")
    if not folder.is_dir():
        siblings = (path.name for path in folder.parent.glob("*") if path.is_dir())
        raise FileError(f"there is no folder '{folder}'.{did_you_mean(folder.name, siblings)}")
    if not (folder / INDEX).is_file():
        raise FileError(f"'{folder}' holds no pipeline of diffusers: there is no {INDEX} in it")
    try:
        return str(json.loads((folder / INDEX).read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"'{folder / INDEX}' cannot be read ({_reason(error)}): download or save it again") from error


def _class_named(name: str) -> Any:
    """Raises RequestError."""
    module, _, kind = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise RequestError(f"there is no pipeline {name} ({error}): write MODULE.CLASS") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
