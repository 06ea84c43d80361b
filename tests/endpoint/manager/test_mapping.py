"""Which local user an identity becomes, with the library that sites' mapping files are written for."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from farcall.endpoint.configfile import TEMPLATE_NAME
from farcall.endpoint.manager.commands import StartRequest
from farcall.endpoint.manager.config import load_manager_config
from farcall.endpoint.manager.mapping import IdentityMap, MappingInvalid, MappingUnavailable, Unmapped
from farcall.endpoint.manager.resolve import NotResolved, Resolver

ANN = {"id": "9cf5a1d2-41c4-4925-b0bb-f5e0a16c98ab", "username": "ann@uchicago.edu", "email": "ann@lab.example"}
BOB = {"id": "67c31064-1e5f-4d78-b687-5fbea3d3e05a", "username": "bob@anl.gov"}
DECK = {
    "comment": "For more examples, see the identity mapping guide",
    "DATA_TYPE": "expression_identity_mapping#1.0.0",
    "mappings": [{"source": "{username}", "match": "(.*)@uchicago\\.edu", "output": "{0}"}],
}


def expressions(*mappings: dict[str, Any]) -> dict[str, Any]:
    return {"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": list(mappings)}


def rule(match: str, output: str, source: str = "{username}", **more: Any) -> dict[str, Any]:
    return {"source": source, "match": match, "output": output, **more}


def program(path: Path, script: str) -> dict[str, Any]:
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [str(path), "--site"]}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    path = tmp_path / "mapping.json"

    def write(*documents: Any) -> Path:
        path.write_text(json.dumps(list(documents)))
        path.chmod(0o600)
        return path

    return write


def problems(path: Path) -> str:
    with pytest.raises(MappingInvalid) as caught:
        IdentityMap.load(path)
    return "\n".join(caught.value.problems)


def test_the_decks_example_maps_its_university(written: Any) -> None:
    found = IdentityMap.load(written(DECK)).map([BOB, ANN])
    assert (found.local_user, found.identity, found.rule) == ("ann", ANN, "document 1, mapping 1")


def test_the_first_rule_that_matches_wins_and_is_named(written: Any) -> None:
    path = written(
        expressions(rule("(.*)@nowhere", "{0}")),
        expressions(rule("carl@.*", "carl"), rule("(.*)@anl\\.gov", "{0}_anl"), rule(".*", "everybody")),
    )
    mapping = IdentityMap.load(path)
    assert mapping.map([BOB]).local_user == "bob_anl"
    assert mapping.map([BOB]).rule == "document 2, mapping 2"
    assert [each.local_user for each in mapping.matches([BOB])] == ["bob_anl", "everybody"]
    assert mapping.map([ANN, BOB]).local_user == "bob_anl", "rules come before identities"


def test_who_is_unmapped_reads_as_whom(written: Any) -> None:
    with pytest.raises(Unmapped, match=r"Identity failed to map to a local user name \(bob@anl\.gov\)"):
        IdentityMap.load(written(DECK)).map([BOB])


@pytest.mark.parametrize(
    "username",
    [
        "x\nann@uchicago.edu",
        "ann@uchicago.edu\n",
        "/etc@uchicago.edu",
        "-r@uchicago.edu",
        "a b@uchicago.edu",
        "@uchicago.edu",
    ],
)
def test_names_made_to_deceive_become_nobody(written: Any, username: str) -> None:
    with pytest.raises(Unmapped) as caught:
        IdentityMap.load(written(DECK, expressions(rule(".*", "guest")))).map([{**ANN, "username": username}])
    assert type(caught.value) is Unmapped


def test_alternatives_are_anchored_at_both_ends(written: Any) -> None:
    mapping = IdentityMap.load(written(expressions(rule("ann@lab|bob@lab", "team"))))
    assert mapping.map([{"username": "bob@lab"}]).local_user == "team"
    for name in ("ann@lab.evil.example", "x.bob@lab"):
        with pytest.raises(Unmapped):
            mapping.map([{"username": name}])


def test_case_literal_and_several_fields(written: Any) -> None:
    mapping = IdentityMap.load(
        written(
            expressions(
                rule("a.n@x", "literal", literal=True),
                rule("ANN@(x|y)", "case-{0}", ignore_case=True),
                rule("(.*)/(.*)@z", "{1}.{0}", source="{organization}/{username}"),
            )
        )
    )
    assert mapping.map([{"username": "a.n@x"}]).local_user == "literal"
    assert mapping.map([{"username": "ann@x"}]).local_user == "case-x"
    assert mapping.map([{"username": "u@z", "organization": "o"}]).local_user == "u.o"
    with pytest.raises(Unmapped):  # not all fields of the source
        mapping.map([{"username": "u@z", "organization": None}])


def test_every_fault_is_told_with_its_place(written: Any) -> None:
    said = problems(
        written(
            {"DATA_TYPE": "some#1.0.0"},
            expressions(
                rule("(", "{0}"),
                rule("a", "{0}"),
                {"source": "{username}", "match": "a"},
                rule("a", "x", litteral=True),
                rule("a", "x", source="{0}"),
            ),
            {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/no/such/program"]},
        )
    )
    for expected in (
        "document 1: DATA_TYPE is 'some#1.0.0'",
        "document 2, mapping 1: ",
        "document 2, mapping 2: 'output' has {0}, and 'match' has 0 groups",
        "document 2, mapping 3: 'output' must be a text",
        "document 2, mapping 4: 'litteral' is not known here",
        "document 2, mapping 5: 'source' has {0}, which is no field of an identity",
        "document 3: '/no/such/program' is not the absolute path of a program",
    ):
        assert expected in said


def test_a_file_that_is_missing_no_json_or_maps_nobody(tmp_path: Path, written: Any) -> None:
    assert "No such file" in problems(tmp_path / "missing.json")
    path = written()
    assert "no mapping in it" in problems(path)
    path.write_text('[\n{"DATA_TYPE": }]')
    assert "line 2: this is not JSON" in problems(path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(written: Any, mode: int) -> None:
    path = written(DECK)
    path.chmod(mode)
    assert "chmod go-w" in problems(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_or_in_a_directory_of_others_is_refused(tmp_path: Path, written: Any) -> None:
    path = written(DECK)
    os.chown(path, 12345, 12345)
    assert "belongs to another user (12345)" in problems(path)
    os.chown(path, 0, 0)
    tmp_path.chmod(0o777)
    assert "others may replace files" in problems(path)


def test_a_program_is_asked_as_the_guide_says(tmp_path: Path, written: Any) -> None:
    answer = {"DATA_TYPE": "identity_mapping_output#1.0.0", "result": [{"id": BOB["id"], "output": "bob"}]}
    asked = program(
        tmp_path / "map", f"echo \"$@\" >{tmp_path}/args; cat >{tmp_path}/in; echo '{json.dumps(answer)}'\n"
    )
    found = IdentityMap.load(written(DECK, asked), gateway_id="the-endpoint").map([BOB])
    assert (found.local_user, found.identity, found.rule) == ("bob", BOB, "document 2")
    connector = "145812c8-decc-41f1-83cf-bb2a85a2a70b"
    assert (tmp_path / "args").read_text() == f"--site -c {connector} -s the-endpoint -a\n"
    given = json.loads((tmp_path / "in").read_text())
    assert given == {"DATA_TYPE": "identity_mapping_input#1.0.0", "identities": [BOB]}


def test_a_program_that_says_no_leaves_it_to_the_next_document(tmp_path: Path, written: Any) -> None:
    no = program(tmp_path / "map", "exit 1\n")
    assert IdentityMap.load(written(no, DECK)).map([ANN]).rule == "document 2, mapping 1"


def answer(identity: dict[str, str], output: str) -> str:
    result = [{"id": identity["id"], "output": output}]
    return f"echo '{json.dumps({'DATA_TYPE': 'identity_mapping_output#1.0.0', 'result': result})}'\n"


@pytest.mark.parametrize(
    "script", ["echo nonsense\n", "kill -9 $$\n", answer(BOB, "eve")], ids=["nonsense", "killed", "not-asked-for"]
)
def test_a_broken_program_makes_nobody_somebody_else(
    tmp_path: Path, written: Any, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    mapping = IdentityMap.load(written(program(tmp_path / "map", script), DECK))
    with pytest.raises(MappingUnavailable, match="Try again"):
        mapping.map([ANN])
    assert [each.levelname for each in caplog.records if "could not be asked" in each.message] == ["ERROR"]


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(
    tmp_path: Path, written: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = IdentityMap.load(written(DECK))
    assert first.refreshed() is first

    path = written(expressions(rule(".*", "lab")))
    second = first.refreshed()
    assert second is not first
    assert second.map([BOB]).local_user == "lab"
    assert second.refreshed() is second

    path.write_text("[{]")
    assert second.refreshed() is second
    assert second.refreshed() is second
    path.unlink()
    assert second.refreshed() is second
    assert second.refreshed() is second
    assert second.map([BOB]).local_user == "lab"
    kept = [each for each in caplog.records if "stays in force" in each.message]
    assert len(kept) == 2, "once for each change"

    assert written(DECK) == path
    assert second.refreshed().map([ANN]).local_user == "ann"


def test_taking_away_the_rights_of_others_is_a_change_too(written: Any) -> None:
    mapping = IdentityMap.load(written(DECK))
    path = written(expressions(rule(".*", "lab")))
    path.chmod(0o666)
    assert mapping.refreshed() is mapping
    path.chmod(0o600)
    assert mapping.refreshed().map([BOB]).local_user == "lab"


def test_a_manager_tells_programs_its_own_id_and_becomes_no_account_of_the_system(
    tmp_path: Path, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = {"DATA_TYPE": "identity_mapping_output#1.0.0", "result": [{"id": BOB["id"], "output": "daemon"}]}
    asked = program(tmp_path / "map", f"echo \"$@\" >{tmp_path}/args; echo '{json.dumps(daemon)}'\n")
    mapping = written(asked)
    (tmp_path / TEMPLATE_NAME).write_text("engine:\n  type: ThreadPoolEngine\n")
    request = StartRequest(
        name="uep.m.u", user_endpoint_id="u", queues={}, options={}, runtime={}, identity_id=BOB["id"],
        username=BOB["username"], identity_set=[BOB], sent_unix_s=0.0,
    )  # fmt: skip
    for extra, becomes in (("", None), ("allow_system_accounts: true\n", "daemon")):
        (tmp_path / "config.yaml").write_text(f"identity_mapping_config_path: {mapping.name}\n{extra}")
        resolver = Resolver(load_manager_config(tmp_path, is_privileged=True), gateway_id="the-endpoint")
        if becomes is None:
            with pytest.raises(NotResolved, match="account of the system"):
                resolver.resolve(request)
        else:
            assert resolver.resolve(request)[0].local_user == becomes
        assert " -s the-endpoint " in (tmp_path / "args").read_text()
