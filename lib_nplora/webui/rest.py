"""The REST API, beside the host's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute

from ..errors import HostError
from ..files import header_label
from ..findings.plots import png
from ..hosts.protocol import Host, shelf_of
from ..jobs.pair import inspect_files
from .rest_answers import Fused, Inspected, Layers, Lora, remarks
from .rest_bodies import Body, FuseBody, InspectBody, with_parameters
from .rest_errors import SentenceRoute, problems, shown
from .saving import file_pair, save

T = TypeVar("T")

PREFIX = "/nplora/v1"
GUARDED = "/sdapi/v1/txt2img"
"""The host's route whose guards are ours, too."""


def register(app: FastAPI, host: Callable[[], Host | None]) -> None:
    """Add our routes behind the guards of the host's own; none if the host was started without an API.

    host
        Asked at each call.
    """
    guarded = next((route for route in app.routes if isinstance(route, APIRoute) and route.path == GUARDED), None)
    if guarded is None or any(str(getattr(route, "path", "")).startswith(PREFIX) for route in app.routes):
        return
    api = _Api(host)
    for method, path, endpoint, answer, summary, statuses in (
        ("GET", "loras", api.loras, list[Lora], "The LoRAs that can be fused", ()),
        ("POST", "fuse", _taking(FuseBody, api.fuse), Fused, "Fuse two LoRAs into a new file", (400, 404, 409, 422)),
        (
            "POST",
            "inspect",
            _taking(InspectBody, api.inspect),
            Inspected,
            "Say what a fusion would be, and write nothing",
            (400, 404, 422),
        ),
    ):
        app.router.add_api_route(
            f"{PREFIX}/{path}",
            endpoint,
            methods=[method],
            response_model=answer,
            summary=summary,
            responses=problems(*statuses, 500, 503),
            tags=["nplora"],
            dependencies=guarded.dependencies,
            route_class_override=SentenceRoute,
        )


def _taking(body: type[Body], endpoint: Callable[[Body], T]) -> Callable[[Body], T]:
    """The endpoint with a body that has all methods' parameters, which FastAPI learns from the annotation."""

    @functools.wraps(endpoint)
    def answered(body: Body) -> T:
        return endpoint(body)

    del answered.__wrapped__
    answered.__annotations__ = {"body": with_parameters(body)}
    return answered


class _Api:
    """The endpoints. They run in threads beside the pictures: they read files, and leave the model alone."""

    def __init__(self, host: Callable[[], Host | None]) -> None:
        self._asked = host

    def loras(self) -> list[Lora]:
        """Every LoRA in the WebUI's list, in alphabetical order. Reads no file."""
        return [
            Lora(
                name=shown(entry.name),
                alias=shown(entry.alias),
                path=shown(entry.path),
                hash=entry.shorthash or None,
                made_for=header_label(entry.metadata),
            )
            for entry in shelf_of(self._host()).listed()
        ]

    def fuse(self, body: FuseBody) -> Fused:
        """Saves the fusion into the LoRA folder, complete or not at all, and never over another file.

        LoRAs of the kinds that need the model's weights (DoRA and the like) are read with those of the loaded
        checkpoint. Only one fusion is made at a time.
        """
        saved = save(self._host(), body.request(), body.output, body.saving)
        summary = saved.fusion.summary
        return Fused(
            name=saved.file.stem,
            path=shown(str(saved.file)),
            preview=shown(str(saved.preview)) if saved.preview else None,
            layers=Layers.of(summary),
            removed=summary.removed,
            remarks=remarks(saved.fusion),
        )

    def inspect(self, body: InspectBody) -> Inspected:
        """Reads both files, fuses them layer by layer, and keeps nothing."""
        request = body.request()
        fusion = inspect_files(file_pair(self._host(), request))
        letters = fusion.schedule.letters(body.steps) if fusion.schedule else {}
        return Inspected.of(fusion, request, letters, png(fusion, request, body.steps) if body.plot else None)

    def _host(self) -> Host:
        host = self._asked()
        if host is None:
            raise HostError("NP-LoRA does not know this WebUI, or its Lora extension is not enabled: see the console")
        return host
