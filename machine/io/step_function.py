"""A function as a step: its name and options, and its calls with recorded arguments.

A bound `self` and the variables of the function around it count as arguments, since the result may depend on them.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self, TypeAlias

import attrs

from machine.errors import CanonicalError, Code, UsageError
from machine.io.function_names import found_by_name, name_to_be, unwrapped
from machine.io.step_values import UNDECLARED, Kinds, annotated_return, decode, encode

KEY_PARAMETER: Final = "idempotency_key"
"""The parameter by which the function of an effect gets the idempotency key of its state."""

KEYED: Final = "keyed"
"""The mark in the request of an effect whose function gets that key."""

SELF: Final = "self"
_TRIES: Final = 3
_OPTIONS: Final = frozenset(
    ("name", "returns", "raises", "effect", "timeout", "retry_on", "tries", "fresh", "ignore_args", "on")
)
Classes: TypeAlias = type[Exception] | Sequence[type[Exception]]


@attrs.frozen(eq=False)
class Step:
    """A function and the options with which its calls are recorded."""

    function: Callable[..., Any]
    name: str
    named: bool
    """True when the name finds the function, so that nothing but its parameters tells its calls apart."""
    returns: Any = UNDECLARED
    raises: tuple[type[Exception], ...] = ()
    effect: bool = False
    timeout: float | None = None
    retry_on: tuple[type[Exception], ...] = ()
    tries: int = 1
    fresh: bool = False
    ignore_args: frozenset[str] = frozenset()
    on: str = "thread"
    is_async: bool = False
    takes_key: bool = False
    decorates: bool = False
    given: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """The options as they were given."""
    signature: inspect.Signature = attrs.field(factory=inspect.Signature, repr=False)

    @classmethod
    def of(cls, function: Callable[..., Any], *, decorates: bool = False, **given: Any) -> Self:
        """Check a function and its options; `IoProvider.step` describes them. Raises `UsageError` (`invalid_step`).

        The name of a function that is being decorated finds nothing yet.
        """
        if unknown := given.keys() - _OPTIONS:
            raise invalid(
                f"a step has no option {min(unknown)!r}",
                "keyword arguments of the function go into kwargs={...}",
            )
        name, timeout, tries, on = (given.get(option) for option in ("name", "timeout", "tries", "on"))
        ignore_args = given.get("ignore_args", ())
        if not callable(function) or isinstance(function, type):
            raise invalid(f"a step needs a function, not {function!r}"[:200])
        plain = unwrapped(function)
        shown = getattr(plain, "__qualname__", type(plain).__qualname__)
        if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
            raise invalid(
                f"{shown} is a generator, and a step has one result", "return a list of what it yields"
            )
        found = name_to_be(function) if decorates else found_by_name(function)
        if name is None:
            if found is None:
                raise invalid(f"{shown} has no name that finds it again", 'name it: name="..."')
            name = found
        elif not isinstance(name, str) or not name or not name.isprintable():
            raise invalid(f"the name of a step must be a printable text, not {name!r}")
        signature = _signature(function)
        parameter = signature.parameters.get(KEY_PARAMETER)
        step = cls(
            function,
            name,
            found is not None,
            given.get("returns", UNDECLARED),
            classes_of(given.get("raises", ()), "raises"),
            bool(given.get("effect")),
            timeout,
            classes_of(given.get("retry_on", ()), "retry_on"),
            _tries(given),
            bool(given.get("fresh")),
            frozenset([ignore_args] if isinstance(ignore_args, str) else ignore_args),
            on or "thread",
            inspect.iscoroutinefunction(plain),
            parameter is not None and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY,
            decorates,
            given,
            signature,
        )
        step._check(tried=tries is not None, placed=on is not None)
        return step

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return the step with further options. Raises `UsageError` (`invalid_step`)."""
        return self.of(self.function, decorates=self.decorates, **{**self.given, **options})

    def _check(self, *, tried: bool, placed: bool) -> None:
        """Raise `UsageError` (`invalid_step`) for options that do not go together."""
        timeout, tries = self.timeout, self.tries
        if timeout is not None and not (type(timeout) in {int, float} and 0 < timeout < math.inf):
            raise invalid(f"timeout must be a number of seconds above 0, not {timeout!r}")
        if type(tries) is not int or tries < 1 or (tried and not self.retry_on):
            raise invalid(f"tries={tries!r} needs retry_on=..., and is a number from 1 on")
        if self.on not in {"thread", "process"}:
            raise invalid(f'on must be "thread" or "process", not {self.on!r}')
        if placed and self.is_async:
            raise invalid(f"{self.name} is async and runs on the event loop: on= is for plain functions")
        if self.on == "process" and not self.named:
            raise invalid(
                f"{self.name} cannot be imported by another process", "define it at the top of its module"
            )
        if self.on == "process" and self.ignore_args:
            raise invalid("a live object cannot go to another process: ignore_args and on do not go together")
        if not self.effect:
            return
        if self.fresh:
            raise invalid(
                "an effect is never made again after its success: effect and fresh do not go together"
            )
        again = [
            option
            for option, given in (
                ("timeout", timeout),
                ("retry_on", self.retry_on),
                ("on", self.on == "process"),
            )
            if given
        ]
        if again and not self.takes_key:
            raise invalid(
                f"with {again[0]} the effect {self.name} could happen twice",
                f"give the function the parameter {KEY_PARAMETER}, and let its receiver use the key",
            )

    def annotated(self) -> Any:
        """Return the type that the function is annotated to return."""
        return annotated_return(unwrapped(self.function))

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> BoundStep:
        """Return a call with its recorded request. Raises `UsageError` (`invalid_step`, `step_argument`)."""
        parameters = self.signature
        keyed = self.effect and self.takes_key and KEY_PARAMETER not in kwargs
        if keyed:  # the engine gives it
            others = [each for each in parameters.parameters.values() if each.name != KEY_PARAMETER]
            parameters = parameters.replace(parameters=others)
        try:
            bound = parameters.bind(*args, **kwargs)
        except TypeError as exc:
            raise invalid(f"{self.name}: {exc}") from None
        kinds: Kinds = {}
        named = {_star(parameters, name): value for name, value in bound.arguments.items()}
        owner = _owner(self.function)
        if owner is not None:
            named[SELF] = owner
        cells = {} if self.named else _cells(self.function)
        unknown = self.ignore_args - named.keys() - cells.keys() - parameters.parameters.keys()
        if unknown and not any(name.startswith("**") for name in named):
            raise invalid(
                f"{self.name} has no argument {', '.join(sorted(unknown))}, which ignore_args names"
            )
        request: dict[str, Any] = {"function": self.name, "args": self._written(named, kinds, "args")}
        if cells:
            request["cells"] = self._written(cells, kinds, "cells")
        if self.effect:
            request["effect"] = KEYED if keyed else True
        return BoundStep(self, bound, kinds, request)

    def _written(self, values: Mapping[str, Any], kinds: Kinds, part: str) -> dict[str, Any]:
        written = {}
        for name, value in values.items():
            if name.lstrip("*") in self.ignore_args:
                continue
            try:
                written[name] = encode(value, kinds)
            except CanonicalError as exc:
                path = f"{name}{exc.path.removeprefix('$')}"
                what = "the variable around it" if part == "cells" else "the argument"
                raise UsageError(
                    f"{what} {path} of the step {self.name} cannot be recorded: {exc.problem}",
                    code=Code.STEP_ARGUMENT,
                    details={"step": self.name, "path": path},
                    hint=f'leave a live object such as a connection out: ignore_args=("{name.lstrip("*")}",)',
                ) from None
        return written


