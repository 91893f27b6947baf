"""The model that a run starts from, which its policy is compared with: the base model, or one with a start adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class Reference:
    """Puts the model into the state that its run starts from, for a while.

    A start adapter's weights take the place of those that learn. They are exchanged rather than kept in a second
    adapter of PEFT's: layers then compute them as they do the others, fused and with DoRA.

    Args:
        adapter: The PEFT model.
        start: Weights of the start adapter by the names of the model's parameters; None where the run starts from the
            base model.
    """

    def __init__(self, adapter: Any, start: Mapping[str, torch.Tensor] | None = None) -> None:
        self._adapter = adapter
        self._parameters: list[torch.nn.Parameter] = []
        self._others: list[torch.Tensor] = []
        self._dropouts = [module for name, module in adapter.named_modules() if "lora_dropout" in name]
        self.is_base = start is None
        if start is not None:
            named = dict(adapter.named_parameters())
            self._parameters = [named[name] for name in start]
            self._others = [value.to(named[name].device) for name, value in start.items()]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Have the model compute as it did at the start meanwhile; nothing learns then."""
        if self.is_base:
            with self._adapter.disable_adapter():
                yield
            return
        self._exchange()
        are_training = [module.training for module in self._dropouts]
        for module in self._dropouts:  # what a policy is compared with must not be other at each look
            module.eval()
        try:
            yield
        finally:
            for module, is_training in zip(self._dropouts, are_training, strict=True):
                module.train(is_training)
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for number, parameter in enumerate(self._parameters):
            other = self._others[number]
            self._others[number], parameter.data = parameter.data, other


def start_values(adapter: Any) -> dict[str, torch.Tensor]:
    """Copy the weights that learn, by the names of the model's parameters."""
    return {name: value.detach().clone() for name, value in adapter.named_parameters() if value.requires_grad}
