"""What the official clients said to the service, said again: the service answers each with the recorded shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from service_world import Play, Site

from conversations import CONVERSATIONS, Names, shape


@pytest.mark.parametrize("file", sorted(CONVERSATIONS.glob("*.json")), ids=lambda file: file.stem)
def test_the_service_answers_as_when_it_was_recorded(play: Play, file: Any) -> None:
    recorded = json.loads(file.read_text())

    async def story(site: Site) -> None:
        ada, names = await site.person("ada@localhost"), Names()
        for each in recorded["exchanges"]:
            path = names.show(each["path"])
            request = None if each["request"] is None else json.loads(names.show(json.dumps(each["request"])))
            answer = await ada.ask(each["method"], path, request, each["status"])
            names.learn(each["answer"], answer)
            assert shape(answer) == shape(each["answer"]), f"{each['method']} {each['path']}"

    play(story)
