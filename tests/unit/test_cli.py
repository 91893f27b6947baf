"""The command against the real API, over a socket, with fakes behind it."""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from sienn_ray import cli
from sienn_ray.api.app import create_app
from sienn_ray.api.schemas.exports import ExportModelRequest
from sienn_ray.cli import exports, output, training
from sienn_ray.errors import CapacityError, FailureReason
from sienn_ray.export.archive import ARCHIVE_FILES
from sienn_ray.export.options import ExportFormat
from sienn_ray.export.targets import TARGETS, Choice, ExportTarget
from sienn_ray.jobs.schema import JobEvent, JobStatus
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.hyperparameters import config_of
from tests.support.fakes_api import BASE_MODEL as FAKE_BASE_MODEL
from tests.support.fakes_api import CREATED_AT, FakeEngines, FakeJobLogs, dataset_record, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_exports import CHOSEN, CONTENT
from tests.support.hyperparameter_values import as_options, other_values
from tests.support.in_process_tracker import InProcessTracker

DEADLINE_S = 20
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # comes as a package, so no hub is asked


@pytest.fixture
def tracker(tmp_path: Path) -> InProcessTracker:
    return InProcessTracker(Settings(env="test", home=tmp_path))


@pytest.fixture
def job_logs() -> FakeJobLogs:
    return FakeJobLogs()


@pytest.fixture
def engines() -> FakeEngines:
    return FakeEngines()


@pytest.fixture
def service(
    tmp_path: Path,
    tracker: InProcessTracker,
    engines: FakeEngines,
    job_logs: FakeJobLogs,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    settings = Settings(env="test", home=tmp_path)
    backends = fake_backends(settings, tracker=tracker, engines=engines, job_logs=job_logs)
    with serving(create_app(backends)) as url:
        monkeypatch.setenv("SIENN_URL", url)
        monkeypatch.setattr(output.console, "width", 200)
        yield url


class serving:  # noqa: N801  (a context manager)
    """An application on a free port of this machine."""

    def __init__(self, app: FastAPI) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        deadline = time.monotonic() + DEADLINE_S
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(DEADLINE_S)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.app, list(words))


