"""A program of a user: submits its calls to two endpoints, a bounded number at a time, and waits for all of them.

It writes down what was accepted and what ended. Killed and started again, it reloads the tasks of its group, waits for
those, and submits what was not accepted in its sight (so a call that was accepted in the last moment before a kill runs
once more, under another name: the user's choice, and counted as such).

    python client.py FILE OF THE JOB (JSON)
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos.plan import seconds_of_call
from chaos.records import Recorder, read_records
from farcall import Executor
from farcall.errors import FarcallError, TaskGroupNotFound


def work(log: str, call: str, endpoint: str, seconds: float) -> str:
    import os
    import time

    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, f"{call} {endpoint} {os.getpid()} {time.monotonic_ns()}\n".encode())
    os.close(fd)
    time.sleep(seconds)
    return call


def outcome(future: Future[Any]) -> str:
    """In words: equal for equal ends."""
    error = future.exception()
    if error is None:
        return f"value {future.result()}"
    code = getattr(error, "code", "") if isinstance(error, FarcallError) else ""
    return f"error {type(error).__name__} {code}".strip()


class ChaosClient:
    """One incarnation."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        path = Path(job["records"])
        earlier = list(read_records(path))
        self._incarnation = 1 + sum(each["kind"] == "started" for each in earlier)
        self._seen = {each["number"] for each in earlier if each["kind"] == "accepted"}
        self._record = Recorder(path)
        self._record.write("started", incarnation=self._incarnation)
        self._room = threading.Semaphore(job["window"])
        self._executors = {
            name: Executor(endpoint_id=endpoint_id, task_group_id=job["group"], label=name)
            for name, endpoint_id in job["endpoints"].items()
        }

    def run(self) -> None:
        followed: list[Future[Any]] = []
        if self._incarnation > 1:
            followed += self._reload()
        accepting: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
        noting = threading.Thread(target=self._note_accepted, args=(accepting,))
        noting.start()
        names = list(self._executors)
        for number in range(self._job["first"], self._job["first"] + self._job["count"]):
            if number in self._seen:
                continue
            self._room.acquire()
            call = f"{number}.{self._incarnation}"
            name = names[number % len(names)]
            seconds = seconds_of_call(self._job["seed"], number)
            future = self._executors[name].submit(work, self._job["log"], call, name, seconds)
            future.add_done_callback(lambda ended: self._note_ended(ended, is_ours=True))
            accepting.put((number, call, future))
            followed.append(future)
        accepting.put((-1, "", None))
        noting.join()
        for each in followed:
            each.exception()
        for executor in self._executors.values():
            executor.shutdown()
        self._record.write("finished")

    def _reload(self) -> list[Any]:
        try:
            futures = next(iter(self._executors.values())).reload_tasks()
        except TaskGroupNotFound:
            futures = []
        self._record.write("reloaded", tasks=[future.task_id for future in futures])
        for future in futures:
            future.add_done_callback(self._note_ended)
        return list(futures)

    def _note_accepted(self, accepting: queue.SimpleQueue[tuple[int, str, Any]]) -> None:
        while (item := accepting.get())[2] is not None:
            number, call, future = item
            task_id = future.wait_accepted()
            if task_id is None:
                self._record.write("refused", number=number, call=call, why=repr(future.exception())[:300])
            else:
                self._record.write("accepted", number=number, call=call, task=task_id)

    def _note_ended(self, future: Any, is_ours: bool = False) -> None:
        said = "" if future.exception() is None else str(future.exception())[:300]
        self._record.write(
            "ended", task=future.task_id, outcome=outcome(future), incarnation=self._incarnation, said=said
        )
        sys.stdout.write(f"{future.task_id}\n")
        sys.stdout.flush()
        if is_ours:
            self._room.release()


if __name__ == "__main__":
    ChaosClient(json.loads(Path(sys.argv[1]).read_text())).run()
