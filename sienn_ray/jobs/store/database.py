"""The job database: transactions over SQLite, the default, or PostgreSQL, by its URL."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import alembic.command
import alembic.config
import sqlalchemy as sa

from sienn_ray.errors import CapacityError
from sienn_ray.jobs.store.connections import create_engine, make_folder

logger = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"
_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
# How the database was lost or is full; anything else is a fault of ours.
_OUT_OF_REACH = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)
# Likewise of PostgreSQL: a standby that takes no writes (yet), and a transaction that the server has ended.
_SQLSTATES_OUT_OF_REACH = {"25006", "25P03"}
_OUT_OF_REACH_WORDS = "the job database can't be used at the moment; try again in a moment"
# Any number, the same for all trackers; "sienn" in ASCII.
_ADVISORY_LOCK = 0x7369656E6E
# Shorter than a caller waits for an answer.
_MAX_WRITE_WAIT_S = 20.0
_MAX_PREPARATION_WAIT_S = 20.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.125, 8.0


class _Joined:
    """A transaction that all which is written in a thread is a part of."""

    connection: sa.Connection

    def __init__(self) -> None:
        self.after_commit: list[Callable[[], None]] = []


class Database:
    """Hands out transactions, to several threads.

    It connects when it is first used, and runs the migrations then, so a new database is ready to use. While that
    fails, every call fails, the further ones at once until a pause is over.

    Args:
        url: SQLAlchemy URL.
        clock: Seconds, of which the pauses are counted.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = create_engine(url)
        self._is_postgresql = self._engine.dialect.name == "postgresql"
        # One moment for all statements of a transaction that reads; SQLite has no other way. One that writes sees what
        # the one before it wrote, which is committed by the time it gets the lock.
        reads, writes = ("REPEATABLE READ", "READ COMMITTED") if self._is_postgresql else (None, None)
        self._reader = self._engine.execution_options(**({"isolation_level": reads} if reads else {}))
        self._writer = self._engine.execution_options(
            sqlite_begin="BEGIN IMMEDIATE", **({"isolation_level": writes} if writes else {})
        )
        # A read-check-write must not interleave with another. This is for the threads of this process; another one may
        # be a tracker that is being replaced, against which the database's own lock helps.
        self._write_lock = threading.Lock()
        self._in_thread = threading.local()
        self._clock = clock
        self._is_prepared = False
        self._preparation_lock = threading.Lock()
        self._pause_s = _FIRST_PAUSE_S
        self._next_try_at = float("-inf")
        self._last_error: Exception | None = None

    def prepare(self) -> None:
        """Connect, and run the migrations that are missing, unless that is done.

        Raises:
            CapacityError: It can't be done at the moment; the cause says why.
        """
        if self._is_prepared:
            return
        if not self._preparation_lock.acquire(timeout=_MAX_PREPARATION_WAIT_S):
            raise CapacityError("the job database is being connected; try again in a moment") from self._last_error
        try:
            if not self._is_prepared:
                self._try_to_prepare()
        finally:
            self._preparation_lock.release()

    def _try_to_prepare(self) -> None:
        if self._clock() < self._next_try_at:
            raise CapacityError(_OUT_OF_REACH_WORDS) from self._last_error
        try:
            self._migrate()
        except Exception as error:  # also one of a migration: whoever mends the database needn't start the tracker anew
            is_fault = not (isinstance(error, sa.exc.SQLAlchemyError) and _is_out_of_reach(error))
            words = "the job database can't be connected (%s); trying again after %g s"
            logger.warning(words, words_of(error), self._pause_s, exc_info=is_fault)
            self._last_error = error
            self._next_try_at = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            raise CapacityError(_OUT_OF_REACH_WORDS) from error
        self._is_prepared = True
        self._last_error = None

    def _migrate(self) -> None:
        make_folder(self._engine)
        config = alembic.config.Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        with self._writer.begin() as connection:
            self._lock(connection)
            if self._is_postgresql:  # a table that is made anew takes as long as it is large
                connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    @property
    def name(self) -> str:
        """The product's name, as its makers write it."""
        return _NAMES.get(self._engine.dialect.name, self._engine.dialect.name)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that changes nothing, and sees one moment.

        Raises:
            CapacityError: The database is out of reach.
        """
        if (joined := self._joined) is not None:
            yield joined.connection
            return
        self.prepare()
        with _out_of_reach_said(), self._reader.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is written as a whole, or not at all when anything is raised in it.

        Of all threads and all processes that write to the database, one at a time is in here. Within `together`, it is
        a part of that.

        Raises:
            CapacityError: The database is out of reach, or others are in here for too long.
        """
        if (joined := self._joined) is not None:
            with joined.connection.begin_nested():
                yield joined.connection
            return
        self.prepare()
        with self._turn(), _out_of_reach_said(), self._writer.begin() as connection:
            self._lock(connection)
            yield connection

    @contextlib.contextmanager
    def adding(self) -> Iterator[sa.Connection]:
        """A transaction as `writing`; within `together`, what fails in it undoes all of that, which saves a savepoint.

        Raises:
            CapacityError: See `writing`.
        """
        if (joined := self._joined) is not None:
            yield joined.connection
            return
        with self.writing() as connection:
            yield connection

    @contextlib.contextmanager
    def together(self) -> Iterator[sa.Connection]:
        """One transaction for all that this thread writes in the block; see `writing`."""
        transaction = _Joined()
        with self.writing() as transaction.connection:
            self._in_thread.joined = transaction
            try:
                yield transaction.connection
            finally:
                self._in_thread.joined = None
        for action in transaction.after_commit:
            action()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do something once what is written can be seen by others: after `together`, or at once outside of it."""
        if (joined := self._joined) is not None:
            joined.after_commit.append(action)
        else:
            action()

    @property
    def _joined(self) -> _Joined | None:
        return getattr(self._in_thread, "joined", None)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._write_lock.acquire(timeout=_MAX_WRITE_WAIT_S):
            raise CapacityError("too many changes wait for the job database; try again in a moment")
        try:
            yield
        finally:
            self._write_lock.release()

    def _lock(self, connection: sa.Connection) -> None:
        """Wait for other processes that write; the lock goes with the transaction. SQLite has it by BEGIN IMMEDIATE."""
        if self._is_postgresql:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))

    def ping(self) -> float:
        """Ask a trivial question; returns the seconds that it took. Doesn't wait for a database that was away.

        Raises:
            CapacityError: The database is out of reach.
        """
        last_error = self._last_error
        if last_error is not None:  # those who look after jobs try to connect all the time
            raise CapacityError(_OUT_OF_REACH_WORDS) from last_error
        started = time.perf_counter()
        with self.reading() as connection:
            connection.execute(sa.text("SELECT 1"))
        return time.perf_counter() - started

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


@contextlib.contextmanager
def _out_of_reach_said() -> Iterator[None]:
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        if not _is_out_of_reach(error):
            raise
        # A user isn't told: the driver's words name hosts and accounts.
        logger.warning("the job database can't be used: %s", words_of(error))
        raise CapacityError(_OUT_OF_REACH_WORDS) from error


def _is_out_of_reach(error: sa.exc.SQLAlchemyError) -> bool:
    if isinstance(error, _OUT_OF_REACH):
        return True
    is_lost = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    return is_lost or getattr(getattr(error, "orig", None), "sqlstate", None) in _SQLSTATES_OUT_OF_REACH


def words_of(error: BaseException | None) -> str:
    """The driver's own words, in one line."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
