"""Makes and checks the golden vectors of the serialization strategies, with either ecosystem's package.

    python vectors.py write FAMILY FILE     serialize the samples with this interpreter's package
    python vectors.py check FAMILY FILE     read a file's vectors with it; exits 1 if one means something else

FAMILY is `farcall` or `globus_compute_sdk`: the package to import. A vector is one serialized text with its
meaning: a value (as a Python literal), what a function returns for some arguments, or the class and attributes of
an object. See ../README.md.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import linecache
import sys
from pathlib import Path
from typing import Any

DATA_STRATEGIES = ("DillDataBase64", "JSONData", "AllDataStrategies")
CODE_STRATEGIES = (
    "DillCode",
    "DillCodeTextInspect",
    "DillCodeSource",
    "PureSourceDill",
    "PureSourceTextInspect",
    "CombinedCode",
    "AllCodeStrategies",
)
BYTECODE = ("DillCode", "CombinedCode", "AllCodeStrategies")

VALUES: dict[str, Any] = {
    "nothing": None,
    "no arguments": (),
    "one argument": (7,),
    "no keyword arguments": {},
    "keyword arguments": {"alpha": 0.5, "names": ["a", "b"], "deep": {"x": [1, [2, [3]]]}},
    "text beyond ASCII": ["é", "漢字", "\U0001f52d", 'a\nb\t"c"\\'],
    "lines of base64": list(range(100)),
    "whole numbers": [0, -1, 2**31, 2**63, -(2**100)],
    "fractions": [0.1, -0.0, 1e300],
    "only pickle": {"set": {1, 2}, "bytes": b"\x00\xff", "tuple": (1, (2,)), "complex": 1j, 5: None},
}


def triple(n):
    """Documented."""
    return 3 * n


def greet(name, *others, greeting="hello", **marks):
    # imports belong inside of a function that travels
    import json as js

    return greeting + " " + " & ".join([name, *others]) + js.dumps(marks)


def colons(x):
    table = {"a": 1, "b": [x, x]}
    return {key: value for key, value in table.items() if key != "a"}


def counter(n):
    def step(total, left):
        return total if not left else step(total + left, left - 1)

    return step(0, n)


CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (triple, (7,), {}),
    (greet, ("Ada", "Grace"), {"greeting": "Grüße", "n": 2}),
    (colons, (5,), {}),
    (counter, (10,), {}),
]

SHELL = {"cmd": "echo {x}", "stdout": "o.txt", "stderr": None, "walltime": 2.5, "snippet_lines": 10, "name": "echo_it"}
RESULT = {
    "cmd": "false",
    "stdout": "a\n",
    "stderr": "",
    "returncode": 1,
    "exception_name": "subprocess.CalledProcessError",
}


def samples(package: str) -> list[tuple[str, str, Any, dict[str, Any]]]:
    """(name, strategy, object, meaning) of every vector."""
    made = []
    for name, value in VALUES.items():
        for strategy in DATA_STRATEGIES:
            if not (strategy == "JSONData" and name == "only pickle"):
                read = (
                    json.loads(json.dumps(value)) if strategy != "DillDataBase64" and name != "only pickle" else value
                )
                made.append((name, strategy, value, {"value": repr(read)}))
    for function, args, kwargs in CALLS:
        meaning = {"args": repr(args), "kwargs": repr(kwargs), "returns": repr(function(*args, **kwargs))}
        made += [(function.__name__, strategy, as_if_in_a_script(function), meaning) for strategy in CODE_STRATEGIES]
    shell = {key: value for key, value in SHELL.items() if key != "name"} | {
        "__name__": "echo_it",
        "return_dict": False,
    }
    sdk = importlib.import_module(package)
    for name in ("ShellFunction", "MPIFunction"):
        for strategy in ("DillCode", "AllCodeStrategies"):
            made.append((name, strategy, getattr(sdk, name)(**SHELL), {"class": name, "attributes": shell}))
    result = sdk.ShellResult(**RESULT)
    made += [("ShellResult", s, result, {"class": "ShellResult", "attributes": RESULT}) for s in ("DillDataBase64",)]
    errors = importlib.import_module(f"{package}.errors")
    for name in ("SerializationError", "DeserializationError", "TaskExecutionFailed"):
        arguments = ("why", "12") if name == "TaskExecutionFailed" else ("why",)
        meaning = {"class": name, "exception_args": repr(arguments)}
        made.append((name, "DillDataBase64", getattr(errors, name)(*arguments), meaning))
    return made


def as_if_in_a_script(function: Any) -> Any:
    """The function as if a script `script.py` had defined it, so that no path of this machine gets into a vector."""
    source = inspect.getsource(function)
    linecache.cache["script.py"] = (0, None, linecache.getlines(__file__), "script.py")
    function.__code__ = function.__code__.replace(
        co_filename="script.py",
        co_consts=tuple(
            c.replace(co_filename="script.py") if hasattr(c, "co_code") else c for c in function.__code__.co_consts
        ),
    )
    assert inspect.getsource(function) == source
    return function


def write(package: str, file: Path) -> None:
    import dill

    serialize = importlib.import_module(f"{package}.serialize")
    vectors = []
    for name, strategy, value, meaning in samples(package):
        text = getattr(serialize, strategy)().serialize(value)
        bytecode = strategy in BYTECODE and "returns" in meaning
        vectors.append({"name": name, "strategy": strategy, "bytecode": bytecode, "text": text, "meaning": meaning})
    document = {
        "producer": f"{package} {importlib.import_module(package).__version__}",
        "python": "{}.{}".format(*sys.version_info[:2]),
        "dill": dill.__version__,
        "vectors": vectors,
    }
    file.write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n")


def check(package: str, file: Path) -> list[str]:
    """What is wrong, one line for each vector that means something else here."""
    serializer = importlib.import_module(f"{package}.serialize").ComputeSerializer()
    document = json.loads(file.read_text())
    same_python = document["python"] == "{}.{}".format(*sys.version_info[:2])
    faults = []
    for vector in document["vectors"]:
        if vector["strategy"] == "DillCode" and vector["bytecode"] and not same_python:
            continue
        try:
            fault = difference(serializer.deserialize(vector["text"]), vector["meaning"])
        except Exception as exc:
            fault = f"{type(exc).__name__}: {exc}"
        if fault:
            faults.append(f"{vector['name']} by {vector['strategy']}: {fault}")
    return faults


def difference(got: Any, meaning: dict[str, Any]) -> str | None:
    """How `got` differs from what was meant; None if it does not."""
    if "returns" in meaning:
        got = got(*ast.literal_eval(meaning["args"]), **ast.literal_eval(meaning["kwargs"]))
        return None if repr(got) == meaning["returns"] else f"returns {got!r}, not {meaning['returns']}"
    if "value" in meaning:
        wanted = ast.literal_eval(meaning["value"])
        return None if (type(got), got) == (type(wanted), wanted) else f"is {got!r}, not {wanted!r}"
    if type(got).__name__ != meaning["class"]:
        return f"is of type {type(got).__name__}, not {meaning['class']}"
    if "exception_args" in meaning:
        return None if repr(got.args) == meaning["exception_args"] else f"has args {got.args!r}"
    attributes = {name: getattr(got, name, "(missing)") for name in meaning["attributes"]}
    return None if attributes == meaning["attributes"] else f"has {attributes}, not {meaning['attributes']}"


if __name__ == "__main__":
    action, family, path = sys.argv[1:]
    found = check(family, Path(path)) if action == "check" else write(family, Path(path))
    print(*found or ["ok"], sep="\n")
    sys.exit(1 if found else 0)
