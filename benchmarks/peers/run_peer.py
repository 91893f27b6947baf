"""Fine-tune with one of the peers of `benchmarks/training.py`, and write what it cost and what it learned.

It runs in the environment that `environment.py` makes:

    python benchmarks/peers/run_peer.py --peer trl --model-folder FOLDER --train train.jsonl --eval eval.jsonl \
        --output out.json

`--set` overrides a training argument, to see what another setting would have given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from meter import Meter, memory_mib
from rows import TokenRow, mean_loss, read_rows, tokenize

PEERS = ("trl", "trl-packed", "trl-bf16", "trl-packed-bf16", "padded", "padded-bf16")
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "trl")

# TRL 1.16 on a CPU. Its loss is always the fused one, which scores every position where there is no GPU, so padding
# costs there as well; flattened batches have none. A length to enforce isn't allowed with them: the rows come cut.
# Gradient checkpointing, TRL's default, saves a third of the memory, and computes the forward pass twice.
UNPACKED_SETTINGS: dict[str, Any] = {"padding_free": True, "max_length": None}
# Best fit decreasing keeps rows whole, and with SDPA, positions that start over mask each row from its neighbours.
# "wrapped" would cut rows in the middle, and let them see their neighbours.
PACKED_SETTINGS: dict[str, Any] = {"packing": True, "packing_strategy": "bfd"}


def main() -> None:
    options = parse_options()
    # Before the libraries are imported: they read it then.
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(os.cpu_count() or 1)
    tokenizer = AutoTokenizer.from_pretrained(options.model_folder, local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = tokenize(tokenizer, read_rows(options.train), options.max_length)
    eval_rows = tokenize(tokenizer, read_rows(options.eval), options.max_length)

    meter = Meter()
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        make_trainer = padded_trainer if options.peer.startswith("padded") else trl_trainer
        trainer = make_trainer(options, tokenizer, rows, meter, scratch)
        rss_before_mib = memory_mib("VmRSS")
        trainer.train()
        peak_mib = memory_mib("VmHWM")
        eval_loss = evaluate(options.model_folder, trainer, eval_rows, Path(scratch) / "adapter")
    timed = meter.timed
    result = {
        "peer": options.peer,
        "tokens_per_s": timed.num_tokens / timed.wall_s,
        "timed_s": timed.wall_s,
        "timed_tokens": timed.num_tokens,
        # Of what all threads could have had. Clearly less than 1 says that other programs took the CPU meanwhile.
        "cpu_share": timed.cpu_s / (timed.wall_s * torch.get_num_threads()),
        "rss_before_training_mib": rss_before_mib,
        "peak_rss_mib": peak_mib,
        "eval_loss": eval_loss,
        "num_rows": len(rows),
        "num_steps": meter.num_steps,
        "tokens_per_step": meter.num_tokens / meter.num_steps,
        # As the trainer saw them, and by the definition of rows.py: the same, or it trained on something else.
        "num_tokens": meter.num_tokens,
        "num_completion_tokens": meter.num_completion_tokens,
        "num_computed_positions": meter.num_computed_positions,
        "num_tokens_by_definition": sum(len(row.input_ids) for row in rows),
        "num_completion_tokens_by_definition": sum(row.num_completion_tokens for row in rows),
        "num_eval_completion_tokens": sum(row.num_completion_tokens for row in eval_rows),
        "num_threads": torch.get_num_threads(),
        "base_dtype": base_dtype(options),
        "overrides": options.set,
        "versions": {name: version(name) for name in LIBRARIES},
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True, help='JSON lines of {"messages": [...]}')
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=4, help="rows per optimizer step")
    parser.add_argument("--max-length", type=int, default=512, help="tokens")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="a training argument")
    parser.add_argument("--base-dtype", choices=("float32", "bfloat16"), help="of the frozen weights")
    parser.add_argument("--attention", default="sdpa", choices=("sdpa", "eager"))
    return parser.parse_args()


def base_dtype(options: argparse.Namespace) -> str:
    if options.base_dtype:
        return str(options.base_dtype)
    return "bfloat16" if is_bf16(options) else "float32"


def is_bf16(options: argparse.Namespace) -> bool:
    return bool(options.peer.endswith("-bf16"))


def common_arguments(options: argparse.Namespace, scratch: str) -> dict[str, Any]:
    """What all peers share; `TrainingArguments` clips at a norm of 1 and uses AdamW by default, here it is said."""
    import torch

    return {
        "output_dir": scratch,
        "use_cpu": not torch.accelerator.is_available(),  # bf16 on a CPU is refused without it
        "per_device_train_batch_size": options.batch_size,
        "num_train_epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.06,  # below 1, it is a share of all steps
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": is_bf16(options),
        "seed": options.seed,
        "dataloader_num_workers": 0,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    pairs = (item.partition("=") for item in options.set)
    return {name: json.loads(value) for name, _, value in pairs}


def adapted_model(options: argparse.Namespace) -> Any:
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(options.seed)  # LoRA's A matrices are random
    base = AutoModelForCausalLM.from_pretrained(
        options.model_folder,
        dtype=getattr(torch, base_dtype(options)),
        attn_implementation=options.attention,
        local_files_only=True,
    )
    return get_peft_model(base, lora_config())


def lora_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=PROJECTIONS, task_type="CAUSAL_LM")


def trl_trainer(
    options: argparse.Namespace,
    tokenizer: Any,
    rows: Sequence[TokenRow],
    meter: Meter,
    scratch: str,
    model: Any = None,
) -> Any:
    """TRL's `SFTTrainer`.

    It gets tokens and labels, which it trains on as they are. From prompts and completions it would make the same, and
    learn the newline behind the end of turn as well.

    Args:
        options: Of the command line.
        tokenizer: The base model's.
        rows: To train on.
        meter: Counts tokens and steps.
        scratch: A folder for what it writes.
        model: The adapted model; by default it is loaded from the folder that the options name.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class MeteredTrainer(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            meter.count(inputs)
            return super().compute_loss(model, inputs, *args, **kwargs)

    arguments = common_arguments(options, scratch)
    if options.peer.startswith("trl-packed"):
        arguments |= PACKED_SETTINGS | {
            "max_length": options.max_length,
            "per_device_train_batch_size": blocks_per_step(options, rows),
        }
    else:
        arguments |= UNPACKED_SETTINGS
    return MeteredTrainer(
        model=adapted_model(options) if model is None else model,
        args=SFTConfig(**arguments | overrides(options)),
        train_dataset=Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows]),
        processing_class=tokenizer,
        callbacks=[metering(meter)],
    )


