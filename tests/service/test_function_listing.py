"""GET /v3/functions and /v3/functions/{id}, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from policy_world import group, guarded_endpoint, person, policy
from service_world import CODE, Caller, Play, Site

from farcall.service.functions import listing_store
from farcall.service.functions.source import source_of
from farcall.service.relay import store as relay
from farcall.service.relay.results import ParsedResult
from farcall.wire.framing import pack_buffers

TEXT = "def triple(n):\n    return 3 * n\n"
VECTORS = json.loads(
    (Path(__file__).parents[2] / "conformance" / "strategies" / "globus-compute-sdk-4.19.0.json").read_text()
)


async def ids(caller: Caller, query: str = "") -> list[str]:
    """Ids of all pages, in their order."""
    found, cursor = [], ""
    while True:
        answer = await caller.ask("GET", f"/v3/functions?{query}{cursor}")
        found += [each["function_id"] for each in answer["functions"]]
        if answer["next_cursor"] is None:
            return found
        cursor = f"&cursor={answer['next_cursor']}"


def test_functions_are_listed_newest_first_by_role(play: Play, store_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(listing_store, "_STEP", 2)

    async def story(site: Site) -> None:
        lab = await group(site, "lab")
        ada = await person(site, "ada@example.org", member_of=[lab])
        bob = await person(site, "bob@example.org", member_of=[lab])
        cleo = await person(site, "cleo@example.org")
        private = [await ada.caller.function() for _ in range(3)]
        site.clock.now += 10
        public = await ada.caller.function(public=True, function_name="Pi <b>", group=lab)
        site.clock.now += 10
        of_lab = await ada.caller.function(group=lab, function_name="pipeline")
        gone = await ada.caller.function(public=True)
        await ada.caller.ask("DELETE", f"/v2/functions/{gone}")
        assert await ids(ada.caller) == [of_lab, public, *sorted(private, reverse=True)]
        assert await ids(ada.caller, "limit=1") == await ids(ada.caller)
        assert await ids(ada.caller, "search=PI&limit=1") == [of_lab, public]
        assert await ids(ada.caller, "search=triple") == sorted(private, reverse=True)
        assert await ids(ada.caller, "role=shared") == await ids(bob.caller) == []
        assert await ids(bob.caller, "role=shared&limit=1") == [of_lab, public]
        assert await ids(cleo.caller, "role=shared") == [public]
        (row,) = (await cleo.caller.ask("GET", "/v3/functions?role=shared"))["functions"]
        assert row == {
            "function_id": public,
            "name": "Pi <b>",
            "description": None,
            "registered_at": site.clock.now - 10,
            "owner": {"id": ada.id, "username": "ada@example.org"},
            "is_mine": False,
            "public": True,
            "group_ids": [lab],
            "ha_endpoint_id": None,
            "last_run_at": None,
            "runs": 0,
        }
        for wrong in ("role=all", "cursor=WzFd", "search=" + 257 * "x"):
            await ada.caller.ask("GET", f"/v3/functions?{wrong}", status=422)

    play(story, store=store_url)


def test_a_function_is_shown_with_its_text_and_its_runs(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        meta = {"python_version": "3.11.7", "sdk_version": "1.0", "dill_version": "0.3.9", "more": 1}
        function_id = await ada.function(public=True, description="Three times", meta=meta)
        here, there = await ada.endpoint(), await bob.endpoint()
        mine = (await ada.submit(here, function_id))["tasks"][function_id][0]
        others = (await bob.submit(there, function_id))["tasks"][function_id][0]
        for task_id, endpoint_id in ((mine, here), (others, there)):
            told = ParsedResult(sender=f"{endpoint_id}.results", body=b"", task_id=task_id, data="11\n21")
            await site.service.db.write(relay.record_results, [told], site.clock.now)
        page = await ada.ask("GET", f"/v3/functions/{function_id}")
        assert (page["source"], page["source_note"]) == (TEXT, "This text is what runs.")
        assert page["versions"] == {"python": "3.11.7", "sdk": "1.0", "dill": "0.3.9"}
        assert (page["description"], page["metadata"]["more"]) == ("Three times", 1)
        assert page["shared_with"] == [{"kind": "everybody", "id": None, "name": None}]
        assert (page["runs"], page["last_run_at"]) == (2, site.clock.now)
        assert [each["task_id"] for each in page["recent_tasks"]] == [mine]
        page = await bob.ask("GET", f"/v3/functions/{function_id}")
        assert (page["runs"], [each["task_id"] for each in page["recent_tasks"]]) == (1, [others])

    play(story, store=store_url)


def test_what_is_for_high_assurance_is_not_shown(play: Play) -> None:
    async def story(site: Site) -> None:
        owner = await person(site, "owner@example.org")
        home = await guarded_endpoint(owner, await policy(owner, high_assurance=True))
        function_id = await owner.caller.function(ha_endpoint_id=home, meta={"source": TEXT})
        page = await owner.caller.ask("GET", f"https://service.example:5000/v3/functions/{function_id}")
        assert page["source"] is None
        assert "high assurance" in page["source_note"]
        assert "3 * n" not in json.dumps(page)

    play(story, amqp_advertised_scheme="amqps")


@pytest.mark.parametrize("name", ["triple", "greet", "colons", "counter"])
def test_text_is_found_in_what_official_clients_register(name: str) -> None:
    of_name = {each["strategy"]: each["text"] for each in VECTORS["vectors"] if each["name"] == name}
    text = of_name["PureSourceDill"].partition(":")[2]
    found = {
        strategy: source_of(pack_buffers([code]), {}, is_protected=False).text for strategy, code in of_name.items()
    }
    assert found == {
        "DillCode": None,
        "DillCodeTextInspect": None,
        "DillCodeSource": None,
        "PureSourceDill": text,
        "PureSourceTextInspect": text,
        "CombinedCode": text,
        "AllCodeStrategies": text,
    }


def test_pickles_stay_closed_and_what_was_told_beside_them_is_marked() -> None:
    pickled = pack_buffers(["01\ngASVBQAAAAAAAABLB4WULg==\n"])
    assert source_of(pickled, {}, is_protected=False).text is None
    told = source_of(pickled, {"source": TEXT}, is_protected=False)
    assert (told.text, "As the client that registered it told" in told.note) == (TEXT, True)
    assert source_of(pickled, {"source": 7}, is_protected=False).text is None
    assert source_of("5\nwrong", {}, is_protected=False).text is None
    both = pack_buffers(["12\n" + pack_buffers(["01\nAA==\n", f"sd\ntriple:{TEXT}"])])
    assert source_of(both, {"source": "a lie"}, is_protected=False).text == TEXT
    assert source_of(CODE, {}, is_protected=False).text == TEXT
    large = source_of(pack_buffers(["st\nf:" + "x" * 300_000]), {}, is_protected=False)
    assert (len(large.text or ""), "Only its beginning" in large.note) == (262144, True)
