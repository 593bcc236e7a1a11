"""Old import paths, which work for one more version: each old module hands on the names of the new one, and warns."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable


def moved(old: str, new: str) -> Callable[[str], object]:
    """The ``__getattr__`` of a module that was ``old``: what is asked of it comes from ``new``, with a warning.

    Raises AttributeError for a name that the new module has not.
    """

    def get(name: str) -> object:
        found: object = getattr(importlib.import_module(new), name)
        if not name.startswith("__"):
            message = f"{old} is now {new}, and its old name goes with the next version: import {name} from there"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
        return found

    return get
