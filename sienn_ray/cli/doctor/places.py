"""Checks of the places where things are kept: home folder, storage and job database. None makes or migrates any."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from sienn_ray.cli.doctor.findings import Finding, fail, ok, warn
from sienn_ray.jobs.store import migrations
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

GIB = 1024**3
# An adapter with its checkpoints takes some 100 MB of a small base model, an export of a large one tens of GB.
_LITTLE_BYTES, _TOO_LITTLE_BYTES = 10 * GIB, GIB // 2
_CONNECT_TIMEOUT_S = 5
_MIGRATIONS = Path(migrations.__file__).parent


def check_home(settings: Settings) -> Finding:
    """The home folder: whether it can be written to, and how much room there is."""
    place = _first_that_is_there(settings.home)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return fail(
            f"{place} can't be written to ({error.strerror})", "set SIENN_HOME to a folder that this user may write to"
        )
    free = shutil.disk_usage(place).free
    found = f"{settings.home}, {free / GIB:.1f} GiB free"
    if free < _TOO_LITTLE_BYTES:
        return fail(found, "delete exports, jobs or other files, or set SIENN_HOME to a larger disk")
    if free < _LITTLE_BYTES:
        return warn(found, "base models and exports take gigabytes; make room, or set SIENN_HOME to a larger disk")
    return ok(found if settings.home.exists() else f"{found}; made at the first start")


def check_storage(settings: Settings) -> Finding:
    """Storage: a small object is written, read and deleted."""
    where = "local files" if settings.storage_url.startswith("file://") else settings.storage_url.partition("://")[0]
    if where == "local files" and not settings.home.exists():
        return ok("local files; made at the first start")
    key, content = f"doctor/{uuid.uuid4()}", b"sienn doctor"
    try:
        storage = Storage(settings.storage_url)
        storage.write_bytes(key, content)
        is_same = storage.read_bytes(key) == content
        storage.delete(key)
    except Exception as error:
        return fail(
            f"{where}: {type(error).__name__}", "check SIENN_STORAGE_URL, the bucket, its credentials and the network"
        )
    if not is_same:
        return fail(f"{where}: what was written came back otherwise", "check what SIENN_STORAGE_URL names")
    return ok(f"{where}: written, read and deleted")


def check_database(settings: Settings) -> Finding:
    """The job database: whether it answers, and at which migration it is."""
    url = sa.make_url(settings.database_url.get_secret_value())
    name = "SQLite" if url.get_backend_name() == "sqlite" else "PostgreSQL"
    if name == "SQLite" and url.database and not Path(url.database).exists():
        return ok("SQLite; made at the first start")
    scripts = ScriptDirectory.from_config(_alembic_config())
    head = scripts.get_current_head()
    arguments = {"timeout": _CONNECT_TIMEOUT_S} if name == "SQLite" else {"connect_timeout": _CONNECT_TIMEOUT_S}
    engine = sa.create_engine(url, connect_args=arguments)
    try:
        with engine.connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
    except Exception as error:  # the driver's words name hosts and accounts
        return fail(
            f"{name} doesn't answer ({type(error).__name__})",
            "check SIENN_DATABASE_URL, that the server runs, and its credentials",
        )
    finally:
        engine.dispose()
    if revision == head:
        return ok(f"{name} answers, at migration {revision}")
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        return fail(
            f"{name} is at migration {revision}, which this version doesn't know",
            "it was written by a newer version; install that one, or name another database",
        )
    return warn(
        f"{name} answers, at migration {revision or 'none'} of {head}", "the next start of the service migrates it"
    )


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _first_that_is_there(folder: Path) -> Path:
    return next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