def done(*words: str) -> str:
    """What a command prints that ends well."""
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: str) -> str:
    """The one sentence of a command that ends badly."""
    result = run(*words)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    "words",
    [
        ["jobs"],
        ["download", "some-job"],
        ["ask", "some-job", "hello"],
        ["compare", "some-job", "hello"],
        ["watch", "x"],
        ["logs", "x", "--follow"],
        ["events", "x"],
        ["cancel", "x"],
        ["dataset", "x"],
        ["train", "x"],
    ],
)
def test_a_service_that_does_not_answer_is_named_with_the_way_out(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIENN_URL", "http://127.0.0.1:1")
    message = refused(*words)
    assert "http://127.0.0.1:1 doesn't answer" in message
    assert "start it with `sienn serve`" in message


def test_a_file_name_that_looks_like_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([{"id": "1", "filename": "[/red]rows[bold].csv", "name": None}], ("id", "filename", "name"))
    shown = capsys.readouterr().out
    assert "[/red]rows[bold].csv" in shown
    assert "None" not in shown


@pytest.mark.parametrize(
    ("meta", "shown"),
    [
        ({"current_epoch": 0, "total_epochs": 3, "current_loss": None}, ""),
        (
            {
                "current_epoch": 2,
                "total_epochs": 3,
                "current_loss": 0.5234,
                "eval_loss": 1.0,
                "tokens_per_s": 80.4,
                "time_left_s": 65.0,
            },
            "epoch 2/3  loss 0.523  eval loss 1.000  80 tokens/s  1:05 left",
        ),
    ],
)
def test_facts_of_a_running_job(meta: dict[str, Any], shown: str) -> None:
    assert training.facts(meta) == shown


@pytest.mark.usefixtures("service")
class TestTrain:
    @pytest.fixture(autouse=True)
    def datasets(self, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(), dataset_record(id="dataset-2"))

    def test_defaults_are_the_service_s_own(self, tracker: InProcessTracker) -> None:
        shown = done("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait")
        assert shown == f"job_id: {tracker.last_job.id}\n"
        assert tracker.last_job.config == TrainingConfig(base_model=BASE_MODEL)

    def test_every_hyperparameter_reaches_the_job(self, tracker: InProcessTracker) -> None:
        values = other_values()
        done("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait", *as_options(values))
        assert tracker.last_job.config == config_of(BASE_MODEL, values)

    def test_every_other_option_reaches_the_job(self, tracker: InProcessTracker) -> None:
        options = "--validation-dataset-id dataset-2 --label team=a=b --label env= --no-gradient-checkpointing"
        done("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait", *options.split(), "--name", "My job")
        job = tracker.last_job
        assert (job.name, job.labels) == ("My job", {"team": "a=b", "env": ""})
        assert job.validation_dataset_id == "dataset-2"
        assert (job.config.validation_split, job.config.gradient_checkpointing) == (0.0, False)

    def test_validation_split(self, tracker: InProcessTracker) -> None:
        words = ("--validation-split", "0.25", "--target-modules", "all-linear")
        done("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait", *words)
        assert tracker.last_job.config.validation_split == 0.25

    def test_same_key_makes_one_job(self, tracker: InProcessTracker) -> None:
        words = ("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait", "--idempotency-key", "k")
        assert done(*words) == done(*words)
        assert tracker.num_records == 3

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["nothing"], "Dataset nothing not found"),
            (["../x"], "Dataset ../x not found"),
            (["dataset-1", "--lora-r", "0"], "lora_r: Input should be greater than or equal to 1 (got 0)"),
            (["dataset-1", "--label", "team"], "label 'team' is not of the form KEY=VALUE"),
            (["dataset-1", "--lr-scheduler", "step"], "lr_scheduler: Input should be 'cosine', 'linear' or 'constant'"),
            (["dataset-1", "--target-modules", ""], "target_modules"),
            (["dataset-1", "--num-workers", "1", "--min-workers", "2"], "min_workers=2 is more than num_workers=1"),
        ],
    )
    def test_errors_are_one_sentence(self, tracker: InProcessTracker, words: list[str], message: str) -> None:
        assert message in refused("train", *words, "--base-model", BASE_MODEL, "--no-wait")
        assert tracker.num_records == 2

    def test_help_has_limits_and_defaults(self) -> None:
        shown = " ".join(done("train", "--help").replace("│", " ").split())
        assert "Rank of the adapter's matrices. (1 to 256; default 16)" in shown
        assert "Evaluations without a better loss after which the run ends; by default never." in shown


@pytest.mark.usefixtures("service")
class TestWatch:
    def test_completed(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.COMPLETED, progress=100, message="Training completed successfully"))
        assert "Training completed successfully" in done("watch", "job-1")

    def test_failed(self, tracker: InProcessTracker) -> None:
        reason = FailureReason.OUT_OF_MEMORY
        tracker.put(job_record(status=JobStatus.FAILED, failure_reason=reason, message="lower batch_size"))
        assert refused("watch", "job-1") == "the job failed (out_of_memory): lower batch_size"

    def test_paused(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.PAUSED))
        assert refused("watch", "job-1") == "the job is paused; `sienn resume` has it go on"

    def test_cancelled(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.CANCELLED))
        assert refused("watch", "job-1") == "the job was cancelled; `sienn retry` puts it back into the queue"