@attrs.frozen(eq=False)
class BoundStep:
    """One call of a step; `request` is what is recorded of it."""

    step: Step
    _bound: inspect.BoundArguments
    _kinds: Kinds
    request: dict[str, Any]

    def ready(self, request: Mapping[str, Any], extra: Mapping[str, Any]) -> functools.partial[Any]:
        """Return the call with fresh copies of its recorded arguments, taken from the request as it is sent."""
        copies = {name.lstrip("*"): decode(value, self._kinds) for name, value in request["args"].items()}
        function = self.step.function
        owner = _owner(function)
        if owner is not None and SELF in copies and SELF not in self._bound.arguments:
            function = _bound_to(function, copies.pop(SELF))
        if "cells" in request:
            function = _with_cells(function, decode(request["cells"], self._kinds))
        bound = inspect.BoundArguments(self._bound.signature, self._bound.arguments | copies)
        return functools.partial(function, *bound.args, **{**bound.kwargs, **extra})


def _tries(given: Mapping[str, Any]) -> int:
    tries: int = given.get("tries", _TRIES if given.get("retry_on") else 1)
    return tries


def invalid(message: str, hint: str | None = None) -> UsageError:
    """Return the error of a function or of options that make no step."""
    return UsageError(message, code=Code.INVALID_STEP, hint=hint)


