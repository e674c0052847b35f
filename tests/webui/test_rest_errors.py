"""What a request gets that does not fit: the same by pydantic 1, which A1111 has, as by 2, which the Forges have."""

from __future__ import annotations

from typing import Any, Literal, Optional, Union

import pydantic
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient

from lib_nplora.webui.rest_errors import SentenceRoute

v1: Any = pytest.importorskip("pydantic.v1")


def body(of: Any) -> Any:
    """The model of a body, as `rest_bodies` has them."""

    class Strict(of.BaseModel, extra="forbid"):
        pass

    return of.create_model(
        "Body",
        __base__=Strict,
        content=(str, ...),
        te=(float, 1.0),
        mu=(Optional[Union[of.StrictInt, of.StrictFloat, of.StrictStr]], None),  # noqa: UP007, UP045
        rank=(Optional[of.StrictInt], None),  # noqa: UP045
        dtype=(Literal["fp16", "bf16"], "fp16"),
        full=(bool, False),
    )


def told(model: Any, given: dict[str, Any]) -> str:
    router = APIRouter(route_class=SentenceRoute)

    @router.post("/ask")
    def ask() -> None:
        try:
            model(**given)
        except (pydantic.ValidationError, v1.ValidationError) as error:
            problems = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
            raise RequestValidationError(problems) from None

    app = FastAPI()
    app.include_router(router)
    answer = TestClient(app).post("/ask")
    assert answer.status_code == 422
    return answer.json()["detail"]


@pytest.mark.parametrize("of", [pydantic, v1], ids=["pydantic 2", "pydantic 1"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "content: is missing"),
        ({"content": []}, "content: takes a text"),
        ({"content": "dog", "te": "much"}, "te: takes a number"),
        ({"content": "dog", "mu": []}, "mu: takes a number or a text"),
        ({"content": "dog", "rank": 1.5}, "rank: takes a whole number"),
        ({"content": "dog", "dtype": "fp8"}, "dtype: takes one of fp16, bf16"),
        ({"content": "dog", "full": "perhaps"}, "full: takes true or false"),
        ({"content": "dog", "mue": 1}, "mue: there is no such field"),
        ({"te": "much"}, "content: is missing; te: takes a number"),
    ],
)
def test_both_generations_say_the_same(of, given, words):
    assert told(body(of), given) == words
