"""Tables and help are there to be read and copied from: nothing in them is cut."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from farcall.cli.accounts import user
from farcall.cli.endpoint import main as endpoint_main
from farcall.cli.policies import policy
from farcall.cli.service import main as service_main
from farcall.cli.user import main as user_main


@pytest.mark.parametrize("group", [endpoint_main, service_main, user_main, user, policy], ids=str)
def test_a_group_says_of_every_command_what_it_does_in_a_whole_sentence(group: click.Group) -> None:
    text = CliRunner().invoke(group, ["--help"]).output
    assert "..." not in text.partition("Commands:")[2]
    listed = [line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line[2:3].isalpha()]
    context = click.Context(group)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    assert listed == [name for name, each in commands.items() if each is not None and not each.hidden]


def test_lists_of_the_service_cut_no_name_and_no_id(tmp_path: Path) -> None:
    name = "ada.augusta.countess.of.lovelace.born.byron"

    def run(*args: str) -> str:
        given = ["--data-dir", str(tmp_path)]
        return CliRunner().invoke(service_main, [*args, *given], input="correct horse battery staple\n").output

    run("user", "add", name, "--display-name", "Augusta Ada King, Countess of Lovelace", "--password-stdin")
    domains = ",".join(f"{number}.departments.example.edu" for number in range(9))
    run("policy", "create", "Everybody of the departments", "--allowed-domains", domains)
    people = run("user", "list")
    row = next(line for line in people.splitlines() if name in line)
    assert f"{name}@local" in row, people
    assert "Countess of Lovelace" in row
    assert len(row.split()[-1]) == 36
    assert "8.departments.example.edu" in run("policy", "list")


def test_options_for_a_template_that_are_none_are_refused_before_anything_is_asked() -> None:
    for options, says in (("WORKERS=5", "not JSON"), ("[1]", "an object")):
        result = CliRunner().invoke(user_main, ["run", "lab", "--user-endpoint-config", options, "hostname"])
        assert result.exit_code == 2
        assert says in result.output
