"""`sienn ask` and `sienn compare`."""

from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.errors import CapacityError
from sienn_ray.inference.engine import ChatMessage, SamplingParams
from sienn_ray.jobs.schema import JobStatus
from tests.support.fakes_api import BASE_MODEL as FAKE_BASE_MODEL
from tests.support.fakes_api import FakeEngines, job_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.cli.running import done, refused, run


@pytest.mark.usefixtures("service")
class TestAnswers:
    @pytest.fixture(autouse=True)
    def jobs(self, tracker: InProcessTracker) -> None:
        tracker.put(*(job_record(id=job_id, status=JobStatus.COMPLETED) for job_id in ("job-1", "job-2")))

    def test_ask(self, engines: FakeEngines) -> None:
        assert done("ask", "job-1", "Why?", "--greedy") == "A branch of artificial intelligence.\n"
        [(_, request)] = engines.asked
        assert (request.adapter_id, request.sampling.do_sample) == ("job-1", False)
        done("ask", "job-1", "Why?", "--base")
        assert engines.asked[-1][1].adapter_id is None

    @pytest.mark.parametrize("command", ["ask", "compare"])
    def test_every_field_of_sampling_can_be_given(self, engines: FakeEngines, command: str) -> None:
        options: dict[str, Any] = {
            "temperature": 1.5,
            "top_p": 0.5,
            "top_k": 40,
            "min_p": 0.25,
            "repetition_penalty": 1.5,
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "max_new_tokens": 20,
            "seed": 7,
        }
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        done(command, "job-1", "Why?", "--system", "You are Tilda.", *words, "--stop", "a", "--stop", "b")
        request = engines.asked[-1][1]
        assert request.sampling == SamplingParams(**options, stop=("a", "b"))
        assert request.prompt == (ChatMessage("system", "You are Tilda."), ChatMessage("user", "Why?"))

    def test_sampling_is_the_service_s_own_by_default(self, engines: FakeEngines) -> None:
        done("ask", "job-1", "Why?")
        assert engines.asked[-1][1].sampling == SamplingParams()

    def test_greedy_is_greedy(self, engines: FakeEngines) -> None:
        done("ask", "job-1", "Why?", "--greedy")
        assert engines.asked[-1][1].sampling == SamplingParams(do_sample=False, repetition_penalty=1.0)
        done("compare", "job-1", "Why?", "--greedy", "--repetition-penalty", "1.2")
        assert engines.asked[-1][1].sampling == SamplingParams(do_sample=False, repetition_penalty=1.2)

    def test_compare_without_a_prompt_names_it(self) -> None:
        result = run("compare", "job-1")
        assert result.exit_code == 2
        assert "Invalid value for 'PROMPT': the prompt is missing" in result.stderr

    def test_ask_without_an_answer(self, engines: FakeEngines) -> None:
        assert refused("ask", "nothing", "Why?") == "Job nothing not found"
        engines.error = CapacityError("64 requests wait")
        assert refused("ask", "job-1", "Why?") == "64 requests wait"

    def test_ask_with_an_answer_that_breaks_off(self, engines: FakeEngines) -> None:
        engines.late_error = CapacityError("no answer within 300 s")
        result = run("ask", "job-1", "Why?")
        assert (result.exit_code, result.stdout) == (1, "A branch of artificial intelligence.\n")
        assert result.stderr.endswith("error: no answer within 300 s\n")

    def test_compare(self, engines: FakeEngines) -> None:
        engines.error_of = lambda request: CapacityError("wait") if request.adapter_id == "job-2" else None
        assert done("compare", "job-2", "job-1", "Why?", "--seed", "3").splitlines() == [
            f"=== {FAKE_BASE_MODEL}",
            "A branch of artificial intelligence.",
            "",
            "=== job-2",
            "error: wait",
            "",
            "=== job-1",
            "A branch of artificial intelligence.",
            "",
        ]
        assert {request.sampling.seed for _, request in engines.asked} == {3}

    def test_compare_what_can_not_be(self) -> None:
        assert refused("compare", "job-1", "nothing", "Why?") == "Job nothing not found"
