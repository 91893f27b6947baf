from __future__ import annotations

import pytest

from sienn_ray.errors import EngineError
from sienn_ray.inference.vllm_engine.versions import check_version


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1rc2", "0.33.0+cu130"])
def test_versions_that_were_read_are_taken(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["0.29.0", "0.31.9", "0.34.0", "1.0.0"])
def test_others_are_refused_with_what_is_supported(version: str) -> None:
    with pytest.raises(EngineError, match=rf"vLLM {version} is installed, and versions 0\.32 to 0\.33 are supported"):
        check_version(version)


def test_one_that_is_not_there_is_told() -> None:
    with pytest.raises(EngineError, match=r"isn't installed for this Python; .*SIENN_ENGINE=builtin"):
        check_version(None)
