"""Errors of the REST API, each answered with a sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from ..errors import HostError, NotFoundError, NploraError, RequestError
from .new_file import ExistsError

logger = logging.getLogger("nplora")

STATUS = {NotFoundError: 404, ExistsError: 409, RequestError: 422, HostError: 503, NploraError: 400}
"""The first kind that an error is of counts."""

MEANING = {
    400: "The files cannot be fused",
    404: "There is no such LoRA",
    409: "The name is taken",
    422: "A value cannot be used",
    500: "Something went wrong that was not foreseen",
    503: "This WebUI is not known",
}


class Problem(BaseModel):
    """Why it cannot be done."""

    detail: str = Field(..., description="A sentence for the user.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the documentation of a route."""
    return {status: {"model": Problem, "description": MEANING[status]} for status in statuses}


def shown(text: str) -> str:
    """Without what no answer can hold, as names of files may."""
    return text.encode("utf-8", "backslashreplace").decode()


class SentenceRoute(APIRoute):
    """A route whose every error becomes a Problem, but for those of the host's guards."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except HTTPException:
                raise
            except RequestValidationError as error:
                return _answer(422, _unfit(error))
            except NploraError as error:
                status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
                return _answer(status, error.told("API"))
            except Exception as error:
                logger.exception("%s failed", self.path)
                return _answer(500, f"this should not happen: {type(error).__name__} (details are in the console)")

        return answered


def _answer(status: int, text: str) -> JSONResponse:
    return JSONResponse({"detail": shown(" ".join(text.split()))}, status)


def _unfit(error: RequestValidationError) -> str:
    """What pydantic found, field by field. Where several types would do, it finds something for each of them."""
    found: dict[str, dict[str, None]] = {}
    for problem in error.errors():
        field = next((str(place) for place in problem["loc"] if place != "body"), "")
        found.setdefault(field, {})[str(problem["msg"])] = None
    told = {field: ", or: ".join(several) for field, several in found.items()}
    return "; ".join(f"{field}: {text}" if field else text for field, text in told.items())
