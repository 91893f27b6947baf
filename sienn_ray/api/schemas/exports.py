"""Bodies about exports."""

from __future__ import annotations

from pydantic import Field

from sienn_ray.api.schemas.common import ResponseBody


class ExportFormat(ResponseBody):
    """One format that a fine-tuned model can be taken home in."""

    name: str = Field(description="What requests call it.", examples=["ollama"])
    description: str = Field(description="What it is.", examples=["Ollama Modelfile format for local deployment"])
    supported: bool = Field(description="Whether this server makes it.", examples=[False])
    parameters: list[str] = Field(
        description="Further fields of its request.", examples=[["model_name", "temperature", "top_p", "top_k"]]
    )
    note: str | None = Field(
        None,
        description="How to get it, or what is missing; left out where there is nothing to add.",
        examples=["GET /api/download-model/{job_id} gives it as a ZIP archive"],
    )


class ExportFormatList(ResponseBody):
    """All formats."""

    formats: list[ExportFormat] = Field(
        description="Every format, whether supported or not.",
        examples=[
            [
                {
                    "name": "huggingface",
                    "description": "HuggingFace format (adapter + tokenizer)",
                    "supported": True,
                    "parameters": [],
                }
            ]
        ],
    )
