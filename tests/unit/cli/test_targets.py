"""A download is refused in a sentence before anything is asked for."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import typer

from sienn_ray.cli import targets
from tests.unit.cli.running import done, refused


class TestTargets:
    """A download is refused in a sentence before anything is asked for."""

    @pytest.fixture(params=["download", "export"])
    def command(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_a_folder(self, command: str, tmp_path: Path) -> None:
        assert refused(command, "job-1", "--output", str(tmp_path)).startswith(f"{tmp_path} is a folder; name a file")

    def test_a_missing_folder(self, command: str, tmp_path: Path) -> None:
        target = tmp_path / "no" / "file"
        assert refused(command, "job-1", "--output", str(target)).startswith(f"the folder {target.parent} isn't there")

    def test_a_file_that_is_there(self, exported: bytes, command: str, tmp_path: Path) -> None:
        target = tmp_path / "file"
        target.write_text("mine")
        assert refused(command, "job-1", "--output", str(target)).startswith(f"{target} is there already; ")
        assert target.read_text() == "mine"
        done(command, "job-1", "--output", str(target), "--overwrite")
        assert target.read_bytes() != b"mine"
        assert list(tmp_path.glob("*.partial")) == []

    def test_an_export_that_is_there_is_not_downloaded_again(self, exported: bytes, tmp_path: Path) -> None:
        target = tmp_path / "model.gguf"
        first, again = (done("export", "job-1", "--output", str(target)) for _ in range(2))
        assert first.splitlines()[-1] == again.splitlines()[-1]

    @pytest.mark.parametrize("keep", [True, False])
    def test_a_full_disk_leaves_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: bool) -> None:
        partial = tmp_path / "file.partial"
        with pytest.raises(typer.Exit), targets.written(partial, keep=keep):  # noqa: PT012
            partial.write_text("some")
            raise OSError(errno.ENOSPC, "No space left on device")
        assert "the disk is full" in capsys.readouterr().err
        assert not partial.exists()

    def test_an_interrupted_download_is_deleted_and_an_export_goes_on_later(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        partial = tmp_path / "file.partial"
        for keep in (True, False):
            with pytest.raises(KeyboardInterrupt), targets.written(partial, keep=keep):  # noqa: PT012
                partial.write_text("some")
                raise KeyboardInterrupt
            assert partial.exists() is keep
        assert "the same command goes on with it" in capsys.readouterr().err

    def test_what_has_no_room_is_not_begun(self, tmp_path: Path) -> None:
        with pytest.raises(typer.Exit):
            targets.check_room(tmp_path / "file", 2**62)