@pytest.mark.usefixtures("service")
class TestJobs:
    def test_list_and_filters(self, tracker: InProcessTracker) -> None:
        tracker.put(
            job_record(id="a", name="[bold]x", labels={"team": "support", "env": "b"}),
            job_record(id="b", labels={"team": "support"}, status=JobStatus.FAILED),
            job_record(id="c", labels={"team": "support"}),
        )
        assert [line.split()[0] for line in done("jobs").splitlines()] == ["job_id", "c", "b", "a"]
        assert "[bold]x" in done("jobs", "--label", "env=b")
        shown = done("jobs", "--status", "pending", "--label", "team=support", "--limit", "1").splitlines()
        assert [line.split()[0] for line in shown] == ["job_id", "c", "1"]
        assert shown[-1] == "1 of 2"

    def test_filters_that_are_none(self) -> None:
        assert "status: Input should be" in refused("jobs", "--status", "done")
        assert "label" in refused("jobs", "--label", "x")
        assert "limit" in refused("jobs", "--limit", "0")

    def test_status(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record(name="Ferry"))
        assert json.loads(done("status", "job-1"))["name"] == "Ferry"

    def test_cancel_retry_delete(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record())
        assert done("cancel", "job-1").startswith("cancelled: ")
        assert "already 'cancelled'" in refused("cancel", "job-1")
        assert done("retry", "job-1").startswith("pending: ")
        assert "only jobs that have ended can be deleted" in refused("delete-job", "job-1")
        done("cancel", "job-1")
        assert done("delete-job", "job-1") == "deleted: job-1\n"
        assert tracker.num_records == 1, "the dataset stays"

    def test_pause_resume(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record())
        assert done("pause", "job-1").startswith("paused: ")
        assert "only pending and running jobs can be paused" in refused("pause", "job-1")
        assert [line.split()[0] for line in done("jobs", "--status", "paused").splitlines()] == ["job_id", "job-1"]
        assert done("resume", "job-1").startswith("pending: ")
        assert "only paused jobs can be resumed" in refused("resume", "job-1")

    @pytest.mark.parametrize(
        "command", ["status", "watch", "pause", "resume", "cancel", "retry", "delete-job", "logs", "events"]
    )
    @pytest.mark.parametrize("job_id", ["nothing", "a/../../b", "?x#y", "%41"])
    def test_unknown_and_strange_ids(self, command: str, job_id: str) -> None:
        assert refused(command, job_id).endswith("not found") or "/" in job_id

    def test_events_of_all_pages(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record())
        some = (
            JobEvent(seq=seq, kind="phase", message=f"number {seq}", created_at=CREATED_AT) for seq in range(1, 1002)
        )
        tracker.put_events("job-1", *some)
        lines = done("events", "job-1").splitlines()
        assert len(lines) == 1002
        assert lines[-1].rstrip().endswith("number 1001")


@pytest.mark.usefixtures("service")
class TestLogs:
    @pytest.fixture(autouse=True)
    def job(self, tracker: InProcessTracker, job_logs: FakeJobLogs) -> None:
        tracker.put(job_record(status=JobStatus.COMPLETED, attempt=2))
        job_logs.chunks = {"sienn-job-1-1": [b"lost\n"], "sienn-job-1-2": [b"[red]one\n", "zwölf\n".encode()]}

    def test_are_printed_as_they_are(self, job_logs: FakeJobLogs) -> None:
        assert done("logs", "job-1") == "[red]one\nzwölf\n"
        assert done("logs", "job-1", "--follow", "--tail", "5") == "[red]one\nzwölf\n"
        assert done("logs", "job-1", "--attempt", "1") == "lost\n"
        assert job_logs.asked == [
            ("sienn-job-1-2", 1000, False),
            ("sienn-job-1-2", 5, True),
            ("sienn-job-1-1", 1000, False),
        ]

    def test_log_that_is_gone(self, job_logs: FakeJobLogs) -> None:
        job_logs.chunks.clear()
        assert refused("logs", "job-1", "-f") == "the cluster has no log of sienn-job-1-2"


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


@pytest.mark.usefixtures("service")
class TestDatasets:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "rows.csv"
        file.write_text("instruction,response\na,b\nc,d\n")
        return file

    def test_upload_and_list(self, file: Path, tracker: InProcessTracker) -> None:
        first, second = (done("upload", str(file)).splitlines() for _ in range(2))
        assert first[0] == "2 rows, format instruction-response"
        assert first[-1].startswith("dataset_id: ")
        assert second[1] == f"the same bytes as dataset {first[-1].removeprefix('dataset_id: ')}"
        assert "rows.csv" in done("datasets")

    def test_bad_file_is_refused_with_its_line(self, file: Path) -> None:
        file.write_text("instruction,response\na,b\nc,\n")
        assert "line 3" in refused("upload", str(file))

    def test_one(self, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record())
        assert json.loads(done("dataset", "dataset-1"))["filename"] == "conversations.csv"
        assert refused("dataset", "a/b") != ""
        assert refused("dataset", "nothing") == "Dataset nothing not found"

    def test_delete(self, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(), job_record())
        assert "job-1" in refused("delete-dataset", "dataset-1")
        done("cancel", "job-1")
        done("delete-job", "job-1")
        assert done("delete-dataset", "dataset-1") == "deleted: dataset-1\n"
        assert tracker.num_records == 0

    def test_validate(self, file: Path, tracker: InProcessTracker) -> None:
        assert done("validate", str(file)) == "valid: 2 rows\n"
        file.write_text("instruction,response\na,b\nc,\n,d\n")
        result = run("validate", str(file))
        assert result.exit_code == 1
        assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["line 3", "line 4"]
        assert "2 bad rows of 3" in result.stderr
        assert tracker.num_records == 0

    def test_statistics_of_nothing(self) -> None:
        assert refused("statistics", "nothing", "--max-length", "128") == "Dataset nothing not found"


