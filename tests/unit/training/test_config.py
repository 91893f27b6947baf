from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from sienn_ray.training.config import MAX_LEARNING_RATE, MIN_LEARNING_RATE, LoraSettings, TrainingConfig


@pytest.mark.parametrize(
    ("field", "lowest", "highest"),
    [
        ("learning_rate", MIN_LEARNING_RATE, MAX_LEARNING_RATE),
        ("gradient_accumulation_steps", 1, 64),
        ("num_workers", 1, 64),
        ("warmup_ratio", 0.0, 0.5),
        ("weight_decay", 0.0, 1.0),
        ("validation_split", 0.0, 0.5),
        ("seed", 0, 2**31 - 1),
    ],
)
def test_limits_are_inclusive(field: str, lowest: float, highest: float) -> None:
    for value in (lowest, highest):
        assert getattr(TrainingConfig(base_model="m", **{field: value}), field) == value
    step = 1 if isinstance(lowest, int) else 1e-9
    for value in (lowest - step, highest + step):
        with pytest.raises(ValidationError, match=field):
            TrainingConfig(base_model="m", **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", math.nan),
        ("learning_rate", "fast"),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", math.nan),
        ("weight_decay", math.nan),
        ("validation_split", math.inf),
        ("num_epochs", 1.5),
        ("base_model", None),
        ("lr_scheduler", "Cosine"),
        ("lr_scheduler", "polynomial"),
        ("lr_scheduler", None),
        ("gradient_accumulation_steps", None),
        ("num_workers", 1.5),
        ("target_modules", "all-linear"),  # belongs to `lora`
    ],
)
def test_bad_values_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        TrainingConfig(**{"base_model": "m", field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 0),
        ("r", 257),
        ("lora_alpha", 0),
        ("lora_dropout", 1.0),
        ("lora_dropout", -0.1),
        ("target_modules", "q_proj"),
        ("target_modules", ""),
        ("target_modules", None),
        ("target_modules", {"q_proj": 1}),
        ("target_modules", []),
        ("target_modules", [""]),
        ("target_modules", [1]),
        ("target_modules", ["q_proj", "v_proj", "q_proj"]),
        ("target_modules", ["q_proj\n"]),
        ("target_modules", ["q proj"]),
        ("target_modules", [".*"]),
        ("target_modules", ["prójection"]),
        ("target_modules", ["m" * 129]),
        ("target_modules", [f"m{number}" for number in range(65)]),
        ("rank", 8),
    ],
)
def test_bad_lora_settings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        LoraSettings(**{field: value})


def test_one_wrong_name_is_one_error() -> None:
    with pytest.raises(ValidationError, match="names a module more than once: v_proj") as error:
        LoraSettings(target_modules=["v_proj", "q_proj", "v_proj"])
    assert error.value.error_count() == 1


@pytest.mark.parametrize(
    "names",
    [["q_proj"], ["model.layers.0.self_attn.q_proj", "v_proj"], [f"m{number}" for number in range(64)], ["x" * 128]],
)
def test_names_of_target_modules(names: list[str]) -> None:
    lora = LoraSettings(target_modules=names)
    assert lora.target_modules == tuple(names)
    assert hash(lora) == hash(LoraSettings(target_modules=tuple(names)))


def test_rows_of_a_step() -> None:
    assert TrainingConfig(base_model="m", batch_size=3, gradient_accumulation_steps=5).rows_per_step == 15


def test_records_of_earlier_versions_can_be_read() -> None:
    stored = (
        '{"base_model":"owner/model","learning_rate":0.0002,"num_epochs":3,"batch_size":4,"max_length":512,'
        '"warmup_ratio":0.06,"weight_decay":0.0,"max_grad_norm":1.0,"validation_split":0.1,"seed":42,'
        '"lora":{"r":16,"lora_alpha":32,"lora_dropout":0.05,"target_modules":"all-linear"}}'
    )
    # It stays the run that it was, though the default has changed since.
    expected = TrainingConfig(base_model="owner/model", lora=LoraSettings(lora_dropout=0.05))
    assert TrainingConfig.model_validate_json(stored) == expected


def test_config_is_frozen_all_the_way_down() -> None:
    config = TrainingConfig(base_model="m")
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.lora.r = 1  # type: ignore[misc]
    assert hash(config) == hash(TrainingConfig(base_model="m"))


def test_json_round_trip_is_exact() -> None:
    lora = LoraSettings(r=8, lora_dropout=0.1, target_modules=("v_proj", "q_proj"))
    config = TrainingConfig(base_model="m", learning_rate=1 / 3000, lr_scheduler="linear", num_workers=2, lora=lora)
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


def test_only_the_base_model_has_no_default() -> None:
    assert [name for name, field in TrainingConfig.model_fields.items() if field.is_required()] == ["base_model"]
