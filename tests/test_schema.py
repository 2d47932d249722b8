"""Types and ranges of settings, from a signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le

from mlcil.errors import UserError
from mlcil.schema import check, describe


class Taker:
    """Takes a bit of everything; ``copy`` and ``json`` are names that pydantic's models have too."""

    def __init__(
        self,
        place: str | Path,
        network: Any,
        share: Annotated[float, Gt(0), Le(1)] = 0.5,
        count: Annotated[int, Ge(1)] | None = None,
        names: Sequence[str] | None = None,
        sizes: Sequence[int] = (),
        options: Mapping[str, Any] | None = None,
        mode: Literal["fast", "exact"] = "fast",
        copy: bool = False,
        json: int = 0,
    ) -> None:
        """Nothing is kept."""


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"share": 1, "count": 3, "names": ["a"], "sizes": (1, 2), "options": {"x": []}, "mode": "exact", "copy": True},
        {"count": None, "place": Path("x"), "type": "Taker", "sizes": []},
    ],
)
def test_what_fits(more):
    check(Taker, {"place": "x", **more}, "taker", "network")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"share": 2}, "taker.share is 2; expected a number above 0 and of at most 1"),
        ({"share": 0}, "taker.share is 0; expected a number above 0 and of at most 1"),
        ({"share": True}, "taker.share is True; expected a number above 0 and of at most 1"),
        ({"share": "half"}, "taker.share is 'half'; expected a number above 0 and of at most 1"),
        ({"count": 0}, "taker.count is 0; expected a whole number of at least 1 or None"),
        ({"count": 1.5}, "taker.count is 1.5; expected a whole number of at least 1 or None"),
        ({"count": True}, "taker.count is True; expected a whole number of at least 1 or None"),
        ({"names": "abc"}, "taker.names is 'abc'; expected a list of texts or None"),
        ({"sizes": [1, "b"]}, "taker.sizes is [1, 'b']; expected a list of whole numbers"),
        ({"options": [1]}, "taker.options is [1]; expected a dictionary or None"),
        ({"mode": "exakt"}, "taker.mode is 'exakt' (did you mean 'exact'?); expected one of 'fast', 'exact'"),
        ({"copy": 1}, "taker.copy is 1; expected True or False"),
        ({"json": "1"}, "taker.json is '1'; expected a whole number"),
        ({"place": 5}, "taker.place is 5; expected a text or a path"),
        ({"cuont": 5}, "unknown key 'cuont' in taker; did you mean 'count'?"),
        ({"network": 5}, "unknown key 'network' in taker; known: copy, "),
    ],
)
def test_what_does_not_fit(more, sentence):
    with pytest.raises(UserError) as caught:
        check(Taker, {"place": "x", **more}, "taker", "network")
    assert str(caught.value).startswith(sentence)


def test_what_is_missing_or_no_dictionary():
    with pytest.raises(UserError, match=r"taker has no 'place'; set taker\.place to a text or a path"):
        check(Taker, {}, "taker", "network")
    with pytest.raises(UserError, match="taker in the config is 3; expected a dictionary of options"):
        check(Taker, 3, "taker", "network")


def test_a_dataclass_and_the_config_itself():
    @dataclass
    class Plain:
        seed: int = 0

    check(Plain, {"seed": 3}, "")
    with pytest.raises(UserError, match=r"^seed is 'x'; expected a whole number$"):
        check(Plain, {"seed": "x"}, "")


def test_types_without_a_word_of_their_own():
    assert describe(dict) == "a dictionary"
    assert describe(list) == "a list"
    assert describe(object) == "another value"