def blocks_per_step(options: argparse.Namespace, rows: Sequence[TokenRow]) -> int:
    """Packed blocks that hold about as many rows as a batch without packing, and at least one."""
    rows_per_block = options.max_length * len(rows) / sum(len(row.input_ids) for row in rows)
    return max(1, round(options.batch_size / rows_per_block))


def padded_trainer(
    options: argparse.Namespace, tokenizer: Any, rows: list[TokenRow], meter: Meter, scratch: str
) -> Any:
    """The recipe of most tutorials: transformers' `Trainer`, every row padded to `max_length`."""
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments, default_data_collator

    class MeteredTrainer(Trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            meter.count(inputs)
            return super().compute_loss(model, inputs, *args, **kwargs)

    return MeteredTrainer(
        model=adapted_model(options),
        args=TrainingArguments(**common_arguments(options, scratch) | overrides(options)),
        train_dataset=Dataset.from_list([padded(row, options.max_length, tokenizer.pad_token_id) for row in rows]),
        data_collator=default_data_collator,
        callbacks=[metering(meter)],
    )


def padded(row: TokenRow, max_length: int, pad_token_id: int) -> dict[str, list[int]]:
    num_tokens = len(row.input_ids)
    num_padding = max_length - num_tokens
    return {
        "input_ids": row.input_ids + [pad_token_id] * num_padding,
        "attention_mask": [1] * num_tokens + [0] * num_padding,
        "labels": row.labels + [-100] * num_padding,
    }


def metering(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class Metering(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            meter.mark()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.num_steps += 1
            meter.mark()

    return Metering()


def evaluate(model_folder: Path, trainer: Any, rows: list[TokenRow], adapter_folder: Path) -> float:
    """The loss of the adapter on a float32 copy of the base model, as the trainer left neither alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(adapter_folder)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, local_files_only=True)
    return mean_loss(PeftModel.from_pretrained(base, adapter_folder), rows)


if __name__ == "__main__":
    main()
