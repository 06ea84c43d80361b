"""Migrations by halves: what may be applied while which code runs, and which code runs on what."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from farcall.service.db import postgres as postgres_module
from farcall.service.db.engine import Database, make_engine
from farcall.service.db.errors import StoreBusy
from farcall.service.db.migrations import HEAD, SchemaTooNew, _upgrade, check_schema, migrate, revision_of, versions
from farcall.service.db.migrations.plan import NEEDED, REVISIONS, OldCodeRuns, Revision, check_code, to_apply
from farcall.service.db.tables import settings
from farcall.service.db.upkeep import check_store, join_store, upgrade_store
from postgres_server import PostgresServer

HISTORY = (
    Revision(id="0001"),
    Revision(id="0002"),
    Revision(id="0003", half="post", oldest_code="0002"),
    Revision(id="0004"),
    Revision(id="0005", half="post", oldest_code="0004"),
)


def ids(found: str | None, half: str | None, running: list[str]) -> list[str]:
    return [each.id for each in to_apply(found, half, running, HISTORY)]  # type: ignore[arg-type]


def test_the_first_half_ends_with_what_was_added_last() -> None:
    assert ids("0003", "pre", ["0002"]) == ["0004"]
    assert ids("0004", "pre", ["0004"]) == []
    assert ids(None, "pre", []) == ["0001", "0002", "0003", "0004"]


def test_the_second_half_waits_for_the_last_process_of_old_code() -> None:
    with pytest.raises(OldCodeRuns, match="0005 removes.*for revision 0002"):
        ids("0004", "post", ["0002", "0004"])
    assert ids("0004", "post", ["0004"]) == ["0005"]


def test_what_is_added_on_top_of_a_removal_waits_as_well() -> None:
    with pytest.raises(OldCodeRuns, match="0003 removes"):
        ids("0001", "pre", ["0001"])
    assert ids("0002", "pre", ["0002"]) == ["0003", "0004"]


def test_code_runs_on_a_newer_schema_as_long_as_that_is_noted() -> None:
    check_code("0002", None, head="0002")
    check_code("0004", "0002", head="0002")
    for recorded in ("0004", None):
        with pytest.raises(SchemaTooNew):
            check_code("0005", recorded, head="0002")


def test_every_revision_has_its_line_and_its_number() -> None:
    names = sorted(module.name for module in pkgutil.iter_modules(versions.__path__))
    assert [name[1:5] for name in names] == [revision.id for revision in REVISIONS]
    for name, known in zip(names, REVISIONS, strict=True):
        module = importlib.import_module(f"{versions.__name__}.{name}")
        assert module.revision == known.id
        assert (known.half == "post") == (known.oldest_code != "0001")


@pytest.fixture
def old(postgres: PostgresServer) -> str:
    """A database as the first release left it."""
    url = postgres.database()
    engine = make_engine(url)
    with engine.connect() as connection:
        _upgrade("0001", connection=connection)
        connection.execute(settings.delete())
        connection.commit()
    engine.dispose()
    return url


def revision_at(url: str) -> str | None:
    engine = make_engine(url)
    with engine.connect() as connection:
        return revision_of(connection)


def test_a_database_of_the_first_release_takes_the_first_half_while_that_release_works(old: str) -> None:
    with psycopg.connect(old, autocommit=True) as first_release:
        first_release.execute(f"SELECT pg_advisory_lock({postgres_module._KEY})")  # type: ignore[arg-type]
        assert upgrade_store(old, "pre") is True
        assert revision_at(old) == NEEDED
        # What the first release writes, it can write still.
        first_release.execute(
            "INSERT INTO identities (id, username, is_admin, credential_generation, created_at) "
            "VALUES ('i', 'ada', false, 1, 0)"
        )
        first_release.execute(
            "INSERT INTO endpoints (id, owner_id, name, public, multi_user, high_assurance, direct, "
            "subscription_admin_verified, metadata_json, credential_generation, created_at, registered_at) "
            "VALUES ('e', 'i', 'here', false, false, false, true, false, '{}', 1, 0, 0)"
        )
        assert upgrade_store(old, "pre") is False


def test_the_first_release_does_not_start_on_it_any_more(old: str) -> None:
    """Its rule was: what is newer is refused. Later ones look at what is noted."""
    upgrade_store(old, "pre")
    found = revision_at(old)
    assert found is not None
    with pytest.raises(SchemaTooNew):
        check_code(found, None, head="0001")
    engine = make_engine(old)
    with engine.connect() as connection:
        noted = connection.execute(text("SELECT value FROM settings WHERE key = 'oldest_code'")).scalar()
    check_code(found, noted, head="0001")


def test_halves_are_refused_nothing_by_a_service_that_is_up_to_date(postgres: PostgresServer) -> None:
    url = postgres.database()
    upgrade_store(url)

    async def story() -> None:
        db = Database(url, pack=lambda signals: [])
        await db.write(lambda conn: None)
        assert postgres_running(url) == [HEAD]
        assert upgrade_store(url, "pre") is False
        assert upgrade_store(url, "post") is False
        assert join_store(url) is False
        await db.close()
        assert postgres_running(url) == []

    asyncio.run(story())


def postgres_running(url: str) -> list[str]:
    engine = make_engine(url)
    with engine.connect() as connection:
        return postgres_module.running_code(connection)


def test_a_process_that_joins_a_database_of_the_first_release_brings_it_up(
    old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "_LOCK_TIMEOUT", "10ms")
    with psycopg.connect(old, autocommit=True) as first_release:
        first_release.execute(f"SELECT pg_advisory_lock({postgres_module._KEY})")  # type: ignore[arg-type]
        with pytest.raises(StoreBusy):
            join_store(old)
    assert revision_at(old) == "0001"
    assert join_store(old) is True
    assert revision_at(old) == HEAD


def test_a_newer_schema_that_is_noted_as_fit_is_used(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    engine = make_engine(url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrate(engine) is False
    assert any("this one can still use it" in finding.text for finding in check_store(url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE settings SET value = '9998' WHERE key = 'oldest_code'"))
    with engine.connect() as connection, pytest.raises(SchemaTooNew, match="9999.*Upgrade Farcall"):
        check_schema(connection)
    assert any(finding.status == "failed" for finding in check_store(url))