def classes_of(given: Any, option: str) -> tuple[type[Exception], ...]:
    """Return one class of exceptions, or several, as a tuple. Raises `UsageError` (`invalid_step`)."""
    classes = (given,) if isinstance(given, type) else tuple(given)
    for cls in classes:
        if not isinstance(cls, type) or not issubclass(cls, Exception):
            raise invalid(f"{option} takes classes of exceptions, not {cls!r}")
    return classes


def _signature(function: Any) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # of a function written in C that does not tell
        kinds = inspect.Parameter
        return inspect.Signature([kinds("args", kinds.VAR_POSITIONAL), kinds("kwargs", kinds.VAR_KEYWORD)])


def _star(signature: inspect.Signature, name: str) -> str:
    kind = signature.parameters[name].kind
    if kind is inspect.Parameter.VAR_POSITIONAL:
        return f"*{name}"
    return f"**{name}" if kind is inspect.Parameter.VAR_KEYWORD else name


def _owner(function: Any) -> Any:
    """Return the object that a function is bound to, or that is called itself; None for a plain function."""
    if isinstance(function, functools.partial):
        return None
    if not hasattr(function, "__qualname__"):
        return function
    owner = getattr(function, "__self__", None)
    return None if isinstance(owner, type | types.ModuleType) else owner


def _bound_to(function: Any, owner: Any) -> Any:
    return getattr(owner, function.__name__) if hasattr(function, "__qualname__") else owner


def _cells(function: Any) -> dict[str, Any]:
    """Return the variables of the function around one, by name, as far as they have a value; and of partials."""
    if isinstance(function, functools.partial):
        given = {f"{at}": value for at, value in enumerate(function.args)}
        return {**given, **function.keywords, **_cells(function.func)}
    plain = getattr(function, "__func__", function)
    found = {}
    for name, cell in zip(
        getattr(getattr(plain, "__code__", None), "co_freevars", ()),
        getattr(plain, "__closure__", None) or (),
        strict=False,
    ):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    return found


def _with_cells(function: Any, values: Mapping[str, Any]) -> Any:
    """Return a function in which copies stand for the variables of the function around it."""
    if isinstance(function, functools.partial):
        args = [values.get(f"{at}", value) for at, value in enumerate(function.args)]
        keywords = {name: values.get(name, value) for name, value in function.keywords.items()}
        return functools.partial(_with_cells(function.func, values), *args, **keywords)
    if not isinstance(function, types.FunctionType) or not function.__closure__:
        return function
    cells = tuple(
        types.CellType(values[name]) if name in values else cell
        for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True)
    )
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made
