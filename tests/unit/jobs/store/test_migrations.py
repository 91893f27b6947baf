from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from sienn_ray.errors import CapacityError
from sienn_ray.jobs.job_facts import FactFields
from sienn_ray.jobs.schema import DatasetRecord, JobPriority, JobQuery, JobRecord, JobStatus
from sienn_ray.jobs.store import database, tables
from sienn_ray.jobs.store.store import Store
from tests.support.fakes_jobs import all_jobs, dataset_record, job_record

OLD_FACTS = {"loss_history": [{"epoch": 1}]}
ENDED_AT = datetime(2025, 3, 5, 6, 7, 8, 900_000, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The database as anybody else sees it; its folder is there."""
    if folder := sa.make_url(database_url).database if database_url.startswith("sqlite") else None:
        Path(folder).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(database_url, poolclass=NullPool)
    yield engine
    engine.dispose()


def migrate(engine: sa.Engine, revision: str, *, down: bool = False) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(database._MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (alembic.command.downgrade if down else alembic.command.upgrade)(config, revision)


@pytest.mark.parametrize("name", sorted(tables.metadata.tables))
def test_migrations_make_the_tables_that_queries_use(store: Store, engine: sa.Engine, name: str) -> None:
    described = tables.metadata.tables[name]
    made = {column["name"]: column["type"] for column in sa.inspect(engine).get_columns(name)}
    assert list(made) == [column.name for column in described.columns]
    affinity = {name: kind._type_affinity for name, kind in made.items()}
    assert affinity == {column.name: column.type._type_affinity for column in described.columns}
    keys = sa.inspect(engine).get_pk_constraint(name)["constrained_columns"]
    assert keys == [column.name for column in described.primary_key]


@pytest.mark.parametrize(
    ("name", "record", "more", "optional"),
    [
        (
            "datasets",
            DatasetRecord,
            {"seq", "last_version"},
            {"duplicate_of", "version_of", "appended_to", "change", "source", "source_revision"},
        ),
        (
            "jobs",
            JobRecord,
            {"seq", "base_model", "adapter_bytes", "facts"},
            {
                "failure_reason",
                "submission_id",
                "validation_dataset_id",
                "name",
                "idempotency_key",
                "request_hash",
                "started_at",
                "ended_at",
                "log_tail",
                "key_id",
                "from_job",
                "start_key",
            },
        ),
    ],
)
def test_every_field_of_a_record_has_its_column(
    store: Store, engine: sa.Engine, name: str, record: Any, more: set[str], optional: set[str]
) -> None:
    columns = sa.inspect(engine).get_columns(name)
    # Those that are kept in the column `facts` have none of their own, and a place in the queue changes with others;
    # warnings are events; the version that a new one has to follow is looked at once.
    others = {"queue_position", "warnings", "base_version"}
    fields = record.model_fields.keys() - get_type_hints(FactFields).keys() - others
    assert {column["name"] for column in columns} == {*fields, *more}
    assert {column["name"] for column in columns if column["nullable"]} == optional


def test_tables_and_keys(store: Store, engine: sa.Engine) -> None:
    inspector = sa.inspect(engine)
    assert set(inspector.get_table_names()) == {*tables.metadata.tables, "alembic_version"}
    for name in ("datasets", "jobs"):
        assert [key["column_names"] for key in inspector.get_unique_constraints(name)] == [["id"]]
    referring = {(key["constrained_columns"][0], key["referred_table"]) for key in inspector.get_foreign_keys("jobs")}
    assert referring == {("dataset_id", "datasets"), ("validation_dataset_id", "datasets")}
    unique = [index["column_names"] for index in inspector.get_indexes("jobs") if index["unique"]]
    assert ["owner", "idempotency_key"] in unique


def add_old_rows(engine: sa.Engine) -> None:
    """What version 0001 would have written."""
    versions = {"version", "version_of", "change", "appended_to", "source", "source_revision"}
    dataset = dataset_record().model_dump(mode="json", exclude={"duplicate_of", "owner", "reading", *versions})
    old_fields = {
        "id",
        "dataset_id",
        "config",
        "status",
        "progress",
        "message",
        "failure_reason",
        "attempt",
        "submission_id",
    }
    statuses = [("completed", 1), ("failed", 0), ("failed", 3), ("running", 2), ("pending", 1), ("pending", 0)]
    old_tables = sa.MetaData()
    with engine.begin() as connection:
        old_tables.reflect(connection)
        created_at = dataset_record().created_at
        connection.execute(sa.insert(old_tables.tables["datasets"]).values({**dataset, "created_at": created_at}))
        for number, (status, attempt) in enumerate(statuses, start=1):
            job = job_record(f"job-{number}", status=status, attempt=attempt)
            values = job.model_dump(mode="json", include=old_fields)
            others = {"facts": OLD_FACTS, "created_at": job.created_at, "updated_at": ENDED_AT}
            connection.execute(sa.insert(old_tables.tables["jobs"]).values({**values, **others}))


def test_database_of_the_first_version_is_carried_over(engine: sa.Engine, database_url: str) -> None:
    migrate(engine, "0001")
    add_old_rows(engine)
    store = Store(database_url)
    assert store.datasets.page().records == [dataset_record()]
    jobs = {job.id: job for job in all_jobs(store)}
    assert list(jobs) == [f"job-{number}" for number in (6, 5, 4, 3, 2, 1)]
    for number in (1, 2, 3):
        expected = {"updated_at": ENDED_AT, "ended_at": ENDED_AT, "other_facts": OLD_FACTS}
        before = job_record(f"job-{number}", status=jobs[f"job-{number}"].status, attempt=jobs[f"job-{number}"].attempt)
        assert jobs[f"job-{number}"] == before.model_copy(update=expected)
    assert [jobs[f"job-{number}"].ended_at for number in (4, 5, 6)] == [None] * 3
    assert {job.started_at for job in jobs.values()} == {None}
    assert [jobs[f"job-{number}"].queue_position for number in (5, 6)] == [1, 2]
    assert store.jobs.page(JobQuery(base_model="owner/model")).count == 6
    counters = {dict(s.labels)["status"]: s.value for s in store.metrics.samples() if s.name == "sienn_jobs_total"}
    assert {job.owner for job in jobs.values()} == {"admin"}
    assert counters == {"pending": 6, "running": 4, "paused": 0, "completed": 1, "failed": 2, "cancelled": 0}
    store.close()


def test_carried_over_database_goes_on_in_order(engine: sa.Engine, database_url: str) -> None:
    migrate(engine, "0001")
    add_old_rows(engine)
    store = Store(database_url)
    store.jobs.add(job_record("job-7"))
    assert all_jobs(store)[0].id == "job-7"
    store.jobs.retry("job-3")
    assert [job.id for job in store.jobs.waiting(9)] == ["job-3", "job-5", "job-6", "job-7"]
    store.jobs.cancel("job-4")
    assert store.jobs.get("job-4").status is JobStatus.CANCELLED
    store.close()


def test_database_of_the_version_with_keys_is_carried_over(engine: sa.Engine, database_url: str) -> None:
    """Jobs wait as they did, and adapters that were made before count among what their owners store."""
    migrate(engine, "0001")
    add_old_rows(engine)
    migrate(engine, "0009")
    with engine.begin() as connection:
        old_tables = sa.MetaData()
        old_tables.reflect(connection)
        jobs = old_tables.tables["jobs"]
        of_first = sa.update(jobs).where(jobs.c.id == "job-1")
        connection.execute(of_first.values(facts={"adapter_size_bytes": 5_000_000_000}, owner="ada"))
        connection.execute(
            sa.insert(old_tables.tables["api_keys"]).values(
                id="key-1",
                prefix="a",
                sha256="b",
                name="c",
                owner="ada",
                scopes=["read"],
                created_at=ENDED_AT,
            )
        )
    store = Store(database_url)
    assert store.quotas.state("ada").use.stored_bytes == 5_000_000_000
    assert store.quotas.state("admin").use.stored_bytes == dataset_record().size_bytes
    assert [job.id for job in store.jobs.waiting(9)] == ["job-5", "job-6"]
    assert {(job.priority, job.key_id) for job in all_jobs(store)} == {(JobPriority.NORMAL, None)}
    (key,) = store.api_keys.page().records
    assert (key.tokens_per_minute, key.max_open_answers) == (None, None)
    store.jobs.update("job-5", status=JobStatus.RUNNING)
    store.close()
    migrate(engine, "0009", down=True)
    assert "queue_turns" not in sa.inspect(engine).get_table_names()


def test_way_back(engine: sa.Engine, database_url: str) -> None:
    migrate(engine, "0001")
    before = {name: sa.inspect(engine).get_columns(name) for name in ("datasets", "jobs")}
    add_old_rows(engine)
    store = Store(database_url)
    store.jobs.cancel("job-6")
    store.close()
    migrate(engine, "0001", down=True)
    inspector = sa.inspect(engine)
    assert set(inspector.get_table_names()) == {"datasets", "jobs", "alembic_version"}
    for name, columns in before.items():
        assert [column["name"] for column in inspector.get_columns(name)] == [column["name"] for column in columns]
    store = Store(database_url)
    assert [job.id for job in all_jobs(store)] == [f"job-{number}" for number in (5, 4, 3, 2, 1)]
    store.close()


def test_broken_migration_leaves_the_database_as_it_was(engine: sa.Engine, database_url: str) -> None:
    migrate(engine, "0001")
    add_old_rows(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE metric_sources (blocked INTEGER)"))  # the last table to be made
    store = Store(database_url)
    with pytest.raises(CapacityError, match="can't be used at the moment") as raised:
        store.datasets.page()
    assert "metric_sources" in str(raised.value.__cause__)
    store.close()
    with engine.begin() as connection:
        assert "labels" not in {column["name"] for column in sa.inspect(connection).get_columns("jobs")}
        assert connection.scalar(sa.text("SELECT count(*) FROM jobs")) == 6
        connection.execute(sa.text("DROP TABLE metric_sources"))
    store = Store(database_url)
    assert len(all_jobs(store)) == 6
    store.close()
