"""The list of endpoints and one endpoint, as people see them."""

from __future__ import annotations

from typing import Any

import pytest
from service_world import Caller, Play, Site


async def _listed(who: Caller, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await who.ask("GET", f"/v3/endpoints{query}"))["endpoints"]
    return found


async def _names(who: Caller, query: str = "") -> list[str]:
    return [each["name"] for each in await _listed(who, query)]


def test_everybody_sees_the_endpoints_that_they_may_see_by_name_and_finds_them(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person("ada@localhost"), await site.person("bob@localhost")
        await ada.endpoint(endpoint_name="zeta")
        await ada.endpoint(endpoint_name="Beta", public=True, display_name="100% of_all", description="Große Anlage")
        many = await ada.endpoint(endpoint_name="cluster", direct=False, multi_user=True, public=True)
        shared = await ada.endpoint(endpoint_name="alpha")
        await ada.ask("PUT", f"/v3/endpoints/{shared}/shares", {"identities": ["bob@localhost"]})
        gone = await ada.endpoint(endpoint_name="gone", public=True)
        await ada.ask("DELETE", f"/v3/endpoints/{gone}")

        assert await _names(ada) == ["alpha", "Beta", "cluster", "zeta"]
        assert await _names(bob) == ["alpha", "Beta", "cluster"]
        assert await _names(bob, "?role=owner") == []
        assert await _names(bob, "?multi_user=true") == ["cluster"]
        assert await _names(bob, "?kind=direct") == ["alpha", "Beta"]
        assert await _names(bob, "?kind=manager") == ["cluster"]
        assert await _names(bob, "?kind=user") == []
        for text, names in {
            "BET": ["Beta"],
            "0% of_": ["Beta"],
            "Große": ["Beta"],
            "ada@": ["alpha", "Beta", "cluster"],
            "%": ["Beta"],
            many.upper(): ["cluster"],
            "nothing": [],
        }.items():
            found = await bob.client.get(
                "/v3/endpoints", params={"search": text}, headers={"authorization": f"Bearer {bob.token}"}
            )
            assert [each["name"] for each in found.json()["endpoints"]] == names, text

        by_name = {each["name"]: each for each in await _listed(bob)}
        assert by_name["alpha"]["owner"] == {"id": ada.identity.id, "username": "ada@localhost"}
        told = {name: (each["is_mine"], each["can_manage"], each["can_use"]) for name, each in by_name.items()}
        assert told == {
            "alpha": (False, False, True),
            "Beta": (False, False, False),
            "cluster": (False, False, True),
        }
        assert by_name["cluster"]["kind"] == "manager"
        assert by_name["cluster"]["multi_user"] is True

        page = await bob.ask("GET", "/v3/endpoints?limit=2")
        assert (page["total"], [each["name"] for each in page["endpoints"]]) == (3, ["alpha", "Beta"])
        rest = await bob.ask("GET", f"/v3/endpoints?limit=2&cursor={page['next_cursor']}")
        assert ([each["name"] for each in rest["endpoints"]], rest["next_cursor"]) == (["cluster"], None)

    play(story, store=store_url)


def test_those_that_are_online_are_found_by_that(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        names = ["a", "b", "c", "d"]
        ids = {name: await ada.endpoint(endpoint_name=name) for name in names}
        for name in ("b", "c", "d"):
            site.service.relay.reports.attached(ids[name])
        assert await _names(ada, "?online=false") == ["a"]
        page = await ada.ask("GET", "/v3/endpoints?online=true&limit=2")
        assert (page["total"], [each["status"] for each in page["endpoints"]]) == (3, ["online"] * 2)
        # Where the last one was is known although it has gone offline meanwhile.
        site.service.relay.reports.detached(ids["c"])
        rest = await ada.ask("GET", f"/v3/endpoints?online=true&limit=2&cursor={page['next_cursor']}")
        assert [each["name"] for each in rest["endpoints"]] == ["d"]

    play(story)


def test_options_are_shown_to_whom_they_are_asked_from_and_the_configuration_to_nobody_else(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob, cid = [await site.person(f"{name}@localhost") for name in ("ada", "bob", "cid")]
        told = {
            "endpoint_config": "multi_user: true",
            "user_config_template": "engine: {{ x }}",
            "user_config_schema": {"type": "object"},
            "hostname": "login1",
        }
        many = await ada.endpoint(direct=False, multi_user=True, public=True, metadata=told)
        mine = await ada.endpoint(direct=False, public=True, metadata=told)
        await ada.ask("PUT", f"/v3/endpoints/{mine}/shares", {"identities": ["bob@localhost"]})
        seen = {}
        for endpoint_id, who in ((many, ada), (many, cid), (mine, bob), (mine, cid)):
            found = await who.ask("GET", f"/v3/endpoints/{endpoint_id}")
            assert found["hostname"] == "login1"
            assert found["created_at"] == site.clock.now
            members = ("endpoint_config", "user_config_template", "user_config_schema")
            seen[endpoint_id, who] = [found[name] is not None for name in members]
            older = await who.ask("GET", f"/v2/endpoints/{endpoint_id}")
            assert [older[name] for name in members] == [found[name] for name in members]
        assert seen == {
            (many, ada): [True, True, True],
            (many, cid): [False, True, True],
            (mine, bob): [False, True, True],
            (mine, cid): [False, False, False],
        }

    play(story)


@pytest.mark.parametrize(
    "query",
    ["role=none", "online=perhaps", "kind=x", "limit=0", "limit=501", "limit=1e3", "limit=²", "cursor=x", "search=%00"],
)
def test_what_cannot_be_understood_is_refused_by_name(play: Play, query: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        answer = await ada.ask("GET", f"/v3/endpoints?{query}", status=422)
        assert query.partition("=")[0] in answer["detail"]

    play(story)
