"""An option that takes one value is given once: of two values, one would be dropped in silence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand


class OnceCommand(TyperCommand):
    """A command that refuses an option which was given twice and can have one value only."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the command's own, after that look. Exits with 2, as for any wrong usage."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter[Any](given).items():
            if times > 1 and not option.multiple and not option.is_flag and option.param_type_name == "option":
                ctx.fail(f"{option.opts[0]} was given {times} times, and takes one value.")
        return super().parse_args(ctx, args)


def refuse_repeats(app: typer.Typer) -> None:
    """Make every command of ``app`` and of its groups an :class:`OnceCommand`."""
    for command in app.registered_commands:
        command.cls = OnceCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            refuse_repeats(group.typer_instance)
