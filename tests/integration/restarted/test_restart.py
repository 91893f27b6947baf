"""A service is ended in the middle of a run and started again: nothing is lost, and what was interrupted goes on."""

from __future__ import annotations

from tests.integration.outside import Restarted
from tests.integration.service import PROMPT


def test_it_has_everything(restarted: Restarted) -> None:
    assert restarted.listed_datasets == [restarted.dataset_id]
    assert restarted.listed_jobs == [restarted.waiting, restarted.interrupted, restarted.finished]
    assert restarted.service.ask(restarted.finished, PROMPT)["generated_text"] == restarted.answer


def test_it_resumes_what_was_interrupted(restarted: Restarted) -> None:
    service = restarted.service
    resumed = service.wait_for_end(restarted.interrupted)
    assert resumed["meta"]["attempt"] == 2
    assert [record["epoch"] for record in resumed["meta"]["loss_history"]] == [0, 1, 2, 3, 4]
    assert "Resuming after epoch" in service.log_of(restarted.interrupted)
    service.wait_for_end(restarted.waiting)
    assert service.ask(restarted.interrupted, PROMPT)["model_path"].endswith(restarted.interrupted)


def test_its_records_are_in_postgresql(restarted: Restarted) -> None:
    body = restarted.service.get("/api/health/services")
    assert body["status"] == "healthy", body
    assert body["services"]["database"]["implementation"] == "PostgreSQL"
