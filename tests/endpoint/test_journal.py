"""The journal on real files, killed and damaged."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from farcall.endpoint import journal as journal_module
from farcall.endpoint.journal import (
    Journal,
    JournalBatch,
    JournalEntry,
    JournalUnavailable,
    NewTask,
    Phase,
    StoredTask,
)

FUNCTION = "ffffffff-0000-4000-8000-000000000001"


def entry(seq: int, phase: Phase = Phase.QUEUED, **members: Any) -> JournalEntry:
    return JournalEntry(seq=seq, task_id=f"task-{seq}", function_id=FUNCTION, phase=phase, **members)


def new(seq: int, body: bytes = b"body") -> NewTask:
    return NewTask(entry=entry(seq, body_bytes=len(body)), headers='{"a":1}', body=body)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def reopened(journal: Journal) -> tuple[Journal, list[JournalEntry]]:
    journal.close()
    again, entries, aside = Journal.open(journal.path)
    assert aside is None
    return again, list(entries)


def test_what_was_written_is_there_after_opening_again(path: Path) -> None:
    journal, entries, aside = Journal.open(path)
    assert (list(entries), aside) == ([], None)
    journal.write(JournalBatch(inserts=[new(1), new(2, b"\x00\xff")]))
    full = entry(
        2, Phase.STARTED, attempts=2, returns=1, received_s=1.5, started_s=2.5, body_bytes=2, notes=("first", "zweité")
    )
    journal.write(JournalBatch(updates=[full]))
    again, found = reopened(journal)
    assert found == [entry(1, body_bytes=4), full]
    assert again.tasks([2, 1, 7]) == {
        1: StoredTask(headers='{"a":1}', body=b"body"),
        2: StoredTask(headers='{"a":1}', body=b"\x00\xff"),
    }


def test_a_result_replaces_the_body_and_deleting_removes_everything(path: Path) -> None:
    journal, _, _ = Journal.open(path)
    done = entry(1, Phase.FINISHED, result_bytes=6)
    journal.write(JournalBatch(inserts=[new(1), new(2)], updates=[done], results=[(1, b"result")]))
    assert journal.results([1, 2]) == {1: b"result"}
    assert list(journal.tasks([1, 2])) == [2]
    journal.write(JournalBatch(deletes=[1, 2]))
    again, found = reopened(journal)
    assert found == []
    assert (again.tasks([1, 2]), again.results([1, 2])) == ({}, {})


def test_a_batch_is_written_whole_or_not_at_all(path: Path) -> None:
    journal, _, _ = Journal.open(path)
    journal.write(JournalBatch(inserts=[new(1)]))
    with pytest.raises(Exception, match="UNIQUE"):
        journal.write(JournalBatch(inserts=[new(2), new(1)]))
    journal.write(JournalBatch(inserts=[new(3)]))
    _, found = reopened(journal)
    assert [item.seq for item in found] == [1, 3]


@pytest.mark.parametrize(
    "content",
    [b"this is no database at all, but long enough to look at" * 50, b"SQLite format 3\x00" + b"\x07" * 5000],
    ids=["text", "bad-header"],
)
def test_a_file_that_is_no_database_is_moved_aside_and_a_new_one_made(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    journal, entries, aside = Journal.open(path)
    assert list(entries) == []
    assert aside is not None
    assert aside.read_bytes() == content
    journal.write(JournalBatch(inserts=[new(1)]))
    assert len(reopened(journal)[1]) == 1


def test_a_damaged_page_is_noticed_and_the_file_moved_aside(path: Path) -> None:
    journal, _, _ = Journal.open(path)
    journal.write(JournalBatch(inserts=[new(seq, b"x" * 3000) for seq in range(1, 60)]))
    journal.close()
    size = path.stat().st_size
    assert size > 100_000
    with path.open("r+b") as file:
        for offset in range(8192, size, 4096):
            file.seek(offset)
            file.write(b"\xff" * 64)
    journal, entries, aside = Journal.open(path)
    assert aside is not None
    assert list(entries) == []
    journal.write(JournalBatch(inserts=[new(1)]))


def test_a_file_with_much_unused_space_is_made_small_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SHRINK_BYTES", 100_000)
    journal, _, _ = Journal.open(path)
    journal.write(JournalBatch(inserts=[new(seq, b"x" * 3000) for seq in range(1, 200)]))
    journal.write(JournalBatch(deletes=list(range(2, 200))))
    journal.close()
    before = path.stat().st_size
    journal, entries, _ = Journal.open(path)
    journal.close()
    assert [item.seq for item in entries] == [1]
    assert path.stat().st_size < before / 10


def test_two_damaged_files_in_one_second_do_not_replace_each_other(path: Path) -> None:
    moved = set()
    for content in (b"first" * 100, b"second" * 100):
        path.write_bytes(content)
        journal, _, aside = Journal.open(path, clock=lambda: 0.0)
        journal.close()
        moved.add(aside)
    assert len(moved) == 2


def test_a_journal_of_another_registration_is_moved_aside(path: Path) -> None:
    journal, _, _ = Journal.open(path, owner={"endpoint_id": "a"})
    journal.write(JournalBatch(inserts=[new(1)]))
    journal.close()
    same, entries, aside = Journal.open(path, owner={"endpoint_id": "a"})
    assert (len(entries), aside) == (1, None)
    same.close()
    _, entries, aside = Journal.open(path, owner={"endpoint_id": "b"})
    assert list(entries) == []
    assert aside is not None
    kept = sqlite3.connect(aside)
    assert kept.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
    kept.close()


def test_a_journal_is_open_in_one_process_only(path: Path) -> None:
    journal, _, _ = Journal.open(path)
    program = (
        "import sys; from pathlib import Path; from farcall.endpoint.journal import *\n"
        "try: Journal.open(Path(sys.argv[1]))\n"
        "except JournalUnavailable as exc: print(exc)"
    )
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "database is locked" in result.stdout
    journal.close()


def test_a_journal_of_a_newer_release_is_left_alone(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(JournalUnavailable, match="newer release"):
        Journal.open(path)
    assert path.exists()


def test_a_directory_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="journal"):
        Journal.open(tmp_path / "missing" / "journal.db")


def test_what_cannot_be_read_is_left_out_rather_than_raised(path: Path) -> None:
    journal, _, _ = Journal.open(path)
    journal.write(JournalBatch(inserts=[new(1), new(2)]))
    journal._db.execute("DROP TABLE results")
    assert journal.results([1]) == {}


_WRITER = """
import sys
from pathlib import Path
from farcall.endpoint.journal import *
journal, entries, _ = Journal.open(Path(sys.argv[1]))
seq = max((e.seq for e in entries), default=0)
while True:
    first = seq + 1
    batch = JournalBatch()
    for seq in range(first, first + 20):
        e = JournalEntry(seq=seq, task_id=str(seq), function_id="f", phase=Phase.QUEUED, body_bytes=500)
        batch.inserts.append(NewTask(entry=e, headers="{}", body=str(seq).encode().ljust(500)))
    journal.write(batch)
    sys.stdout.write(f"{seq}\\n"); sys.stdout.flush()
"""


def test_a_writer_killed_in_the_middle_loses_nothing_that_it_reported(path: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(40):
            last = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.stdout.close()
        process.wait()
        last = int(rest[-1]) if rest and rest[-1].isdigit() and len(rest) > 1 else last
        journal, entries, aside = Journal.open(path)
        assert aside is None
        seqs = [item.seq for item in entries]
        assert seqs == list(range(1, len(seqs) + 1)), "whole batches, in order"
        assert len(seqs) >= last
        assert len(seqs) % 20 == 0
        assert all(stored.body.strip() == str(seq).encode() for seq, stored in journal.tasks(seqs).items())
        assert len(journal.tasks(seqs)) == len(seqs)
        journal.close()
