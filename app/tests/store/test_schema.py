from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect

from nestbox.store import Store, StoreError, migrations, open_store
from nestbox.store.schema import REVISION, metadata


async def test_an_empty_database_is_refused_until_it_is_migrated(database_url: str) -> None:
    store = await open_store(database_url)
    with pytest.raises(
        StoreError, match=rf"^The database is empty, this release needs {REVISION}: run nestboxctl migrate\.$"
    ):
        await store.check_schema()
    await store.migrate()
    await store.check_schema()
    await store.migrate()  # again changes nothing
    await store.check_schema()
    await store.close()


async def test_an_old_schema_is_named_with_the_cure(store: Store) -> None:
    async with store.database.write() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(StoreError, match=f"at revision 0000, this release needs {REVISION}: run nestboxctl migrate"):
        await store.check_schema()


async def test_a_newer_schema_that_only_adds_is_run_with_and_not_touched(store: Store) -> None:
    newer = f"{REVISION[0]}999"
    async with store.database.write() as connection:
        await connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{newer}'")
    await store.check_schema()
    await store.migrate()
    assert await store.revision() == newer


async def test_a_schema_with_which_this_release_cannot_run_is_named_with_the_cure(store: Store) -> None:
    newer = f"{int(REVISION[0]) + 1}001"
    async with store.database.write() as connection:
        await connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{newer}'")
    for attempt in (store.check_schema, store.migrate):
        with pytest.raises(StoreError, match=f"at revision {newer}, with which this release .* restore the backup"):
            await attempt()
    assert await store.revision() == newer


def test_each_revision_leaves_room_for_the_release_before_it(tmp_path: Path) -> None:
    """An older release writes to the newer schema during an upgrade: nothing goes, and what is new needs no value."""
    engine = create_engine(f"sqlite:///{tmp_path}/db")
    versions = sorted(path.name[:4] for path in Path(migrations.__file__).parent.glob("versions/[0-9]*.py"))
    before: dict[str, dict[str, dict]] = {}
    for last, version in pairwise(["0000", *versions]):
        with engine.connect() as connection:
            migrations.upgrade(connection, version)
            connection.commit()
            found = inspect(connection)
            after = {table: {c["name"]: c for c in found.get_columns(table)} for table in found.get_table_names()}
        for table, columns in before.items() if version[0] == last[0] else ():
            for name, column in columns.items():
                assert str(after[table][name]["type"]) == str(column["type"]), (version, table, name)
            for name in after[table].keys() - columns.keys():
                column = after[table][name]
                assert column["nullable"] or column["default"] is not None, (version, table, name)
        before = after


async def test_a_database_of_another_program_is_not_touched(database_url: str) -> None:
    store = await open_store(database_url)
    async with store.database.write() as connection:
        await connection.exec_driver_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    with pytest.raises(StoreError, match="not Nestbox's"):
        await store.migrate()
    async with store.database.read() as connection:
        assert await connection.run_sync(lambda c: inspect(c).get_table_names()) == ["orders"]
    await store.close()


async def test_the_migrations_make_what_the_schema_says(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        # ddl_if hides the archive's indexes, one for each database, from the comparison: they are tested by EXPLAIN.
        options = {"include_object": lambda item, name, kind, *_: not (kind == "index" and name.startswith("archive_"))}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with store.database.read() as connection:
        assert await connection.run_sync(differences) == []
        tables = await connection.run_sync(lambda c: set(inspect(c).get_table_names()))
    assert tables == set(metadata.tables) | {"alembic_version"}


@pytest.mark.parametrize("url", ["postgresql://x/y", "nonsense", "mysql", ""])
async def test_another_url_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(StoreError, match="must start with sqlite:/// or mysql://"):
        await open_store(url)


async def test_an_unreachable_database_is_one_sentence(tmp_path) -> None:
    for url in (f"mysql://nobody@localhost/x?unix_socket={tmp_path}/no.sock", f"sqlite:///{tmp_path}/no/such.db"):
        store = await open_store(url)
        with pytest.raises(StoreError) as caught:
            await store.check_schema()
        assert "\n" not in str(caught.value) and str(caught.value).startswith("The database ")
        await store.close()
