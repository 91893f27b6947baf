"""An S3 server of this process, for what only a real object store's client shows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from unittest import mock

import fsspec
from moto.server import ThreadedMotoServer

BUCKET = "artifacts"


@contextlib.contextmanager
def s3_storage_url() -> Iterator[str]:
    """URL of an empty part of a bucket, while the server runs; this process finds it by its environment."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    try:
        with mock.patch.dict(os.environ, access):
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            fsspec.filesystem("s3").mkdir(BUCKET)
            yield f"s3://{BUCKET}/sienn"
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()


def forget_connections() -> None:
    """Have the next storage be as in another process: with a client, and with caches, of its own."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
