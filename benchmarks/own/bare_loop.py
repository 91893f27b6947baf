"""Fine-tune with our training loop and nothing around it, and write the same as `peers/run_peer.py`.

python benchmarks/own/bare_loop.py --model-folder FOLDER --train train.jsonl --eval eval.jsonl --output out.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from meter import Mark, memory_mib
from rows import mean_loss, read_rows, tokenize


class Rows:
    """Tokenized rows in memory, shuffled anew in each epoch."""

    def __init__(self, rows: list[Any], seed: int) -> None:
        self._rows = rows
        self._seed = seed

    def steps(self, share: Any, *, first_step: int, num_steps: int) -> Iterator[tuple[int, list[Any]]]:
        import numpy as np

        steps_per_epoch = share.steps_per_epoch(len(self._rows))
        for step in range(first_step, num_steps):
            order = np.random.default_rng([self._seed, step // steps_per_epoch]).permutation(len(self._rows))
            start = step % steps_per_epoch * share.rows_per_step
            own = (self._rows[number] for number in order[start : start + share.rows_per_step])
            yield step, [(row.input_ids, row.labels) for row in own]


class Worker:
    """A worker alone, which keeps its last checkpoint in a folder."""

    rank, world_size = 0, 1

    def __init__(self, folder: Path) -> None:
        import torch

        self.device = torch.device("cpu")
        self._folder = folder

    @contextmanager
    def last_checkpoint(self) -> Iterator[Path | None]:
        yield None

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:  # noqa: ARG002
        from sienn_ray.training.checkpoint import copy_best_adapter

        if checkpoint is not None:
            self._folder.mkdir(exist_ok=True)
            copy_best_adapter(checkpoint, self._folder)


class Clock:
    """A reporter that notes when each step was done."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self.train_seconds = 0.0

    def report(self, progress: Any) -> None:
        if progress.num_tokens is not None:
            self.marks.append(Mark(time.perf_counter(), time.process_time(), progress.num_tokens))
            self.train_seconds = progress.train_seconds

    def is_awaited(self) -> bool:
        """See `Reporter.is_awaited`."""
        return True

    def command(self) -> Any:
        from sienn_ray.training.reporting import RunCommand

        return RunCommand.GO_ON


def main() -> None:
    options = parse_options()
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from sienn_ray.base_model import load_causal_lm, load_tokenizer
    from sienn_ray.settings import Settings
    from sienn_ray.training.config import LoraSettings, TrainingConfig
    from sienn_ray.training.hardware import choose_dtype, use_all_cpus
    from sienn_ray.training.loop import FineTune
    from sienn_ray.training.spec import LoopSpec

    tokenizer = load_tokenizer(options.model_folder)
    rows = tokenize(tokenizer, read_rows(options.train), options.max_length)
    config = TrainingConfig(
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        batch_size=options.batch_size,
        max_length=options.max_length,
        learning_rate=options.learning_rate,
        num_epochs=options.epochs,
        seed=options.seed,
        precision=options.precision,
        torch_compile=options.compile,
        lora=LoraSettings(r=16, lora_alpha=32, lora_dropout=0.0),
    )
    clock = Clock()
    spec = LoopSpec(
        config=config,
        settings=Settings(report_interval_s=1e-9, checkpoint_interval_s=1e9),
        reporter=clock,
        num_train_rows=len(rows),
        num_eval_rows=0,
    )
    num_threads = use_all_cpus(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        adapter_folder = Path(scratch) / "adapter"
        with FineTune(spec, Worker(adapter_folder), Rows(rows, options.seed), None, tokenizer.pad_token_id) as run:
            device = torch.device("cpu")
            base = load_causal_lm(options.model_folder, device, choose_dtype(config.precision, device))
            rss_before_mib = memory_mib("VmRSS")
            outcome = run.train(base)
        peak_mib = memory_mib("VmHWM")
        fresh = AutoModelForCausalLM.from_pretrained(options.model_folder, dtype=torch.float32, local_files_only=True)
        eval_rows = tokenize(tokenizer, read_rows(options.eval), options.max_length)
        eval_loss = mean_loss(PeftModel.from_pretrained(fresh, adapter_folder), eval_rows)
    first, last = clock.marks[0], clock.marks[-1]
    wall_s = last.wall_s - first.wall_s
    result = {
        "peer": f"sienn_ray ({options.precision})",
        "tokens_per_s": (last.num_tokens - first.num_tokens) / wall_s,
        # As a job counts it: with the first step, in which much is done for the first time.
        "tokens_per_s_of_all_steps": last.num_tokens / clock.train_seconds,
        "cpu_share": (last.cpu_s - first.cpu_s) / (wall_s * num_threads),
        "rss_before_training_mib": rss_before_mib,
        "peak_rss_mib": peak_mib,
        "eval_loss": eval_loss,
        "num_steps": len(clock.marks),
        "num_tokens": last.num_tokens,
        "facts": outcome.facts.model_dump(mode="json"),
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True, help='JSON lines of {"messages": [...]}')
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
