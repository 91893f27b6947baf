"""Commands on datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.fakes_api import dataset_record, job_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.cli.running import done, refused, run


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

    def test_columns_of_other_names(self, file: Path) -> None:
        file.write_text("Frage,Antwort\na,b\n")
        options = ("--columns", "Frage=question", "--columns", "Antwort=answer", "--separator", "comma")
        assert done("upload", str(file), *options).startswith("1 rows, format question-answer\n")
        assert done("validate", str(file), *options, "--encoding", "cp1252") == "valid: 1 rows\n"

    def test_bad_options_are_refused_by_their_names(self, file: Path) -> None:
        assert refused("upload", str(file), "--separator", "::").startswith("--separator: '::' isn't known")
        assert refused("validate", str(file), "--encoding", "klingon").startswith("--encoding: 'klingon' isn't one")

    def test_what_was_guessed_is_printed(self, file: Path) -> None:
        file.write_text("instruction;response\na;b\n;\n")
        for command in ("upload", "validate"):
            printed = done(command, str(file))
            assert "guessed separator: ';'\n" in printed
            assert "note: 1 blank row was left out, the first one in line 3\n" in printed

    def test_file_of_another_kind_is_told_without_counting_rows(self, file: Path) -> None:
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        result = run("validate", str(file))
        assert "the content is a pointer of Git LFS" in result.stdout
        assert result.stderr.endswith("can't be used\n")

    def test_ignored_columns_are_printed(self, file: Path) -> None:
        file.write_text("text,body\na,b\n")
        assert "ignored columns: text\n" in done("upload", str(file), "--columns", "body=text")

    def test_statistics_of_nothing(self) -> None:
        assert refused("statistics", "nothing", "--max-length", "128") == "Dataset nothing not found"

    def test_versions(self, file: Path) -> None:
        first = done("upload", str(file)).splitlines()[-1].removeprefix("dataset_id: ")
        more = file.with_name("more.jsonl")
        more.write_text('{"prompt": "e", "completion": "f"}\n')
        words = done("append-dataset", first, str(more)).splitlines()
        assert words[0] == f"version 2 of dataset {first}: 3 rows"
        second = words[1].removeprefix("dataset_id: ")
        assert done("replace-dataset", second, str(more)).startswith(f"version 3 of dataset {first}: 1 rows\n")
        assert [line.split()[1] for line in done("dataset-versions", second).splitlines()[-3:-1]] == [first, second]
        assert done("diff-dataset", first, "--to-version", "2").splitlines() == [
            "version 1 to version 2",
            "added: 1 rows",
            "removed: 0 rows",
            "changed: 0 rows",
            "same: 2 rows",
            "+ 2: e | f",
        ]
        assert "version 9 isn't there" in refused("diff-dataset", first, "--to-version", "9")
