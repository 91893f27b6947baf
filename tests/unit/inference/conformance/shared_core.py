"""One core of vLLM for engines of many tests."""

from __future__ import annotations

import gc

from sienn_ray.base_model import local_folder
from sienn_ray.inference.engine import Engine
from sienn_ray.inference.vllm_engine.core import Core
from sienn_ray.inference.vllm_engine.engine import VllmEngine
from sienn_ray.settings import Settings


class SharedCore:
    """Starts a core for the first engine; the others have weights of the same shape, and get the same one."""

    def __init__(self) -> None:
        self._core: Core | None = None

    def engine(self, base_model: str, settings: Settings) -> Engine:
        """An engine on the shared core, which is started anew if a test has ended it."""
        local_folder(base_model, settings)  # a base model that isn't here is told before
        if self._core is None or self._core.failure is not None:
            self.close()
            self._core = VllmEngine(base_model, settings).core
        return VllmEngine(base_model, settings, core=self._core)

    def tidy(self) -> None:
        """Clear a core away that a test has ended, so that what it leaves open is no other test's warning."""
        if self._core is not None and self._core.failure is not None:
            self.close()
            gc.collect()

    def close(self) -> None:
        """End the core, if one was started."""
        if self._core is not None:
            self._core.close()
            self._core = None
