"""Seconds from a request to the first optimizer step, beside a bare script that imports, loads and steps the same.

python benchmarks/startup.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "own"))

from platform_run import running_service

from sienn_ray.base_model import local_folder
from sienn_ray.settings import Settings

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ROWS = HERE.parent / "examples" / "kestrel-ferry.jsonl"

# What a person would write: nothing of ours, Ray's imports because ours has them.
BARE = """
import json, sys
import ray.data, ray.train.torch
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, rows = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-4)
texts = []
for line in open(rows).readlines()[:4]:
    row = json.loads(line)
    chat = [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["response"]}]
    texts.append(tokenizer.apply_chat_template(chat, tokenize=False))
batch = tokenizer(texts, return_tensors="pt", padding=True)
model(**batch, labels=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)).loss.backward()
optimizer.step()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default=str(HERE.parent / ".bench" / "models"))
    options = parser.parse_args()
    models = Path(options.models)
    folder = local_folder(BASE_MODEL, Settings(home=models.parent))
    bare_s, own_s = [], []
    with running_service(models) as service:
        dataset_id = service.upload(ROWS)
        for number in range(options.rounds):
            bare_s.append(bare_script(folder))
            run = service.train(dataset_id, num_epochs=1, lora_dropout=0.0, max_train_time_s=0.001)
            timeline = run.facts["timeline"]
            own_s.append(timeline["total"])
            parts = "  ".join(f"{name} {seconds:.1f}" for name, seconds in timeline.items())
            print(f"round {number + 1}: bare script {bare_s[-1]:.1f} s, request to first step: {parts}", flush=True)
    bare, own = statistics.median(bare_s), statistics.median(own_s)
    print(f"\nmedians: bare script {bare:.1f} s, request to first step {own:.1f} s; ratio {own / bare:.2f}")


def bare_script(folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", BARE, folder, ROWS], check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
