"""LoRA fine-tuning of language models as a service, on Ray."""

__version__ = "0.2.0"
