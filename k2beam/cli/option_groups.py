"""Options that several commands share: written down once, so that all commands take the same."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")


def with_options(**groups: Callable[..., Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """A decorator for a typer command: its parameter of each name is made by a function whose parameters are options.

    ``@with_options(security=security_options)`` gives the command the options of ``security_options``, in the place
    of its parameter ``security``, and calls it with what that function made of them.
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        taken = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}
        shown: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name in taken:
                shown += taken[parameter.name].values()
            else:
                shown.append(parameter)

        @functools.wraps(command)
        def run(**given: Any) -> R:
            made = {
                name: group(**{option: given.pop(option) for option in taken[name]}) for name, group in groups.items()
            }
            return command(**given, **made)

        # Only by name: then no option must have a default because one before it has.
        shown = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in shown]
        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return run

    return decorate
