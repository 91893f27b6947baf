"""A hyperparameter is the same wherever a fine-tune is started, and in the documentation."""

from __future__ import annotations

import argparse
import inspect
import math

from sienn_ray.api.schemas.finetuning import StartFinetuningRequest
from sienn_ray.api.schemas.hyperparameters import Hyperparameters, hyperparameters
from sienn_ray.cli.training import train
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.hyperparameters import HYPERPARAMETERS
from sienn_ray.training.options import add_options
from tools.hyperparameters_table import COMMAND, PAGE, render, table_of

NAMES = {each.name for each in HYPERPARAMETERS}
# What a fine-tune is told beside its hyperparameters.
SUBJECT = {"dataset_id", "datasets", "validation_dataset_id", "from_job", "revision", "name", "labels", "priority"}


def test_the_request_has_all_of_them_as_they_are() -> None:
    assert set(Hyperparameters.model_fields) == NAMES
    assert set(StartFinetuningRequest.model_fields) - SUBJECT - {"model_name"} == NAMES
    for each in HYPERPARAMETERS:
        field = Hyperparameters.model_fields[each.name]
        assert (field.default, field.description, field.examples) == (
            each.field.default,
            each.field.description,
            each.field.examples,
        )
        assert (field.annotation, field.metadata) == (each.field.annotation, each.field.metadata)


def test_both_command_lines_have_all_of_them() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert {action.dest for action in parser._actions} - {"help"} == NAMES
    options = set(inspect.signature(train).parameters)
    assert options - SUBJECT - {"base_model", "label", "idempotency_key", "wait"} == NAMES


def test_the_documentation_has_all_of_them() -> None:
    assert table_of(PAGE.read_text()) == render(), f"run `{COMMAND}`"


def test_an_infinite_norm_of_an_old_job_can_be_shown() -> None:
    assert hyperparameters(TrainingConfig(base_model="m", max_grad_norm=math.inf))["max_grad_norm"] is None
