"""The golden vectors of both ecosystems (conformance/strategies) mean here what they say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from farcall.serialize import ComputeSerializer, strategy_from
from farcall.serialize.bytecode import is_foreign
from farcall.wire.errors import DeserializationError

DIRECTORY = Path(__file__).parents[2] / "conformance" / "strategies"
_SPEC = importlib.util.spec_from_file_location("vectors", DIRECTORY / "vectors.py")
assert _SPEC
assert _SPEC.loader
vectors = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(vectors)

PLAIN = vectors.VALUES.keys() - {"only pickle"}  # in that one dill and pickle name a class differently
CASES = [
    pytest.param(document, vector, id=f"{path.stem}: {vector['name']} by {vector['strategy']}")
    for path in sorted(DIRECTORY.glob("*.json"))
    for document in [json.loads(path.read_text())]
    for vector in document["vectors"]
]


@pytest.mark.parametrize(("document", "vector"), CASES)
def test_vector_means_what_it_says(document: dict[str, Any], vector: dict[str, Any]) -> None:
    serializer, text = ComputeSerializer(), vector["text"]
    if vector["bytecode"] and vector["strategy"] == "DillCode" and is_foreign(document["python"]):
        with pytest.raises(DeserializationError, match="bytecode"):
            serializer.deserialize(text, python_version=document["python"])
        return
    value = serializer.deserialize(text, python_version=document["python"])
    assert vectors.difference(value, vector["meaning"]) is None


@pytest.mark.parametrize(("document", "vector"), [c for c in CASES if c.values[1]["name"] in PLAIN])
def test_plain_data_is_written_character_for_character_as_the_other_ecosystem_writes_it(
    document: dict[str, Any], vector: dict[str, Any]
) -> None:
    strategy = strategy_from(f"farcall.serialize.{vector['strategy']}")
    assert strategy.serialize(vectors.VALUES[vector["name"]]) == vector["text"]


@pytest.mark.parametrize(("document", "vector"), [c for c in CASES if "attributes" in c.values[1]["meaning"]])
def test_shell_objects_become_ours_whoever_sent_them(document: dict[str, Any], vector: dict[str, Any]) -> None:
    value = ComputeSerializer().deserialize(vector["text"])
    assert type(value).__module__.startswith("farcall.worker.")


def test_the_check_notices_a_vector_that_means_something_else(tmp_path: Path) -> None:
    document = json.loads((DIRECTORY / "farcall.json").read_text())
    document["vectors"] = [v for v in document["vectors"] if v["strategy"] in ("JSONData", "PureSourceDill")]
    changed = json.loads(json.dumps(document))
    for vector in changed["vectors"]:
        vector["meaning"] = {"value": "'something else'"}
    for name, content in (("good", document), ("bad", changed)):
        (tmp_path / name).write_text(json.dumps(content))
    assert vectors.check("farcall", tmp_path / "good") == []
    assert len(vectors.check("farcall", tmp_path / "bad")) == len(document["vectors"])
