"""The merged model as transformers and vLLM load it: safetensors shards, configuration, tokenizer and model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData

from sienn_ray import catalog
from sienn_ray.export.huggingface.safetensors_writer import Shard, shard_index, write_shard
from sienn_ray.export.sink import Write
from sienn_ray.export.weights.merged_weights import MergedWeights

# A run that was lost copies the shards that another has finished.
MAX_SHARD_BYTES = 2 * 10**9
INDEX_FILE = "model.safetensors.index.json"
CARD_FILE = "README.md"
# Of the base model, and of the adapter: its tokenizer has the chat template that the model was trained with.
_BASE_FILES = ("config.json", "generation_config.json", "LICENSE")
_ADAPTER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "training_run.json")


@dataclass(frozen=True)
class CardTexts:
    """Texts of the model card.

    Args:
        name: The model's name.
        base_model: Hub id.
        job_id: The fine-tune.
        license: The hub's id of the base model's licence, where it is known.
    """

    name: str
    base_model: str
    job_id: str
    license: str | None

    def card(self) -> str:
        """The model card, with metadata that the Hugging Face hub understands."""
        metadata = ModelCardData(
            base_model=self.base_model,
            base_model_relation="finetune",
            library_name="transformers",
            pipeline_tag="text-generation",
            tags=["lora", "merged"],
            license=self.license,
        )
        return (
            f"---\n{metadata.to_yaml()}\n---\n\n# {self.name}\n\n"
            f"`{self.base_model}`, fine-tuned with LoRA; the adapter is merged into the weights (in float32, rounded "
            "once to the base model's type), so nothing else is needed to run it.\n\n"
            "```python\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'folder = "."  # where this archive was unpacked\n'
            "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
            "model = AutoModelForCausalLM.from_pretrained(folder)\n"
            'messages = [{"role": "user", "content": "Hello! What can you help me with?"}]\n'
            "inputs = tokenizer.apply_chat_template(\n"
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n'
            ")\n"
            "answer = model.generate(**inputs, max_new_tokens=200)\n"
            'print(tokenizer.decode(answer[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))\n'
            "```\n\n"
            f"Fine-tune `{self.job_id}`; `training_run.json` has its data, hyperparameters, versions and results.\n"
        )


def model_texts(base_model: str, name: str, job_id: str) -> CardTexts:
    """The card's texts, with the licence where the catalog knows it."""
    entry = next((entry for entry in catalog.CATALOG if entry.id == base_model), None)
    return CardTexts(name, base_model, job_id, entry.license if entry else None)


def text_files(shards: list[Shard], base_folder: Path, adapter_folder: Path, texts: CardTexts) -> dict[str, bytes]:
    """All files of the merged model but its weights.

    Args:
        shards: How the weights are divided into files.
        base_folder: The base model's files.
        adapter_folder: The adapter's files.
        texts: See `CardTexts`.
    """
    files = {CARD_FILE: texts.card().encode()}
    for folder, names in ((base_folder, _BASE_FILES), (adapter_folder, _ADAPTER_FILES)):
        files.update({name: (folder / name).read_bytes() for name in names if (folder / name).is_file()})
    if len(shards) > 1:
        files[INDEX_FILE] = shard_index(shards)
    return files


def weight_files(weights: MergedWeights, shards: list[Shard]) -> dict[str, Write]:
    """Return a writer for each file of weights; progress is counted in bytes of tensors."""
    return {shard.file_name: _of_shard(shard, weights) for shard in shards}


def _of_shard(shard: Shard, weights: MergedWeights) -> Write:
    return lambda file: write_shard(file, shard, weights)
