"""A real fine-tune followed to its end through Serve's proxy, over reconnects: by a client, a WebSocket, a browser."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
from playwright.sync_api import sync_playwright
from websockets.sync.client import connect

from tests.integration.service import JOB_TIMEOUT_S, ROWS, Service

# Of one connection, so that there are many.
NUM_UPDATES = 6
CHROMIUM = shutil.which("chromium")


# Collects updates until the end; the server closes each connection after a few of them.
FOLLOW = """url => new Promise(resolve => {
    const heard = [];
    let connections = 0;
    const source = new EventSource(url);
    source.onopen = () => connections++;
    for (const name of ["status", "event", "point", "log", "end"])
        source.addEventListener(name, update => {
            heard.push([name, JSON.parse(update.data)]);
            if (name == "end") { source.close(); resolve([connections, heard]); }
        });
})"""


def test_a_fine_tune_is_followed_over_reconnects(service: Service) -> None:
    job_id = service.start(service.upload(ROWS), num_epochs=2, batch_size=4)
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(listen, service, job_id) for listen in (heard_by_socket, heard_by_browser)]
        all_heard = [heard_over_reconnects(service, job_id), *(each.result(JOB_TIMEOUT_S) for each in others)]
    done = service.status(job_id)
    assert done["status"] == "completed"
    curve = [point["step"] for point in service.get(f"/api/jobs/{job_id}/metrics")["points"]]
    events = [event["seq"] for event in service.events(job_id)]
    log = service.log_of(job_id).removesuffix("\n").split("\n")
    for heard in all_heard:
        assert [each["seq"] for name, each in heard if name == "event"] == events
        # A point that learns of an evaluation is told again.
        assert sorted({each["step"] for name, each in heard if name == "point"}) == curve
        statuses = [each["status"] for name, each in heard if name == "status"]
        assert statuses[-1] == "completed"
        assert [line for name, each in heard if name == "log" for line in each["lines"]] == log
        assert heard[-1] == ("end", {"detail": "the job is completed"})


def heard_over_reconnects(service: Service, job_id: str) -> list[tuple[str, Any]]:
    """Name and data of updates over server-sent events, from many connections."""
    heard: list[tuple[str, Any]] = []
    last_id = "0.0.0.0"
    while not heard or heard[-1][0] != "end":
        headers = {**service.headers, "Last-Event-ID": last_id}
        path = f"{service.url}/api/events/jobs/{job_id}?limit={NUM_UPDATES}"
        with httpx2.stream("GET", path, headers=headers, timeout=60.0) as response:
            response.raise_for_status()
            name = ""
            for line in response.iter_lines():
                field, _, value = line.partition(": ")
                if field == "id":
                    last_id = value
                elif field == "event":
                    name = value
                elif field == "data":
                    heard.append((name, json.loads(value)))
    return heard


def heard_by_socket(service: Service, job_id: str) -> list[tuple[str, Any]]:
    """Name and data of updates over one WebSocket."""
    url = f"{service.url.replace('http', 'ws', 1)}/api/ws/jobs/{job_id}?last_event_id=0.0.0.0"
    with connect(url, additional_headers=service.headers) as socket:
        messages = [json.loads(text) for text in socket]
    return [(each["event"], each["data"]) for each in messages if each["event"] != "heartbeat"]


def heard_by_browser(service: Service, job_id: str) -> list[tuple[str, Any]]:
    """Name and data of updates that a page's `EventSource` gets, which comes back by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(JOB_TIMEOUT_S * 1000)
        page.goto(f"{service.url}/docs")
        url = f"/api/events/jobs/{job_id}?limit={NUM_UPDATES}&last_event_id=0.0.0.0"
        num_connections, heard = page.evaluate(FOLLOW, url)
        browser.close()
    assert num_connections > 1
    return [(name, data) for name, data in heard]
