"""The programs that must run alike with either SDK, at either endpoint: `python programs.py FAMILY CALLS`.

FAMILY is the package to import, `globus_compute_sdk` or `farcall`; CALLS is a JSON list of [name, arguments]. For each
of them it prints a line `ANSWER` with a JSON object: `name`, and `value` or `error`. Nothing is imported but the
standard library and the family, because the official packages live in a venv of their own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import traceback
from typing import Any

FAMILY = sys.argv[1]
TIMEOUT_S = 100


def twice(x: Any) -> Any:
    return x * 2


def divide(a: int, b: int) -> float:
    return a / b


def text_of(size: int) -> str:
    return "x" * size


def note(log: str, number: int, seconds: float) -> int:
    import os
    import time

    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%d\n" % number)
    os.close(fd)
    time.sleep(seconds)
    return number


def process_of_worker(_: int = 0) -> list[Any]:
    import os
    import threading

    return [os.getpid(), threading.current_thread().name]


def who(leave: bool) -> dict[str, Any]:
    """As whom a task runs. `leave`: it leaves a process behind that has neither its session nor its environment."""
    import os
    import subprocess

    umask = os.umask(0)
    os.umask(umask)
    with open("/proc/self/status") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    return {
        "pid": os.getpid(),
        "uids": list(os.getresuid()),
        "gids": list(os.getresgid()),
        "groups": sorted(os.getgroups()),
        "umask": umask,
        "capabilities": [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")],
        "no_new_privs": status["NoNewPrivs"],
        "environ": dict(os.environ),
        "left": subprocess.Popen(["sleep", "1000"], start_new_session=True, env={}).pid if leave else None,
    }


def attack_the_line() -> None:
    """Say to the manager, on the line that this thread's process has to it, whatever could harm it; then hang up."""
    import json
    import os
    import socket

    def frame(body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + body

    sayings = [
        *[json.dumps({"kind": "credential_refused", "reason": "x"}).encode()] * 500,
        *[json.dumps({"kind": "failed", "step": "\u001b[2J", "text": "x" * 9000, "status": 0}).encode()] * 50,
        json.dumps({"kind": "rendered", "config": "a: &a [" + "[" * 50_000, "grace_s": 1e15}).encode(),
        json.dumps({"kind": "state", "phase": "online", "idle_until_unix": 9e15}).encode(),
        b'{"kind": "state", "phase": "online", "running": "many"}',
        b"[" * 1_000_000,
    ]
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            with socket.socket(fileno=os.dup(fd)) as line:
                if line.family == socket.AF_UNIX and not line.getsockname():
                    for saying in sayings:
                        line.sendall(frame(saying))
        except OSError:
            continue


def attack(sdk: Any, endpoint: str, config: dict[str, Any]) -> Any:
    """Its result may be lost: the manager ends a user endpoint that speaks nonsense."""
    with sdk.Executor(endpoint_id=endpoint) as ex:
        ex.user_endpoint_config = config
        try:
            return ex.submit(attack_the_line).result(TIMEOUT_S)
        except Exception as exc:
            return f"{type(exc).__name__}: {exc}"


def as_local_user(sdk: Any, endpoint: str, config: dict[str, Any], count: int = 1, leave: bool = False) -> Any:
    with sdk.Executor(endpoint_id=endpoint) as ex:
        ex.user_endpoint_config = config
        try:
            return [each.result(TIMEOUT_S) for each in [ex.submit(who, leave) for _ in range(count)]]
        except Exception as exc:
            return f"{type(exc).__name__}: {exc}"


def submit(sdk: Any, endpoint: str) -> Any:
    with sdk.Executor(endpoint_id=endpoint) as ex:
        futures = [ex.submit(twice, n) for n in range(12)]
        keywords = ex.submit(divide, a=9, b=2)
        return [[each.result(TIMEOUT_S) for each in futures], keywords.result(TIMEOUT_S)]


def registered_function(sdk: Any, endpoint: str) -> Any:
    client = sdk.Client()
    function_id = client.register_function(twice)
    with sdk.Executor(endpoint_id=endpoint, client=client) as ex:
        return ex.submit_to_registered_function(function_id, args=(21,)).result(TIMEOUT_S)


def source_code(sdk: Any, endpoint: str) -> Any:
    client = sdk.Client()
    function_id = client.register_source_code("def f(x):\n    return x * 2\n", "f")
    with sdk.Executor(endpoint_id=endpoint, client=client) as ex:
        return ex.submit_to_registered_function(function_id, args=(21,)).result(TIMEOUT_S)


def client_calls(sdk: Any, endpoint: str) -> Any:
    """`run` and `batch_run`; a caller of these asks until the tasks have ended."""
    import time

    client = sdk.Client()
    function_id = client.register_function(twice)
    one = client.run(4, endpoint_id=endpoint, function_id=function_id)
    batch = client.create_batch()
    for n in range(3):
        batch.add(function_id, args=(n,))
    many = client.batch_run(endpoint, batch)["tasks"][function_id]
    until = time.monotonic() + TIMEOUT_S
    while any(each["pending"] for each in client.get_batch_result([one, *many]).values()):
        assert time.monotonic() < until
        time.sleep(0.2)
    got = client.get_batch_result([one, *many])
    return [client.get_result(one), [got[task_id]["result"] for task_id in many], client.get_task(one)["status"]]


def exceptions(sdk: Any, endpoint: str) -> Any:
    with sdk.Executor(endpoint_id=endpoint) as ex:
        error = ex.submit(divide, 1, 0).exception(TIMEOUT_S)
    return "ZeroDivisionError" in f"{type(error).__name__} {error}"


def shell(sdk: Any, endpoint: str) -> Any:
    greet = sdk.ShellFunction("echo hello {name}; echo oops >&2")
    fail = sdk.ShellFunction("exit 3")
    slow = sdk.ShellFunction("sleep 30", walltime=0.2)
    with sdk.Executor(endpoint_id=endpoint) as ex:
        futures = [ex.submit(greet, name="ada"), ex.submit(fail), ex.submit(slow)]
        results = [each.result(TIMEOUT_S) for each in futures]
    classes = {type(each) is sdk.ShellResult for each in results}
    texts = [[each.returncode, each.stdout, each.stderr, each.exception_name] for each in results]
    stderr = texts[0][2].split("\n")[0]  # the other family's worker adds a warning that it has no sandbox
    return [texts[0][:2], stderr, texts[1][0], texts[2][0], texts[2][3], classes == {True}]


def strategies(sdk: Any, endpoint: str) -> Any:
    """Every strategy for code that can carry a plain function, and every one for data; also for the results."""
    serialize = importlib.import_module(FAMILY + ".serialize")
    codes = ["DillCode", "DillCodeSource", "DillCodeTextInspect", "PureSourceDill", "PureSourceTextInspect"]
    codes += ["AllCodeStrategies", "CombinedCode"]
    datas = ["DillDataBase64", "JSONData", "AllDataStrategies"]
    pairs = [(code, "DillDataBase64") for code in codes] + [("DillCode", data) for data in datas]
    answers = {}
    for code, data in pairs:
        serializer = serialize.ComputeSerializer(
            strategy_code=getattr(serialize, code)(), strategy_data=getattr(serialize, data)()
        )
        with sdk.Executor(endpoint_id=endpoint, serializer=serializer) as ex:
            ex.result_serializers = [getattr(serialize, data)]
            answers[f"{code}, {data}"] = ex.submit(twice, [1, "a"]).result(TIMEOUT_S)
    return answers


def reload_tasks(sdk: Any, endpoint: str) -> Any:
    import uuid  # a group of its own: executors of one process share theirs

    with sdk.Executor(endpoint_id=endpoint, task_group_id=str(uuid.uuid4())) as ex:
        first = [ex.submit(twice, n) for n in range(4)]
        values = [each.result(TIMEOUT_S) for each in first]
        group = ex.task_group_id
    with sdk.Executor(endpoint_id=endpoint, task_group_id=group) as ex:
        again = sorted(each.result(TIMEOUT_S) for each in ex.reload_tasks())
    return [values, again]


def sizes(sdk: Any, endpoint: str) -> Any:
    """Near the limit of a result, over it, and over that of a submission."""
    with sdk.Executor(endpoint_id=endpoint) as ex:
        near, over = ex.submit(text_of, 7 * 1024 * 1024), ex.submit(text_of, 12 * 1024 * 1024)
        lengths = len(near.result(TIMEOUT_S))
        error = over.exception(TIMEOUT_S)
    with sdk.Executor(endpoint_id=endpoint) as ex:
        try:
            refusal = ex.submit(len, "x" * (11 * 1024 * 1024)).exception(TIMEOUT_S)
        except Exception as exc:  # ours says so before it sends anything
            refusal = exc
    words = f"{type(error).__name__} {error}"
    return [lengths, "MaxResultSize" in words or "limit" in words, _status(refusal)]


def refusals(sdk: Any, endpoint: str, foreign: str) -> Any:
    """What the client gets to see of each kind of refusal: the status, and whether the text says what to do."""
    client = sdk.Client()
    function_id = client.register_function(twice)
    nowhere = "00000000-0000-4000-8000-000000000000"
    seen: dict[str, Any] = {}

    def attempt(name: str, call: Any) -> None:
        try:
            call()
        except Exception as error:
            seen[name] = [_status(error), len(str(error)) > 20]
        else:
            seen[name] = None

    attempt("no such endpoint", lambda: client.get_endpoint_status(nowhere))
    attempt("no such function", lambda: client.run(1, endpoint_id=endpoint, function_id=nowhere))
    attempt("no such task", lambda: client.get_task(nowhere))
    attempt("somebody else's endpoint", lambda: client.run(1, endpoint_id=foreign, function_id=function_id))
    attempt("somebody else's to stop", lambda: client.stop_endpoint(foreign))
    batch = client.create_batch(user_endpoint_config={"user_runtime": {}})
    batch.add(function_id, args=(1,))
    attempt("a reserved option", lambda: client.batch_run(endpoint, batch))
    return seen


def options(sdk: Any, endpoint: str, options: dict[str, Any]) -> Any:
    with sdk.Executor(endpoint_id=endpoint, user_endpoint_config=options) as ex:
        return ex.submit(process_of_worker).result(TIMEOUT_S)


def look(sdk: Any, endpoint: str) -> Any:
    client = sdk.Client()
    status = client.get_endpoint_status(endpoint)
    about = client.get_endpoint_metadata(endpoint)
    listed = [each["uuid"] for each in client.get_endpoints()]
    allowed = client.get_allowed_functions(endpoint)
    return [status["status"], about["uuid"] == endpoint, endpoint in listed, allowed["restricted"], sorted(about)]


def many(sdk: Any, endpoint: str, log: str, count: int, seconds: float) -> Any:
    """Prints a line when the first ten have ended, so that somebody can do harm in between."""
    from concurrent.futures import as_completed

    with sdk.Executor(endpoint_id=endpoint) as ex:
        futures = [ex.submit(note, log, n, seconds) for n in range(count)]
        for done, _ in enumerate(as_completed(futures, timeout=TIMEOUT_S), 1):
            if done == 10:
                print("TEN", flush=True)
        return sorted(each.result(0) for each in futures)


def failure(sdk: Any, endpoint: str, options: dict[str, Any]) -> Any:
    with sdk.Executor(endpoint_id=endpoint, user_endpoint_config=options) as ex:
        return str(ex.submit(twice, 1).exception(TIMEOUT_S))


def mpi(sdk: Any, endpoint: str) -> Any:
    with sdk.Executor(endpoint_id=endpoint) as ex:
        ex.resource_specification = {"num_nodes": 1, "ranks_per_node": 2, "num_ranks": 2}
        return str(ex.submit(sdk.MPIFunction("hostname")).exception(TIMEOUT_S))


def doomed(sdk: Any, endpoint: str) -> Any:
    """One task that runs and many that wait, when the endpoint is deleted."""
    with sdk.Executor(endpoint_id=endpoint) as ex:
        ex.submit(twice, 1).result(TIMEOUT_S)
        futures = [ex.submit(note, "/dev/null", n, 60) for n in range(9)]
        ex.submit(twice, 1).cancel()
        sdk.Client().delete_endpoint(endpoint)
        return [str(each.exception(TIMEOUT_S)) for each in futures]


def conversation(sdk: Any, endpoint: str) -> Any:
    """Each request that a client makes, to an endpoint that is away: so the answers are the same each time."""
    client = sdk.Client()
    function_id = client.register_function(twice, description="twice as much")
    source_id = client.register_source_code("def f(x):\n    return x\n", "f", public=True)
    client.get_function(function_id)
    batch = client.create_batch(user_endpoint_config={"workers": 2}, create_websocket_queue=True)
    for n in range(2):
        batch.add(function_id, args=(n,))
    batch.add(source_id, args=(3,))
    answer = client.batch_run(endpoint, batch)
    task_ids = answer["tasks"][function_id]
    client.get_task(task_ids[0])
    client.get_batch_result(task_ids)
    client.get_result_amqp_url()
    client.get_endpoints()
    client.get_endpoints(role="any")
    client.get_endpoint_metadata(endpoint)
    client.get_allowed_functions(endpoint)
    for call in (client.get_endpoint_status, client.get_function):
        with contextlib.suppress(Exception):  # 404
            call("00000000-0000-4000-8000-000000000000")
    client.delete_function(source_id)
    client.stop_endpoint(endpoint)
    client.delete_endpoint(endpoint)


def hurry(sdk: Any) -> Any:
    client = sdk.Client()
    return [len(client.get_endpoints()) for _ in range(12)]


def denial(sdk: Any, endpoint: str) -> Any:
    client = sdk.Client()
    try:
        client.run(1, endpoint_id=endpoint, function_id=client.register_function(twice))
    except Exception as error:
        return [_status(error), str(error)]
    return None


def stop(sdk: Any, endpoint: str) -> Any:
    sdk.Client().stop_endpoint(endpoint)


def delete(sdk: Any, endpoint: str) -> Any:
    client = sdk.Client()
    client.delete_endpoint(endpoint)
    try:
        client.get_endpoint_status(endpoint)
    except Exception as error:
        return _status(error)
    return None


def _status(error: Any) -> int | None:
    return getattr(error, "http_status", None) or getattr(error, "http_status_code", None)


def main() -> None:
    sdk = importlib.import_module(FAMILY)
    if not hasattr(sdk, "ShellResult"):
        sdk.ShellResult = importlib.import_module(FAMILY + ".sdk.shell_function").ShellResult
    for name, arguments in json.loads(sys.argv[2]):
        try:
            answer = {"name": name, "value": globals()[name](sdk, **arguments)}
        except Exception:
            answer = {"name": name, "error": traceback.format_exc()}
        print("ANSWER " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