@pytest.fixture
def exported(tracker: InProcessTracker, tmp_path: Path, service: str) -> bytes:
    """A completed job whose exports are made while they are watched; gives what they contain."""
    storage = Storage(Settings(env="test", home=tmp_path).storage_url)
    tracker.put(job_record(status=JobStatus.COMPLETED))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ARCHIVE_FILES:
        (adapter / name).touch()
    storage.publish(adapter, "adapters/job-1")

    tracker.before["export"] = lambda _: tracker.make_exports()
    return CONTENT


def test_an_export_is_followed_and_downloaded(exported: bytes, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    said = done("export", "job-1", "--quantization", "q8_0", "--output", str(target))
    assert "0%  The export waits for its turn" in said
    assert f"{target} ({len(exported)} bytes, SHA-256 " in said
    assert target.read_bytes() == exported
    listed = done("exports", "job-1")
    assert all(word in listed for word in ("gguf", "Q8_0", "completed", "100"))
    export_id = listed.split("\n")[1].split()[0]
    assert "is 'completed' and can't be cancelled" in refused("cancel-export", "job-1", export_id)
    assert done("delete-export", "job-1", export_id) == f"deleted: {export_id}\n"


def test_an_export_takes_every_field_of_its_request() -> None:
    options = set(inspect.signature(exports.export).parameters) - {"job_id", "output"}
    assert options == set(ExportModelRequest.model_fields)


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize(
    ("target", "choice"),
    [pytest.param(target, choice, id=f"{target.format}-{choice}") for target in TARGETS for choice in target.choices],
)
def test_each_choice_of_an_export_reaches_the_service(
    tracker: InProcessTracker, tmp_path: Path, target: ExportTarget, choice: Choice
) -> None:
    option, value = f"--{choice.replace('_', '-')}", CHOSEN[choice]
    words = ["export", "job-1", "--format", target.format, "--output", str(tmp_path / "file")]
    done(*words)
    done(*words, *([option] if value is True else [option, str(value)]))
    plain, chosen = (export.options for export in tracker.actor.exports("job-1"))
    assert plain.format is chosen.format is target.format
    assert chosen != plain


def test_an_export_names_its_formats() -> None:
    said = done("export", "--help")
    assert all(format in said for format in ExportFormat)
    unknown = run("export", "job-1", "--format", "onnx")
    assert unknown.exit_code == 2
    assert "'onnx' is not one of" in unknown.stderr


def test_a_broken_download_goes_on(exported: bytes, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    partial = tmp_path / f"model.gguf.{hashlib.sha256(exported).hexdigest()[:12]}.partial"
    partial.write_bytes(exported[:1000])
    done("export", "job-1", "--output", str(target))
    assert target.read_bytes() == exported
    assert not partial.exists()


def test_a_download_that_is_not_what_was_exported_is_deleted(exported: bytes, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    partial = tmp_path / f"model.gguf.{hashlib.sha256(exported).hexdigest()[:12]}.partial"
    partial.write_bytes(b"x" * 1000)
    assert "isn't what was exported and was deleted" in refused("export", "job-1", "--output", str(target))
    assert not partial.exists()
    assert not target.exists()


def test_choices_of_an_export_reach_the_service(exported: bytes, tracker: InProcessTracker, tmp_path: Path) -> None:
    choices = ["--format", "ollama", "--model-name", "ferry", "--system", "Be brief.", "--top-k", "5"]
    done("export", "job-1", *choices, "--output", str(tmp_path / "o.zip"))
    [export] = tracker.actor.exports("job-1")
    assert (export.options.model_name, export.options.system, export.options.sampling.top_k) == (
        "ferry",
        "Be brief.",
        5,
    )
    assert "adapter_only is of the format gguf" in refused("export", "job-1", "--format", "ollama", "--adapter-only")
