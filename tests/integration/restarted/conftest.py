"""A service that keeps nothing on its own machine, after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.outside import Restarted, restarted_service
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="package")
def restarted(
    tmp_path_factory: pytest.TempPathFactory, hub_home: Path, postgres: PostgresServer
) -> Iterator[Restarted]:
    """A service over PostgreSQL and an S3 server, which was ended in the middle of a run and started again."""
    with (
        postgres.database() as database_url,
        restarted_service(tmp_path_factory.mktemp("restarted"), hub_home, database_url) as found,
    ):
        yield found
