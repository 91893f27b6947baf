"""The benchmark of the training loop alone runs, and writes what the comparison with its peers reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
TIMEOUT_S = 250.0


def test_the_loop_alone_trains_and_is_measured(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    turns = [[f"What is {number} and one?", f"It is {number + 1}."] for number in range(8)]
    messages = [[{"role": "user", "content": ask}, {"role": "assistant", "content": answer}] for ask, answer in turns]
    rows.write_text("".join(json.dumps({"messages": each}) + "\n" for each in messages))
    output = tmp_path / "out.json"
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "own" / "bare_loop.py"), "--threads", "1"]
    command += ["--model-folder", str(tiny_model_folder), "--train", str(rows), "--eval", str(rows)]
    ended = subprocess.run(
        [*command, "--output", str(output), "--precision", "float32", "--max-length", "128"],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(output.read_text())
    assert found["num_steps"] == 2
    assert found["tokens_per_s"] > 0
    assert 0 < found["eval_loss"] < 20
    assert found["facts"]["precision"] == "float32"
    # What `benchmarks/training.py` reads.
    assert {"peak_rss_mib", "cpu_share", "tokens_per_s_of_all_steps"} <= found.keys()
