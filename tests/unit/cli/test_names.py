"""Options that name several things, and options that may not be given twice."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from k2beam.cli.main import app as k2beam_app
from k2beam.cli.names import split_names
from k2beam.cli.repeats import OnceCommand, refuse_repeats
from k2beam.errors import UsageError


def test_repeated_options_and_lists_mean_all() -> None:
    assert split_names(None, "--symbol") is None
    assert split_names(["A", "B, C", "A"], "--symbol") == ("A", "B", "C")
    assert split_names(["BRK\\,B"], "--symbol") == ("BRK,B",)


@pytest.mark.parametrize("given_texts", [[""], ["A,"], [",A"], ["A", " "], ["A,,B"]])
def test_an_empty_name_does_not_mean_everything(given_texts: list[str]) -> None:
    with pytest.raises(UsageError, match="--symbol has an empty name"):
        split_names(given_texts, "--symbol")


@given(st.lists(st.text(st.characters(blacklist_characters="\\"), min_size=1), min_size=1))
def test_any_name_can_be_written(names: list[str]) -> None:
    stripped = [name.strip() for name in names]
    if all(stripped):
        written = [name.replace(",", "\\,") for name in stripped]
        wanted = tuple(dict.fromkeys(stripped))
        assert split_names(written, "--symbol") == wanted
        assert split_names([",".join(written)], "--symbol") == wanted


def made() -> typer.Typer:
    inner, outer = typer.Typer(), typer.Typer()

    @inner.command("go")
    def go(
        word: Annotated[list[str], typer.Argument()],
        one: Annotated[str, typer.Option("--one", "-o")] = "",
        many: Annotated[list[str] | None, typer.Option("--many")] = None,
        flag: Annotated[bool, typer.Option("--flag")] = False,
    ) -> None:
        typer.echo(f"{word} {one} {many} {flag}")

    inner.command("other")(lambda: None)
    outer.add_typer(inner, name="group")
    refuse_repeats(outer)
    return outer


def test_an_option_of_one_value_is_given_once() -> None:
    app = made()

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["group", "go", *arguments])
        return result.exit_code, result.output

    assert run("a", "b", "--one", "x") == (0, "['a', 'b'] x None False\n")
    assert run("a", "--many", "x", "--many", "y", "--flag", "--flag") == (0, "['a']  ['x', 'y'] True\n")
    for twice in (["--one", "x", "-o", "y"], ["--one=x", "--one=x"]):
        code, said = run("a", *twice)
        assert code == 2
        assert "was given 2 times, and takes one value" in said.replace("\n", " ")


def test_every_command_of_k2beam_has_the_rule() -> None:
    def commands(app: typer.Typer) -> list[typer.models.CommandInfo]:
        below = [
            one for group in app.registered_groups if group.typer_instance for one in commands(group.typer_instance)
        ]
        return [*app.registered_commands, *below]

    found = commands(k2beam_app)
    assert len(found) > 30
    assert all(command.cls is OnceCommand for command in found)
