"""Errors of the REST API, each answered with a sentence."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine, Sequence
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


TAKES = {
    **dict.fromkeys(("string_type", "type_error.str"), "a text"),
    **dict.fromkeys(("float_type", "float_parsing", "type_error.float"), "a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "type_error.integer"), "a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing", "type_error.bool"), "true or false"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "type_error.dict"), "an object"),
}
"""Kind of problem, in pydantic 2 and in 1 -> what the field takes."""

SAYS = {
    **dict.fromkeys(("missing", "value_error.missing"), "is missing"),
    **dict.fromkeys(("extra_forbidden", "value_error.extra"), "there is no such field"),
    **dict.fromkeys(("json_invalid", "value_error.jsondecode"), "is no JSON"),
    "type_error.none.not_allowed": "takes no null",
}
"""Kind of problem -> what is said of it."""


def _unfit(error: RequestValidationError) -> str:
    """What pydantic found, field by field. Where several types would do, it finds something for each of them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for problem in error.errors():
        named = (place for place in problem["loc"] if isinstance(place, str) and place != "body")
        found.setdefault(next(named, "the request"), []).append(problem)
    return "; ".join(f"{field}: {_told(problems)}" for field, problems in found.items())


def _told(problems: Sequence[dict[str, Any]]) -> str:
    takes = dict.fromkeys(TAKES[one["type"]] for one in problems if one["type"] in TAKES)
    if "a number" in takes:
        takes.pop("a whole number", None)
    if takes:
        return f"takes {' or '.join(takes)}"
    first = problems[0]
    return _of_choices(first) or SAYS.get(first["type"], str(first["msg"]))


def _of_choices(problem: dict[str, Any]) -> str:
    """What a field takes that takes one of a few texts; empty if it does not."""
    context = problem.get("ctx", {})
    permitted = context.get("permitted") or re.findall("'([^']*)'", str(context.get("expected", "")))
    return f"takes one of {', '.join(map(str, permitted))}" if permitted else ""
