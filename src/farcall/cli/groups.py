"""Groups of commands whose help says what each command does in a whole sentence."""

from __future__ import annotations

import click

__all__ = ["Commands"]

_LIMIT = 200


class Commands(click.Group):
    """Lists its commands with the first sentence of their help; what does not fit goes on in the next line.

    Click itself cuts it where the line ends, which beside long names is after a few words. Its groups do the same.
    """

    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(_LIMIT)) for name, each in found if each is not None and not each.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
