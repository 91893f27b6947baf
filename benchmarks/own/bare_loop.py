"""Fine-tune with our training loop and nothing around it, and write the same as `peers/run_peer.py`.

python benchmarks/own/bare_loop.py --model-folder FOLDER --train train.jsonl --eval eval.jsonl --output out.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from lone_loop import Worker, fine_tune
from meter import memory_mib
from rows import mean_loss, read_rows, tokenize


def main() -> None:
    options = parse_options()
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from sienn_ray.base_model import load_causal_lm, load_tokenizer
    from sienn_ray.precision import allow_tf32
    from sienn_ray.training.config import LoraSettings, TrainingConfig
    from sienn_ray.training.hardware import choose_dtype, peak_memory_bytes, use_all_cpus

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
    num_threads = use_all_cpus(options.threads)
    device = torch.device(options.device)
    allow_tf32()
    rss_before_mib = 0.0

    def load() -> Any:
        nonlocal rss_before_mib
        base = load_causal_lm(options.model_folder, device, choose_dtype(config.precision, device))
        rss_before_mib = memory_mib("VmRSS")
        return base

    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "checkpoint"
        trained = fine_tune(load, config, rows, Worker(device, checkpoint), pad_token_id=tokenizer.pad_token_id)
        peak_mib = memory_mib("VmHWM")
        fresh = AutoModelForCausalLM.from_pretrained(options.model_folder, dtype=torch.float32, local_files_only=True)
        eval_rows = tokenize(tokenizer, read_rows(options.eval), options.max_length)
        eval_loss = mean_loss(PeftModel.from_pretrained(fresh, checkpoint), eval_rows)
    last = trained.clock.marks[-1]
    result = {
        "peer": f"sienn_ray ({options.precision})",
        "tokens_per_s": trained.tokens_per_s(),
        # As a job counts it: with the first step, in which much is done for the first time.
        "tokens_per_s_of_all_steps": last.num_tokens / trained.clock.train_seconds,
        "cpu_share": trained.cpu_share(num_threads),
        "rss_before_training_mib": rss_before_mib,
        "peak_rss_mib": peak_mib,
        "peak_device_mib": peak_memory_bytes(device) / 1024**2,
        "eval_loss": eval_loss,
        "num_steps": len(trained.clock.marks),
        "num_tokens": last.num_tokens,
        "facts": trained.outcome.facts.model_dump(mode="json"),
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
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    return parser.parse_args()


if __name__ == "__main__":
    main()
