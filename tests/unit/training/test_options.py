from __future__ import annotations

import argparse

import pytest

from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.options import add_options, config_of


def parsed(*words: str) -> TrainingConfig:
    parser = argparse.ArgumentParser()
    parser.add_argument("--validation-dataset")  # as the training program has it
    add_options(parser)
    return config_of("owner/model", parser.parse_args(words))


def test_without_options_it_is_the_default() -> None:
    assert parsed() == TrainingConfig(base_model="owner/model")


def test_every_hyperparameter_has_an_option() -> None:
    words = (
        "--learning-rate 3e-5 --num-epochs 2 --batch-size 8 --max-length 256 --gradient-accumulation-steps 4 "
        "--warmup-ratio 0.2 --weight-decay 0.01 --lr-scheduler linear --max-grad-norm 0.5 --validation-split 0 "
        "--num-workers 2 --seed 7 --lora-r 4 --lora-alpha 8 --lora-dropout 0.1 --target-modules q_proj,v_proj "
        "--min-workers 1 --eval-steps 20 --early-stopping-patience 3 --max-train-time-s 600 --precision bfloat16 "
        "--quantization nf4 --gradient-checkpointing --torch-compile --sharding never --dpo-beta 0.2 --use-rslora "
        "--use-dora --loraplus-lr-ratio 16 --validation-dataset b.jsonl"
    )
    expected = TrainingConfig(
        base_model="owner/model",
        learning_rate=3e-5,
        num_epochs=2,
        batch_size=8,
        max_length=256,
        gradient_accumulation_steps=4,
        warmup_ratio=0.2,
        weight_decay=0.01,
        lr_scheduler="linear",
        max_grad_norm=0.5,
        validation_split=0.0,
        num_workers=2,
        min_workers=1,
        eval_steps=20,
        early_stopping_patience=3,
        max_train_time_s=600.0,
        precision="bfloat16",
        quantization="nf4",
        gradient_checkpointing=True,
        torch_compile=True,
        sharding="never",
        dpo_beta=0.2,
        seed=7,
        lora=LoraSettings(
            r=4,
            lora_alpha=8,
            lora_dropout=0.1,
            target_modules=("q_proj", "v_proj"),
            use_rslora=True,
            use_dora=True,
            loraplus_lr_ratio=16.0,
        ),
    )
    assert parsed(*words.split()) == expected
    # Each differs from its default, so none was left out.
    default = TrainingConfig(base_model="owner/model")
    for name in set(TrainingConfig.model_fields) - {"base_model", "lora"}:
        assert getattr(expected, name) != getattr(default, name), name
    for name in LoraSettings.model_fields:
        assert getattr(expected.lora, name) != getattr(default.lora, name), name


def test_all_linear_is_a_word() -> None:
    assert parsed("--target-modules", "all-linear").lora.target_modules == "all-linear"


@pytest.mark.parametrize(
    ("words", "expected"), [("", None), ("--gradient-checkpointing", True), ("--no-gradient-checkpointing", False)]
)
def test_what_is_decided_by_itself_can_be_said_both_ways(words: str, expected: bool | None) -> None:
    assert parsed(*words.split()).gradient_checkpointing is expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch-size 64", "--batch-size 64: Input should be less than or equal to 32"),
        ("--lora-r 0", "--lora-r 0: Input should be greater than or equal to 1"),
        ("--lr-scheduler step", "--lr-scheduler 'step': Input should be 'cosine', 'linear' or 'constant'"),
        ("--target-modules q_proj,q_proj", "names a module more than once: q_proj"),
        ("--target-modules q_proj,", "--target-modules '': String should match pattern"),
        ("--learning-rate nan", "--learning-rate nan: Input should be"),
        ("--min-workers 3 --num-workers 2", "min_workers=3 is more than num_workers=2"),
        ("--quantization nf4 --sharding always", "quantization=nf4 can't be shared out; leave out sharding=always"),
        ("--quantization int8", "--quantization 'int8': Input should be 'nf4'"),
        ("--loraplus-lr-ratio 0.5", "--loraplus-lr-ratio 0.5: Input should be greater than or equal to 1"),
        (
            "--early-stopping-patience 3 --validation-split 0",
            "--early-stopping-patience 3 needs rows to evaluate on, and --validation-split is 0; raise it, or name",
        ),
        ("--num-workers 65 --seed -1", "--num-workers 65: Input should be less than or equal to 64; --seed -1: Input"),
    ],
)
def test_a_value_outside_its_limits_is_named_with_its_option(words: str, message: str) -> None:
    with pytest.raises(TrainingError) as error:
        parsed(*words.split())
    assert message in error.value.message
    assert error.value.reason is FailureReason.INVALID_HYPERPARAMETERS


def test_help_shows_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "Forward passes in one optimizer step. Default 1." in shown
    assert "Default all-linear." in shown
