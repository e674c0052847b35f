"""Our place in the host's activation of extra networks.

Every picture, every hires pass, every inner pass of another extension and every refiner switch calls
`modules.extra_networks.activate(p, data)`, with that pass's tags. We stand around that one function: fuse before it, so
that LoRAs with an honoured role can be left out of it, and apply after it, when the host's own LoRAs are in place.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from modules import extra_networks, shared

from ..errors import NploraError, RequestError
from ..hosts.protocol import shelf_of
from ..jobs.session import Applied, Asked, Plan, Session
from ..request.request import FusionRequest
from . import running
from .astray import astray
from .batch import unheeded
from .infotext import HASHES, read_hashes, told_of
from .prompt import TAG, left_to_host, plain, read
from .said import in_one_line, say
from .tagging import PROBLEM

logger = logging.getLogger("nplora")

_TOLD = "nplora_lora_hashes"
"""Attribute of `p` that holds what we last wrote of the hashes."""


class NploraNetwork(extra_networks.ExtraNetwork):  # type: ignore[misc]
    """Makes the tag known to the host, and ends the fusion with the job."""

    def __init__(self, session: Session) -> None:
        super().__init__(TAG)
        self._session = session

    def activate(self, p: Any, params_list: list[Any]) -> None:
        """The function around the host's `activate` sees to it."""

    def deactivate(self, p: Any) -> None:
        self._session.clear()


def install(session: Session, stops_on_error: Callable[[], bool] = lambda: False) -> Callable[[], None]:
    """Stand around the host's `activate`. Returns the undo.

    stops_on_error
        Whether a picture whose tags cannot all be honoured is not to be made. Then `activate` raises RequestError.
    """
    original = extra_networks.activate
    installed = True

    @functools.wraps(original)
    def activate(p: Any, extra_network_data: Any) -> Any:
        if not installed:
            return original(p, extra_network_data)
        plan = session.prepare([_with_settings(asked) for asked in read(extra_network_data or {})])
        lost = [*astray(p, extra_network_data or {}), *unheeded(p)]
        if stops_on_error():
            _refuse(session, [*filter(None, [getattr(p, PROBLEM, None)]), *lost, *plan.problems])
        session.clear()  # Scripts that the host tells of its LoRAs find nothing of ours among them.
        result = original(p, left_to_host(extra_network_data, plan))
        applied = session.apply(plan)
        if applied.problems and plan.by_role:
            result = original(p, extra_network_data)
        if stops_on_error():
            _refuse(session, applied.problems)
        for problem in lost:
            say(p, problem)
        _report(p, plan, applied)
        for name in _twice(session, plain(extra_network_data or {}), plan):
            say(p, f"'{name}' has an ordinary <lora:...> tag, too, so it is added twice", logging.INFO)
        return result

    def undo() -> None:
        """Another extension may stand around us by now: then we stay in place and do nothing."""
        nonlocal installed
        installed = False
        session.clear()
        extra_networks.extra_network_registry.pop(TAG, None)
        if extra_networks.activate is activate:
            extra_networks.activate = original

    extra_networks.register_extra_network(NploraNetwork(session))
    extra_networks.activate = activate
    return undo


def _with_settings(asked: Asked) -> Asked:
    """With what the method reads of the settings page."""
    if isinstance(asked.request, RequestError):
        return asked
    try:
        return replace(asked, request=running.filled(asked.request))
    except RequestError as error:
        return replace(asked, request=error)


def _refuse(session: Session, problems: Sequence[str]) -> None:
    if problems:
        session.clear()
        raise RequestError(in_one_line(" ".join(problems)))


def _report(p: Any, plan: Plan, applied: Applied) -> None:
    for problem in (*plan.problems, *applied.problems):
        say(p, problem)
    for remark in plan.remarks:
        say(p, remark, logging.INFO)
    if applied.stale_text:
        _forget_encoded_text(p)
    if plan.files and not applied.problems:
        _add_hashes(p, plan)
        _add_told(p, plan)


def _twice(session: Session, names: Sequence[str], plan: Plan) -> list[str]:
    """Which of these LoRAs are fused as well."""
    fused = {file.path for file in plan.files.values()}
    found = []
    for name in names if fused else ():
        try:
            if shelf_of(session.host).resolve(name).path in fused:
                found.append(name)
        except NploraError as error:
            logger.debug("%s", error)
    return found


def _forget_encoded_text(p: Any) -> None:
    """The host keeps encoded text by its tags, in lists shared by all pictures: empty them in place."""
    for name in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
        cache = getattr(p, name, None)
        if isinstance(cache, list):
            cache[:] = [None] * len(cache)


def _add_told(p: Any, plan: Plan) -> None:
    requests = [asked.request for asked in plan.honoured if isinstance(asked.request, FusionRequest)]
    told: dict[str, set[str]] = {}
    for request in requests:
        for name, text in told_of(request).items():
            told.setdefault(name, set()).add(text)
    p.extra_generation_params.update({name: ", ".join(sorted(texts)) for name, texts in told.items()})


def _add_hashes(p: Any, plan: Plan) -> None:
    """Name the fused LoRAs where the host names its own: Civitai and the paste button look there."""
    hashes = _hashes_of_host(p)
    if hashes is None:
        return
    for name, file in plan.files.items():
        if file.shorthash:
            hashes[name.replace(":", "").replace(",", "")] = file.shorthash
    if hashes:
        text = ", ".join(f"{k}: {v}" for k, v in hashes.items())
        p.extra_generation_params[HASHES] = text
        setattr(p, _TOLD, text)


def _hashes_of_host(p: Any) -> dict[str, str] | None:
    """Names and hashes of the host's own LoRAs; None if it names none.

    Forge Classic keeps them in the infotext alone, and leaves what stood there if its LoRAs are none now.
    """
    if hasattr(p, "lora_hashes"):
        kept: dict[str, str] = p.lora_hashes
        return kept
    if not getattr(shared.opts, "lora_add_hashes_to_infotext", False):
        return None
    text = p.extra_generation_params.get(HASHES, "")
    stale = text == getattr(p, _TOLD, None) and not getattr(p, "is_hr_pass", False)
    return {} if stale else read_hashes(text)
