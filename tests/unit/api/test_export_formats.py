from __future__ import annotations

from starlette.testclient import TestClient


def test_every_format_of_the_contract_is_listed(client: TestClient) -> None:
    formats = client.get("/api/export-formats").json()["formats"]
    assert [(entry["name"], entry["description"], entry["parameters"]) for entry in formats] == [
        (
            "ollama",
            "Ollama Modelfile format for local deployment",
            ["model_name", "temperature", "top_p", "top_k"],
        ),
        ("huggingface", "HuggingFace format (adapter + tokenizer)", []),
        ("gguf", "GGUF quantized format for llama.cpp", ["quantization"]),
    ]


def test_only_what_is_made_counts_as_supported(client: TestClient) -> None:
    formats = {entry["name"]: entry for entry in client.get("/api/export-formats").json()["formats"]}
    assert {name: entry["supported"] for name, entry in formats.items()} == {
        "ollama": False,
        "huggingface": True,
        "gguf": False,
    }
    assert all("/api/download-model/{job_id}" in entry["note"] for entry in formats.values())


def test_the_route_that_notes_name_exists(client: TestClient) -> None:
    assert "/api/download-model/{job_id}" in client.get("/openapi.json").json()["paths"]
