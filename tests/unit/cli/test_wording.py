from __future__ import annotations

import pytest

from sienn_ray.cli.wording import in_own_words


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("cancel it first (POST /api/jobs/job-1/cancel)", "cancel it first (`sienn cancel job-1`)"),
        ("see GET /v1/models", "see `sienn models`"),
        ("GET /api/exports/{job_id} lists a job's exports", "`sienn exports JOB_ID` lists a job's exports"),
        ("delete them first, GET /api/jobs?dataset_id=d1 lists them", "delete them first, `sienn jobs` lists them"),
        ("Choose one that is here as model_name: a/b", "Choose one that is here as --base-model: a/b"),
        ("query.max_length: must be 128 or more (got '1')", "--max-length: must be 128 or more (got '1')"),
        ("labels.a b.[key]: must have letters", "--label: must have letters"),
        ("learning_rate: too large; batch_size: too small", "--learning-rate: too large; --batch-size: too small"),
        ("sharding=always, or quantization", "--sharding=always, or quantization"),
        ("Job a1b2 not found", "Job a1b2 not found"),
        ("line 3: the row has no field response", "line 3: the row has no field response"),
        ("dataset: my_file.csv has 0 rows", "dataset: my_file.csv has 0 rows"),
        ("set SIENN_MAX_UPLOAD_BYTES", "set SIENN_MAX_UPLOAD_BYTES"),
    ],
)
def test_messages_name_options_and_commands(message: str, words: str) -> None:
    assert in_own_words(message) == words


def test_an_option_may_have_another_name_in_one_command() -> None:
    names = {"model_name": "--model-name"}
    assert in_own_words("model_name: no name for Ollama", other_names=names) == "--model-name: no name for Ollama"
