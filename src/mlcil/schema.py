"""Settings checked against the signature of what takes them: the signature is the schema."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from typing_extensions import get_type_hints  # python 3.10's own makes an Optional of what has the default None

from mlcil.errors import UserError

#: numbers that settings give: the weight of a term, what divides, between 0 and 1, a logit, at least one, none or some
Weight = Annotated[float, Ge(0)]
AboveZero = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
Score = Annotated[float, Ge(-1e6), Le(1e6)]
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]

#: how a sentence speaks of a type: one value of it, several of it
WORDS: dict[Any, tuple[str, str]] = {
    bool: ("True or False", "truth values"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    NoneType: ("None", "None"),
    dict: ("a dictionary", "dictionaries"),
}
OTHER = "another value"
BOUNDS = ((Ge, "ge", "of at least"), (Gt, "gt", "above"), (Le, "le", "of at most"), (Lt, "lt", "below"))


def check(function: Callable[..., Any], given: Any, where: str, *without: str) -> None:
    """Refuse settings that a function or class does not take.

    Args:
        function: what takes them as keyword arguments; its type hints say what is taken, ``Annotated`` with bounds of
            :mod:`annotated_types` a range too, a dictionary ``Annotated`` with a class what that class takes.
        given: the settings.
        where: their name in the config, such as ``network.head``; empty for the config itself.
        without: arguments that are no settings.

    Raises:
        UserError: no dictionary, an unknown key (with the near one), a missing key, or a value of another type or
            outside its range. A key ``type``, which names the class, is left to the caller.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"{where} in the config is {given!r}; expected a dictionary of options")
    function = function.__init__ if inspect.isclass(function) else function
    hints = _hints(function, without)
    check_keys(given, ("type", *hints) if "type" not in hints else hints, where or "the config")
    _check_values(function, given, where, without, strict=True)


def check_library(cls: type, given: Mapping[str, Any], where: str, *without: str) -> None:
    """:func:`check` for a class of a library, or one that somebody derives from it.

    Types are held less strictly: 1 is true, and a list may stand for a tuple. A constructor with ``**kwargs`` hands
    them on to its base's; what the last one takes in that way is left to it.

    Raises:
        UserError: as :func:`check`.
    """
    constructors: list[Callable[..., Any]] = []
    takes_any = False
    for part in (part for part in cls.__mro__[:-1] if "__init__" in vars(part)):
        constructors.append(vars(part)["__init__"])
        kinds = [parameter.kind for parameter in inspect.signature(constructors[-1]).parameters.values()]
        takes_any = inspect.Parameter.VAR_KEYWORD in kinds
        if not takes_any:
            break
    if not takes_any:
        check_keys(given, ("type", *(key for function in constructors for key in _hints(function, without))), where)
    for function in constructors:
        _check_values(function, given, where, without, strict=False)


def _check_values(
    function: Callable[..., Any], given: Mapping[str, Any], where: str, without: tuple[str, ...], strict: bool
) -> None:
    hints = _hints(function, without)
    try:
        _model(function, without, strict).model_validate({key: given[key] for key in given if key in hints})
    except ValidationError as error:
        first = error.errors()[0]
        key, start = str(first["loc"][0]), f"{where}." if where else ""
        expected = describe(hints[key][0])
        if first["type"] == "missing" and len(first["loc"]) == 1:
            raise UserError(f"{where or 'the config'} has no {key!r}; set {start}{key} to {expected}") from None
        near = _near_choice(given[key], hints[key][0])
        raise UserError(f"{start}{key} is {given[key]!r}{near}; expected {expected}") from None
    for key, (hint, _) in hints.items():
        for inner in filter(inspect.isclass, getattr(hint, "__metadata__", ())):
            if given.get(key) is not None:
                check(inner, given[key], f"{where}.{key}")


def check_keys(given: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Raise :class:`UserError` for the first unknown key, suggesting the near one.

    Where a ``type`` says whose keys they are, the key may also be left from the type that a config is based on.
    """
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            left = " Or, if the config's base gives it, start the section anew with _delete_=True" * ("type" in given)
            raise UserError(f"unknown key {key!r} in {where}; {near(key, allowed)}{left}")


def near(found: object, known: Iterable[str]) -> str:
    """The known word that was probably meant, else all of them."""
    lower = {word.lower(): word for word in known}
    matches = difflib.get_close_matches(str(found).lower(), lower, 1)
    return f"did you mean {lower[matches[0]]!r}?" if matches else f"known: {', '.join(sorted(lower.values()))}"


def describe(hint: Any) -> str:
    """What a value of this type is, in words: ``int | None`` is "a whole number or None"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [
            f"{text} {getattr(bound, name):g}"
            for bound in arguments[1:]
            for kind, name, text in BOUNDS
            if isinstance(bound, kind)
        ]
        return f"{describe(arguments[0])} {' and '.join(bounds)}".rstrip()
    if origin in (Union, UnionType):
        words = dict.fromkeys(map(describe, arguments))
        return " or ".join([word for word in words if word != OTHER] or [OTHER])
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if hint in WORDS:
        return WORDS[hint][0]
    kind = origin or hint
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return "a dictionary"
    if kind is tuple and arguments and ... not in arguments:
        return f"a list of {len(arguments)} values"
    if inspect.isclass(kind) and issubclass(kind, Sequence):
        inside = arguments[0] if arguments else Any
        inside = get_args(inside)[0] if get_origin(inside) is Annotated else get_origin(inside) or inside
        return f"a list of {WORDS[inside][1]}" if inside in WORDS else "a list"
    return "a path" if getattr(kind, "__name__", "") == "Path" else OTHER


def _near_choice(value: object, hint: Any) -> str:
    """`` (did you mean 'x'?)`` where the type is a choice of words."""
    words = [word for word in get_args(hint) if isinstance(word, str)] if get_origin(hint) is Literal else []
    matches = difflib.get_close_matches(str(value), words, 1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


@cache
def _hints(function: Callable[..., Any], without: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Argument -> its type and its default (``...`` where there is none)."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # names that only a type checker sees
        hints = {}
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in ("self", *without) and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            default = ... if parameter.default is parameter.empty else parameter.default
            found[name] = (hints.get(name, Any), default)
    return found


@cache
def _model(function: Callable[..., Any], without: tuple[str, ...], strict: bool) -> type[BaseModel]:
    """A pydantic model of the arguments; its own names of the fields are numbered, since some arguments are `copy`."""
    fields: dict[str, Any] = {
        f"argument_{index}": (hint, Field(default, alias=name))
        for index, (name, (hint, default)) in enumerate(_hints(function, without).items())
    }
    options = ConfigDict(strict=strict, extra="forbid", arbitrary_types_allowed=True)
    return create_model("Settings", __config__=options, **fields)
