from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_mock_engine, text
from sqlalchemy.dialects import postgresql

from farcall.service.db.engine import make_engine
from farcall.service.db.migrations import HEAD, SchemaTooNew, migrate
from farcall.service.db.tables import metadata


def test_the_migrated_schema_is_the_one_that_the_code_expects(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = make_engine(f"sqlite:///{tmp_path / 'a.db'}")
    assert migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        migrated = {row[0] for row in connection.execute(text("SELECT sql FROM sqlite_master WHERE type = 'index'"))}
    made = make_engine(f"sqlite:///{tmp_path / 'b.db'}")
    metadata.create_all(made)
    with made.connect() as connection:
        # The comparison above does not look at the conditions of partial indexes.
        assert migrated == {
            row[0] for row in connection.execute(text("SELECT sql FROM sqlite_master WHERE type = 'index'"))
        }


def test_head_is_the_newest_revision() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import farcall.service.db.migrations as package

    config = Config()
    config.set_main_option("script_location", str(Path(package.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_a_schema_that_is_up_to_date_is_left_alone_and_alembic_unloaded(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    migrate(make_engine(url))
    code = (
        "import sys; from farcall.service.db.engine import make_engine; "
        "from farcall.service.db.migrations import migrate; "
        f"print(migrate(make_engine({url!r})), 'alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_schema_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'a.db'}")
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("UPDATE settings SET value = '9999' WHERE key = 'oldest_code'"))
    with pytest.raises(SchemaTooNew, match="9999.*Upgrade Farcall"):
        migrate(engine)


def test_the_schema_can_be_written_for_postgresql() -> None:
    statements: list[str] = []
    engine = create_mock_engine(
        "postgresql://",
        lambda statement, *_, **__: statements.append(str(statement.compile(dialect=postgresql.dialect()))),
    )
    metadata.create_all(engine, checkfirst=False)
    partial = next(each for each in statements if "ix_tasks_open_endpoint_id_seq" in each)
    assert "WHERE state IN ('received', 'waiting-for-nodes', 'running')" in partial
