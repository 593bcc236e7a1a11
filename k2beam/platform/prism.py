"""Moved to :mod:`k2beam.stack.prism`; this name works for one more version."""

from typing import TYPE_CHECKING

from k2beam.moved import moved

if TYPE_CHECKING:
    from k2beam.stack.prism import ensure_prism

__all__ = ["ensure_prism"]
__getattr__ = moved("k2beam.platform.prism", "k2beam.stack.prism")

if __name__ == "__main__":
    from k2beam.stack.prism import main

    raise SystemExit(main())
