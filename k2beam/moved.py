"""Old import paths, which work for one more version: each old module hands on the names of the new one, and warns."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping


def moved(old: str, new: str, renamed: Mapping[str, str] | None = None) -> Callable[[str], object]:
    """The ``__getattr__`` of a module that was ``old``: what is asked of it comes from ``new``, with a warning.

    ``renamed``: names that are other ones there.

    Raises AttributeError for a name that the new module has not.
    """

    def get(name: str) -> object:
        there = (renamed or {}).get(name, name)
        found: object = getattr(importlib.import_module(new), there)
        if not name.startswith("__"):
            message = f"{old} is now {new}, and its old name goes with the next version: import {there} from there"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
        return found

    return get
