"""What the panel's buttons do, watched by Gradio's bar and told in sentences."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gradio as gr

from ..errors import HostError, NploraError
from ..findings.said import say
from ..hosts.protocol import Host
from ..jobs.job import Progress
from ..request.request import FusionRequest
from . import running
from .fields import PanelState, fields
from .rest_errors import shown
from .words import of_language, refusal

logger = logging.getLogger("nplora")

PROGRESS = gr.Progress()
"""What Gradio puts the bar of the event at hand in the place of."""

T = TypeVar("T")


def request_of(args: Sequence[Any]) -> FusionRequest:
    """What the panel asks for, by what an event hands over. Raises RequestError."""
    return PanelState.from_args(args[: len(fields())]).request()


def others(args: Sequence[Any]) -> Sequence[Any]:
    """What an event hands over beside the panel's values."""
    return args[len(fields()) :]


def known_host() -> Host:
    """Raises HostError."""
    host = running.host()
    if host is None:
        raise HostError("NP-LoRA does not know this WebUI, or its Lora extension is not enabled: see the console")
    return host


def shown_on(bar: Any) -> Progress:
    """Moves Gradio's bar."""

    def show(done: int, total: int) -> None:
        if done % 10 == 0:
            bar((done, total), unit="layers")

    return show


def told(work: Callable[[], T], refused: Callable[[str], T]) -> T:
    """What came of it, or the sentence that says why nothing did."""
    try:
        return work()
    except NploraError as error:
        return refused(shown(refusal(error, of_language())))
    except Exception as error:
        logger.exception("the panel failed")
        failed = say("this should not happen: {kind} (details are in the console)", kind=type(error).__name__)
        return refused(failed.told(of_language()))
