"""LoRA fine-tuning beside TRL and beside the padded recipe: speed, memory and loss after the same tokens.

Everything runs with the same base model (SmolLM2-135M-Instruct), rows, LoRA shape (r 16, alpha 32, all seven
projections, no dropout), batch and learning rate, one after the other, in rounds; medians are printed. Our loop is
measured bare, and through the whole service on the same rows.

    python benchmarks/training.py [--rounds 3] [--rows 24] [--data rows.jsonl] [--skip-platform]
    python benchmarks/training.py --own ours --peers --rows 440 --data rows.jsonl    # what the service costs

`--data` takes JSON lines of {"messages": [...]}, {"question", "answer"} or {"instruction", "input", "response"}, or a
JSON array of the latter; without it, the rows of examples/ are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "own"), str(HERE / "peers")]

from environment import peers_python
from platform_run import running_service

from sienn_ray.base_model import local_folder
from sienn_ray.settings import Settings

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PEERS = ("padded", "trl", "trl-packed", "padded-bf16", "trl-bf16", "trl-packed-bf16")
OWN = {"ours (float32)": "float32", "ours": "auto"}


@dataclass(frozen=True)
class Measured:
    """One run: tokens/s over real tokens, peak resident MiB, evaluation loss, and how much CPU it got."""

    tokens_per_s: float
    peak_mib: float
    eval_loss: float
    cpu_share: float
    # The first step's time included; None where only the others were measured.
    tokens_per_s_of_all_steps: float | None = None


def main() -> None:
    options = parse_options()
    models = Path(options.models)
    folder = local_folder(BASE_MODEL, Settings(home=models.parent))
    rows = read_rows(options.data)
    peers = peers_python()
    with tempfile.TemporaryDirectory() as scratch:
        train, evaluation = Path(scratch) / "train.jsonl", Path(scratch) / "eval.jsonl"
        write_rows(train, rows[: options.rows])
        write_rows(evaluation, rows[options.rows : options.rows + options.eval_rows])
        data = ["--model-folder", str(folder), "--train", str(train), "--eval", str(evaluation)]
        runs: dict[str, list[Measured]] = {}
        platform_facts: list[dict[str, Any]] = []
        for number in range(options.rounds):
            for name in [*options.own, *options.peers]:
                if name in OWN:
                    command = [sys.executable, str(HERE / "own" / "bare_loop.py"), "--precision", OWN[name]]
                else:
                    command = [str(peers), str(HERE / "peers" / "run_peer.py"), "--peer", name]
                measured = run([*command, *data, "--seed", str(number)], Path(scratch) / "out.json")
                runs.setdefault(name, []).append(measured)
                print(f"round {number + 1}  {name:16} {words(measured)}", flush=True)
                if name == "ours" and not options.skip_platform:
                    platform_facts.append(run_platform(models, train))
                    print(f"round {number + 1}  through the service: {platform_facts[-1]['tokens_per_s']} tokens/s")
        report(runs)
        if platform_facts:
            report_platform(platform_facts, runs["ours"])


def run(command: list[str], output: Path) -> Measured:
    subprocess.run(
        [*command, "--output", str(output)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    result = json.loads(output.read_text())
    fields = ("tokens_per_s", "peak_rss_mib", "eval_loss", "cpu_share")
    return Measured(*(result[field] for field in fields), result.get("tokens_per_s_of_all_steps"))


def median(runs: Sequence[Measured]) -> Measured:
    fields = ("tokens_per_s", "peak_mib", "eval_loss", "cpu_share")
    return Measured(*(statistics.median(getattr(run, field) for run in runs) for field in fields))


def words(measured: Measured) -> str:
    return (
        f"{measured.tokens_per_s:7.1f} tokens/s {measured.peak_mib:7.0f} MiB  evaluation loss {measured.eval_loss:.4f}"
        f"  CPU {measured.cpu_share:.0%}"
    )


def report(runs: dict[str, list[Measured]]) -> None:
    """Print medians, and ratios of the same precision and of each side's best."""
    print(f"\nmedians of {max(map(len, runs.values()))} rounds")
    found = {name: median(each) for name, each in runs.items()}
    for name, measured in found.items():
        print(f"{name:16} {words(measured)}")
    print()
    for own in (name for name in found if name in OWN):
        for peer in (name for name in found if name not in OWN):
            speed = found[own].tokens_per_s / found[peer].tokens_per_s
            memory = found[own].peak_mib / found[peer].peak_mib
            loss = found[own].eval_loss - found[peer].eval_loss
            print(f"{own:16} / {peer:16} {speed:5.2f} x speed {memory:5.2f} x memory {loss:+.4f} evaluation loss")


def run_platform(models: Path, train: Path) -> dict[str, Any]:
    """Facts of a run on the same rows through a service that is started for it and ends with it."""
    with running_service(models) as service:
        dataset_id = service.upload(train)
        return service.train(dataset_id, num_epochs=1, lora_dropout=0.0, validation_split=0.0).facts


def report_platform(facts: Sequence[dict[str, Any]], bare: Sequence[Measured]) -> None:
    """Print what the service adds to the loop."""
    speed = statistics.median(each["tokens_per_s"] for each in facts)
    memory_mib = statistics.median(each["peak_memory_bytes"] for each in facts) / 1024**2
    # Of the runs beside each other: the machine itself is faster at one time than at another.
    ratio = statistics.median(
        alone.tokens_per_s_of_all_steps / each["tokens_per_s"] for alone, each in zip(bare, facts, strict=True)
    )
    print(f"\nthrough the service: {speed:.1f} tokens/s, {memory_mib:.0f} MiB in the worker")
    print(f"ours / through the service: {ratio:.3f} x speed over all steps, median of the rounds' ratios")
    print("seconds from the request to the first step:")
    for each in facts:
        print("  " + "  ".join(f"{name} {seconds:.1f}" for name, seconds in each["timeline"].items()))


def read_rows(path: Path) -> list[list[dict[str, str]]]:
    """Conversations of a file, by any of the column sets above."""
    text = path.read_text(encoding="utf-8")
    raw = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    return [messages_of(row) for row in raw]


def messages_of(row: dict[str, Any]) -> list[dict[str, str]]:
    if "messages" in row:
        return list(row["messages"])
    question = row.get("question") or row["instruction"]
    if (row.get("input") or "").strip():
        question = f"{question}\n\n{row['input']}"
    answer = row.get("answer") or row["response"]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write_rows(path: Path, rows: Sequence[list[dict[str, str]]]) -> None:
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--eval-rows", type=int, default=24)
    parser.add_argument("--data", type=Path, default=HERE.parent / "examples" / "kestrel-ferry.jsonl")
    parser.add_argument("--models", default=str(HERE.parent / ".bench" / "models"))
    parser.add_argument("--own", nargs="+", choices=OWN, default=list(OWN))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--skip-platform", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
