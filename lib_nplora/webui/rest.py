"""The REST API, beside the host's own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute

from ..errors import FileError, HostError
from ..files import Base
from ..fuse_files import FilePair, fuse_files, inspect_files
from ..fusion import FusedLayer
from ..hosts.protocol import Host
from ..traits import family
from ..weights import LoraWeights
from .new_file import new_file
from .rest_errors import SentenceRoute, problems, shown
from .rest_models import FuseBody, Fused, Inspected, Layers, Lora, PairBody, remarks

logger = logging.getLogger("nplora")

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
        ("POST", "fuse", api.fuse, Fused, "Fuse two LoRAs into a new file", (400, 404, 409, 422)),
        ("POST", "inspect", api.inspect, Inspected, "Say what a fusion would be, and write nothing", (400, 404, 422)),
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


class _Api:
    """The endpoints. They run in threads beside the pictures: they read files, and leave the model alone."""

    def __init__(self, host: Callable[[], Host | None]) -> None:
        self._asked = host
        self._saving = threading.Lock()

    def loras(self) -> list[Lora]:
        """Every LoRA in the WebUI's list, in alphabetical order. Reads no file."""
        return [
            Lora(
                name=shown(entry.name),
                alias=shown(entry.alias),
                path=shown(entry.path),
                hash=entry.shorthash or None,
                made_for=family(entry.metadata),
            )
            for entry in self._host().listed()
        ]

    def fuse(self, body: FuseBody) -> Fused:
        """Saves the fusion into the LoRA folder, complete or not at all, and never over another file.

        LoRAs of the kinds that need the model's weights (DoRA and the like) are read with those of the loaded
        checkpoint. Only one fusion is made at a time.
        """
        host = self._host()

        def free() -> Path:
            return new_file(Path(host.folder), body.output, host.listed())

        def still_free(content: LoraWeights, style: LoraWeights, walk: Iterator[FusedLayer]) -> Iterator[FusedLayer]:
            yield from walk
            free()

        pair, saving = _pair(host, body), body.saving(free())
        with self._saving:
            free()
            fusion = fuse_files(pair, saving, still_free)
            host.refresh()
        return Fused(
            name=saving.output.stem,
            path=shown(str(saving.output)),
            layers=Layers.of(fusion.summary),
            removed=fusion.summary.removed,
            remarks=remarks(fusion),
        )

    def inspect(self, body: PairBody) -> Inspected:
        """Reads both files, fuses them layer by layer, and keeps nothing."""
        return Inspected.of(inspect_files(_pair(self._host(), body)))

    def _host(self) -> Host:
        host = self._asked()
        if host is None:
            raise HostError("NP-LoRA does not know this WebUI, or its Lora extension is not enabled: see the console")
        return host


def _pair(host: Host, body: PairBody) -> FilePair:
    """Raises RequestError, NotFoundError, FileError."""
    request = body.request()
    content, style = (Path(host.resolve(name).path) for name in (body.content, body.style))
    return FilePair(content, style, request, _readable(host.checkpoint))


def _readable(checkpoint: str | None) -> Path | None:
    """The file, unless it is none that layers can be looked up in: then LoRAs that need none are read all the same."""
    try:
        return Base(Path(checkpoint)).path if checkpoint else None
    except FileError as error:
        logger.debug("%s", error)
        return None
