"""Base models with random weights, made on the device, and random rows and prompts for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checks import Place
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, LlamaConfig, MistralConfig, PreTrainedModel

# The shapes of SmolLM2-135M, Llama-3.2-1B and Llama-3.1-8B.
_LLAMAS: dict[str, dict[str, Any]] = {
    "135M": {
        "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
    "1B": {
        "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True, "rope_theta": 500_000.0,
    },
    "8B": {
        "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False, "rope_theta": 500_000.0,
    },
}  # fmt: skip
_TINY = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
}  # fmt: skip
# Small enough to compute on the CPU as well: what attention has to get right, one by one.
SMALL = {
    "grouped queries": lambda: LlamaConfig(**_TINY),
    "sliding window": lambda: MistralConfig(**_TINY, sliding_window=24),
    "softcap": lambda: Gemma2Config(**_TINY, sliding_window=24, attn_logit_softcapping=2.0, query_pre_attn_scalar=16),
}
_NO_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class TokenRow:
    """A row as the product's token stream and the peers have it."""

    input_ids: list[int]
    labels: list[int]

    @property
    def num_completion_tokens(self) -> int:
        """Tokens that the loss counts."""
        return sum(label != -100 for label in self.labels[1:])


def device_of(place: Place) -> torch.device:
    """The device as a training worker names it, with its number."""
    return torch.device("cuda", 0) if place.device == "cuda" else torch.device(place.device)


def small_model(kind: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """One of `SMALL`, with the same weights on every device.

    They are four times as large as they are initialized, or its output would hardly differ from its embeddings.
    """
    torch.manual_seed(0)
    config = SMALL[kind]()
    for name, number in _NO_TOKENS.items():
        setattr(config, name, number)
    # transformers' other ways to attend know no softcap, and up to 5.17 they leave it out without a word.
    attention = {"attn_implementation": "eager"} if kind == "softcap" else {}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    return model.to(dtype).to(device).eval()


def llama_config(shape: str, place: Place) -> LlamaConfig:
    """Configuration of a Llama of 135M, 1B or 8B parameters; of a tiny one in a rehearsal."""
    options: dict[str, Any] = (
        dict(_TINY) if place.is_rehearsal else {"max_position_embeddings": 131_072} | _LLAMAS[shape]
    )
    theta = options.pop("rope_theta", 10_000.0)
    return LlamaConfig(**options, **_NO_TOKENS, rope_parameters={"rope_type": "default", "rope_theta": theta})


def random_llama(shape: str, place: Place) -> PreTrainedModel:
    """A Llama in bfloat16, made on the device itself: nothing is read, and nothing copied."""
    torch.manual_seed(0)
    with torch.device(place.device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(llama_config(shape, place), dtype=torch.bfloat16)
    return model.eval()


def in_four_bits(model: PreTrainedModel) -> PreTrainedModel:
    """Quantize linear layers but the head where they are, as transformers does while it loads; changes the model."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or module is head:
            continue
        layer = Linear4bit(
            module.in_features, module.out_features, bias=False, compute_dtype=model.dtype, quant_type="nf4",
            device="meta",
        )  # fmt: skip
        weight = Params4bit(module.weight.data, requires_grad=False, quant_type="nf4", module=layer)
        layer.weight = weight.to(module.weight.device)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer)
    model.is_loaded_in_4bit = True  # PEFT asks for it
    return model


def random_rows(
    num_rows: int, mean_length: int, vocab_size: int, *, num_shared: int = 0, seed: int = 0
) -> list[TokenRow]:
    """Rows of random tokens, of lengths from half the mean to one and a half times; the second half is learned.

    Args:
        num_rows: Rows.
        mean_length: Tokens of a row in the mean, and exactly so over all of them.
        vocab_size: Of the base model; the first tokens are left to those with a meaning.
        num_shared: First tokens that all rows have in common.
        seed: Of tokens and lengths.
    """
    chance = np.random.default_rng([seed, num_rows, mean_length])
    halves = chance.integers(mean_length // 2, mean_length + mean_length // 2 + 1, size=(num_rows + 1) // 2)
    lengths = [int(length) for half in halves for length in (half, 2 * mean_length - half)][:num_rows]
    shared = chance.integers(3, vocab_size, size=num_shared).tolist()
    rows = []
    for length in lengths:
        ids = [*shared, *chance.integers(3, vocab_size, size=max(length - num_shared, 8)).tolist()]
        rows.append(TokenRow(ids, [-100] * (len(ids) // 2) + ids[len(ids) // 2 :]))
    return rows


@contextmanager
def restored_modules() -> Iterator[None]:
    """Give transformers' modules their own functions back, which Liger's stand in for once they are used.

    They would compute with Triton for every later model of the process, also one on the CPU.
    """
    import transformers.models.gemma2.modeling_gemma2 as gemma2
    import transformers.models.llama.modeling_llama as llama
    import transformers.models.mistral.modeling_mistral as mistral

    before = [(vars(module), dict(vars(module))) for module in (gemma2, llama, mistral)]
    try:
        yield
    finally:
        for names, own in before:
            names.update(own)


@contextmanager
def exact_products() -> Iterator[None]:
    """Have float32 products be float32, not TensorFloat-32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def save_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write a tokenizer that has a token for each byte, and as many more as the base model has.

    A prompt of ASCII text has as many tokens as characters.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"w{number}" for number in range(len(names), vocab_size)]
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names[:vocab_size])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    fast.chat_template = (
        "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    fast.save_pretrained(folder)


def load_tokenizer(folder: Path) -> Any:
    """What `save_tokenizer` wrote."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def save_to_hub_cache(model: PreTrainedModel, model_id: str, place: Place) -> Path:
    """Write a model with a tokenizer to where the hub's cache keeps models; gives the folder of its files."""
    commit = "0" * 40
    repository = place.scratch / "hub" / "hub" / f"models--{model_id.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    model.save_pretrained(folder)
    save_tokenizer(folder, model.config.vocab_size)
    return folder


def random_adapter(folder: Path, model_id: str, config: LlamaConfig, *, seed: int, r: int = 16) -> None:
    """Write an adapter over all linear layers in PEFT's format, without making a model for it."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(r=r, lora_alpha=2 * r, target_modules=names, task_type="CAUSAL_LM", inference_mode=True)
    lora.base_model_name_or_path = model_id
    lora.save_pretrained(str(folder))
    chance = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for name, (out_size, in_size) in _linear_shapes(config).items():
        a = torch.randn((r, in_size), generator=chance) / in_size**0.5
        b = torch.randn((out_size, r), generator=chance) * 0.01
        weights |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _linear_shapes(config: LlamaConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of the linear layers by name."""
    hidden, inner = config.hidden_size, config.intermediate_size
    size = config.head_dim or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
    shapes = {
        "self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }  # fmt: skip
    layers = range(config.num_hidden_layers)
    return {f"model.layers.{layer}.{name}": shape for layer in layers for name, shape in shapes.items()}


def ascii_prompts(num_prompts: int, num_tokens: int, seed: int) -> list[str]:
    """Prompts of that many tokens for `save_tokenizer`'s tokenizer, without a beginning in common."""
    chance = np.random.default_rng([seed, num_prompts, num_tokens])
    return ["".join(map(chr, chance.integers(ord("a"), ord("z") + 1, size=num_tokens))) for _ in range(num_prompts)]
