"""Exports of a service whose artifacts are in S3."""

from __future__ import annotations

import io
import zipfile
from urllib.parse import urlsplit

import httpx2

from tests.integration.exports import download, exported
from tests.integration.outside import Restarted
from tests.integration.service import REQUEST_TIMEOUT_S, wait_for


def test_s3_gives_presigned_links(restarted: Restarted) -> None:
    service, job_id = restarted.service, restarted.finished
    made = exported(service, job_id, format="gguf", quantization="Q4_K_M")
    link = urlsplit(made["download_url"])
    assert (link.port, link.path.rpartition("/")[2]) == (restarted.s3_port, "model-Q4_K_M.gguf")
    assert "X-Amz-Signature=" in link.query
    whole = download(made)
    part = httpx2.get(made["download_url"], headers={"Range": "bytes=4-99"}, timeout=REQUEST_TIMEOUT_S)
    assert (part.status_code, part.content) == (206, whole[4:100])
    assert job_id in part.headers["content-disposition"]
    merged = exported(service, job_id, format="huggingface", merged=True)
    assert zipfile.ZipFile(io.BytesIO(download(merged))).testzip() is None
    deleted = httpx2.delete(
        f"{service.url}/api/exports/{job_id}/{made['export_id']}", timeout=60.0, headers=service.headers
    )
    assert deleted.status_code == 200
    # Who may not list a bucket isn't told what it doesn't have.
    wait_for(
        lambda: httpx2.get(made["download_url"], timeout=REQUEST_TIMEOUT_S).status_code in {403, 404},
        "the end of its file",
        30.0,
    )
