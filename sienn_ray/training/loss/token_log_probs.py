"""Log-probabilities of tokens given their hidden states, a few at a time.

The logits of all tokens over the whole vocabulary are the largest tensor of a training step (Qwen's vocabulary has
151,936 tokens), and so is its gradient. A chunk's logits live only until its gradient with respect to the hidden states
is known, which is computed right away, in the forward pass (as Liger's fused loss does, arXiv:2410.10989, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

# Elements of a chunk's logits on a CPU, whose cache they are to stay near: 32 MiB in float32.
_CHUNK_ELEMENTS = 8 * 1024**2
# On a GPU, which reads the whole head twice for each chunk.
_GPU_CHUNK_TOKENS = 2048


@dataclass(frozen=True)
class OutputHead:
    """From hidden states to logits.

    Args:
        module: The base model's output embeddings.
        scale: Factor of the logits (Cohere, Granite).
        softcap: Bound of the logits (Gemma 2).
        chunk_tokens: Tokens whose logits are there at once; None is what suits the device.
    """

    module: torch.nn.Module
    scale: float = 1.0
    softcap: float | None = None
    chunk_tokens: int | None = None

    @classmethod
    def of(cls, model: Any, chunk_tokens: int | None = None) -> OutputHead:
        """The head of a causal LM."""
        config = model.config.get_text_config()
        divisor = getattr(config, "logits_scaling", None) or 1.0
        scale = (getattr(config, "logit_scale", None) or 1.0) / divisor
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(model.get_output_embeddings(), scale, softcap, chunk_tokens)

    def chunk_on(self, device: torch.device) -> int:
        """Tokens whose logits are there at once on a device."""
        if self.chunk_tokens is not None:
            return self.chunk_tokens
        if device.type == "cuda":
            return _GPU_CHUNK_TOKENS
        return max(16, _CHUNK_ELEMENTS // (getattr(self.module, "out_features", None) or 131_072))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(tokens, hidden) to (tokens, vocabulary)."""
        logits: torch.Tensor = self.module(hidden)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    @property
    def is_trainable(self) -> bool:
        """Return whether an adapter sits on it."""
        return any(parameter.requires_grad for parameter in self.module.parameters())


def token_log_probs(head: OutputHead, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target, in nats.

    Args:
        head: From hidden states to logits.
        hidden: (tokens, hidden).
        targets: (tokens,) int64.

    Returns:
        (tokens,) float32.

    Example:
        >>> linear = torch.nn.Linear(4, 10, bias=False)
        >>> _ = torch.nn.init.zeros_(linear.weight)
        >>> with torch.no_grad():
        ...     token_log_probs(OutputHead(linear), torch.ones(2, 4), torch.tensor([3, 7]))
        tensor([-2.3026, -2.3026])
    """
    chunk = head.chunk_on(hidden.device)
    if not torch.is_grad_enabled():
        return torch.cat([_log_probs(head, h, t) for h, t in _chunks(hidden, targets, chunk)])
    if head.is_trainable:  # its own gradients need the logits again
        parts = [checkpoint(_log_probs, head, h, t, use_reentrant=False) for h, t in _chunks(hidden, targets, chunk)]
        return torch.cat(parts)
    log_probs: torch.Tensor = _FixedHead.apply(head, hidden, targets, chunk)  # type: ignore[no-untyped-call]
    return log_probs


def _chunks(hidden: torch.Tensor, targets: torch.Tensor, size: int) -> zip[tuple[torch.Tensor, torch.Tensor]]:
    return zip(torch.split(hidden, size), torch.split(targets, size), strict=True)


def _log_probs(head: OutputHead, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -F.cross_entropy(head.logits(hidden).float(), targets, reduction="none")


class _FixedHead(torch.autograd.Function):
    """Log-probabilities under a head without trainable weights."""

    @staticmethod
    def forward(ctx: Any, head: OutputHead, hidden: torch.Tensor, targets: torch.Tensor, chunk: int) -> torch.Tensor:
        """Hidden (tokens, hidden), targets (tokens,); returns (tokens,)."""
        gradients = torch.empty_like(hidden)  # of each log-probability by its own hidden state
        parts = []
        for start in range(0, len(targets), chunk):
            own = slice(start, start + chunk)
            with torch.enable_grad():
                leaf = hidden[own].detach().requires_grad_()
                log_probs = _log_probs(head, leaf, targets[own])
                gradients[own] = torch.autograd.grad(log_probs.sum(), leaf)[0]
            parts.append(log_probs.detach())
        ctx.save_for_backward(gradients)
        return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradient of the hidden states."""
        (gradients,) = ctx.saved_tensors
        return None, gradients * grad_outputs[0].to(gradients.dtype)[:, None], None, None
