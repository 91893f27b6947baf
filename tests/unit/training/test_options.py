from __future__ import annotations

import argparse
from typing import Any

import pytest

from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.settings import Settings
from sienn_ray.training import hyperparameters
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.options import add_options, config_of
from tests.support.hyperparameter_values import as_options, other_values


def parsed(*words: str, **settings: Any) -> TrainingConfig:
    parser = argparse.ArgumentParser()
    parser.add_argument("--validation-dataset")  # as the training program has it
    add_options(parser)
    return config_of("owner/model", parser.parse_args(words), Settings(env="test", **settings))


def test_without_options_it_is_the_default() -> None:
    assert parsed() == TrainingConfig(base_model="owner/model")


def test_every_hyperparameter_has_an_option() -> None:
    values = other_values()
    assert parsed(*as_options(values)) == hyperparameters.config_of("owner/model", values)


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
        ("--batch-size 64", "--batch-size 64: has to be less than or equal to 32"),
        ("--lora-r 0", "--lora-r 0: has to be greater than or equal to 1"),
        ("--lr-scheduler step", "--lr-scheduler 'step': has to be 'cosine', 'linear' or 'constant'"),
        ("--target-modules q_proj,q_proj", "names a module more than once: q_proj"),
        ("--target-modules q_proj,", "--target-modules '': String should match pattern"),
        ("--learning-rate nan", "--learning-rate nan: has to be"),
        ("--min-workers 3 --num-workers 2", "min_workers=3 is more than num_workers=2"),
        ("--quantization nf4 --sharding always", "quantization=nf4 can't be shared out; leave out sharding=always"),
        ("--quantization int8", "--quantization 'int8': has to be 'nf4'"),
        ("--loraplus-lr-ratio 0.5", "--loraplus-lr-ratio 0.5: has to be greater than or equal to 1"),
        (
            "--early-stopping-patience 3 --validation-split 0",
            "--early-stopping-patience 3 needs rows to evaluate on, and --validation-split is 0; raise it, or name",
        ),
        ("--max-grad-norm inf", "--max-grad-norm inf: has to be a finite number"),
        ("--num-workers 65 --seed -1", "--num-workers 65: has to be less than or equal to 64; --seed -1: has"),
    ],
)
def test_a_value_outside_its_limits_is_named_with_its_option(words: str, message: str) -> None:
    with pytest.raises(TrainingError) as error:
        parsed(*words.split())
    assert message in error.value.message
    assert error.value.reason is FailureReason.INVALID_HYPERPARAMETERS


def test_a_limit_that_the_service_has_raised_counts() -> None:
    assert parsed("--batch-size", "64", max_batch_size=64).batch_size == 64
    with pytest.raises(
        TrainingError, match=r"less than or equal to 64, unless who runs the service raises SIENN_MAX_BATCH"
    ):
        parsed("--batch-size", "65", max_batch_size=64)


def test_help_shows_limits_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "Passes over the dataset. (1 to 10, or what SIENN_MAX_NUM_EPOCHS of the service says; default 3)" in shown
    assert "(cosine, linear or constant; default cosine)" in shown
    assert "(above 0; default 1)" in shown
