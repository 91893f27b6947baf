"""What is tried again while hub or store are out of reach, and for how long."""

from __future__ import annotations

import errno
import pickle
import socket
from typing import cast

import httpx2
import pytest
import ray.exceptions
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from s3fs.errors import translate_boto_error

from sienn_ray.errors import InvalidBaseModelError, OutOfReachError
from sienn_ray.retries import is_out_of_reach, while_out_of_reach
from sienn_ray.storage import Storage


def hub_error(status: int) -> HfHubHTTPError:
    request = httpx2.Request("GET", "https://hub")
    return HfHubHTTPError("refused", response=httpx2.Response(status, request=request))


def store_error(code: str, status: int) -> Exception:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return cast(Exception, translate_boto_error(ClientError(answer, "PutObject")))


def behind(cause: Exception) -> Exception:
    error = FileNotFoundError("an error happened while trying to locate the files on the hub")
    error.__cause__ = cause
    return error


def refused_offline() -> Exception:
    """What is raised for a model that isn't here where the hub mustn't be asked."""
    error = InvalidBaseModelError("base model 'a/b' is not in the local cache")
    error.__cause__ = OfflineModeIsEnabled("offline mode is enabled")
    return error


@pytest.mark.parametrize(
    "error",
    [
        *map(hub_error, [429, 500, 502, 503, 504]),
        *map(behind, [hub_error(503), httpx2.ConnectError("refused")]),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("closed"),
        store_error("SlowDown", 503),
        store_error("ServiceUnavailable", 503),
        store_error("InternalError", 500),
        EndpointConnectionError(endpoint_url="https://store"),
        ReadTimeoutError(endpoint_url="https://store"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError("slow"),
        socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution"),
        OutOfReachError("away"),
    ],
    ids=repr,
)
def test_outages_are_told(error: Exception) -> None:
    assert is_out_of_reach(error)


@pytest.mark.parametrize(
    "error",
    [
        *map(hub_error, [400, 401, 403, 404]),
        store_error("AccessDenied", 403),
        store_error("NoSuchKey", 404),
        store_error("NoSuchBucket", 404),
        OSError(errno.ENOSPC, "no space left on device"),
        FileNotFoundError(errno.ENOENT, "missing"),
        InvalidBaseModelError("unknown"),
        OfflineModeIsEnabled("offline mode is enabled"),
        refused_offline(),
        ray.exceptions.GetTimeoutError("the cluster's own"),
        ValueError("a bug"),
    ],
    ids=repr,
)
def test_what_is_final_is_not_tried_again(error: Exception) -> None:
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        while_out_of_reach(action, longest_s=60.0, what="the hub", sleep=lambda _: None)
    assert len(calls) == 1


def test_an_outage_that_ends_is_not_noticed() -> None:
    errors = [hub_error(503), TimeoutError("slow")]
    slept: list[float] = []

    def action() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert while_out_of_reach(action, longest_s=60.0, what="the hub", sleep=slept.append) == "done"
    assert len(slept) == 2
    assert all(0 < each < 10 for each in slept)


def test_an_outage_that_lasts_ends_with_what_is_away() -> None:
    slept: list[float] = []

    def action() -> None:
        raise hub_error(503)

    with pytest.raises(OutOfReachError, match=r"the hub can't be reached at the moment \(HfHubHTTPError\); try again"):
        while_out_of_reach(action, longest_s=100.0, what="the hub", sleep=slept.append)
    assert 50 < sum(slept) <= 100
    assert max(slept) < 60


def test_a_patient_store_s_client_stays_patient_in_other_processes() -> None:
    handler = Storage("s3://bucket/key", patience_s=300.0).arrow_filesystem().handler
    retries = pickle.loads(pickle.dumps(handler.fs)).config_kwargs["retries"]
    assert retries["mode"] == "standard"
    assert 5 < retries["total_max_attempts"] < 20
    assert "retries" not in Storage("s3://bucket/key").fs.config_kwargs
