"""What became of a fusion on the machines that the extension Distribute sends a part of a batch to.

It sends the prompt, and to a machine that has our script the panel, too. What such a machine says of its pictures stays
there, and one that does not know our tag says nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import RequestError
from . import plot
from .fields import PanelState
from .prompt_text import find
from .said import SAID

logger = logging.getLogger("nplora")

DISTRIBUTE = "Distribute"
"""The title of that extension's script."""

OURS = "np-lora"
"""The name under which a WebUI's API lists our script."""


def remarks(p: Any, args: Sequence[Any]) -> list[str]:
    """What the other machines' pictures lack, and what is said of them there and not here; of a fusion's alone.

    p
        The host's, once these pictures have come.
    args
        Our script's: the panel's tag stands in no prompt if this machine makes no picture itself.
    """
    try:
        workers = list(_workers(p))
        asked = workers and (PanelState.is_on(args) or any(map(find, p.all_prompts or [p.prompt])))
        return [remark for worker in workers for remark in _of_worker(worker, p)] if asked else []
    except (AttributeError, KeyError, TypeError, ValueError, RequestError) as error:
        logger.debug("%s is not as it was: %s", DISTRIBUTE, error)
        return []


def _workers(p: Any) -> Iterator[Any]:
    """The machines that these pictures were sent to."""
    for script in p.scripts.alwayson_scripts:
        if script.title() == DISTRIBUTE and script.world.p is p:
            yield from (job.worker for job in script.world.jobs if job.thread is not None)


def _of_worker(worker: Any, p: Any) -> Iterator[str]:
    where = f"the machine '{worker.label}'"
    scripts = worker.supported_scripts.get("img2img" if getattr(p, "init_images", None) else "txt2img")
    if scripts is not None and OURS not in map(str.lower, scripts):
        yield f"{where} has no NP-LoRA: its pictures are without the fusion"
        return
    if plot.of_cell(p):
        yield f"{where} is not told of this plot's values: its pictures are without them"
    if isinstance(worker.response, dict):
        said = json.loads(worker.response["info"])["extra_generation_params"].get(SAID, "")
        known = p.extra_generation_params.get(SAID, "").splitlines()
        yield from (f"{where}: {line}" for line in said.splitlines() if line not in known)
