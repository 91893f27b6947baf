"""The training loop and the engine on a machine that has neither Ray nor what the service around them needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.tiny_model import TINY_ID, add_to_hub_cache

# None is Python's way to say that an import is to fail.
_WITHOUT = (
    "import sys\nfor name in ('ray', 'sqlalchemy', 'alembic', 'fastapi', 'ijson'):\n    sys.modules[name] = None\n"
)
_TRAIN = f"""{_WITHOUT}
from pathlib import Path
from tests.unit.training.training import Trainee, config_of

run = Trainee(Path(sys.argv[1]), Path(sys.argv[2]) / "checkpoints", config_of(num_epochs=1))
run.train()
assert len(run.losses) == 3, run.losses
"""
_SERVE = f"""{_WITHOUT}
from pathlib import Path
from sienn_ray.inference.batching.engine import BatchingEngine
from sienn_ray.settings import Settings
from tests.unit.inference.asking import GREEDY, Listener

settings = Settings(env="test", home=Path(sys.argv[2]), engine_num_cpus=1, engine_kv_cache_bytes=16 << 20)
engine, listener = BatchingEngine("{TINY_ID}", settings), Listener()
engine.submit(GREEDY, listener)
assert listener.wait().result.num_generated_tokens == 12
engine.close()
"""


def _run(program: str, model_folder: Path, tmp_path: Path) -> None:
    hub_home = tmp_path / "hub-home"
    add_to_hub_cache(model_folder, hub_home, TINY_ID)
    run = subprocess.run(
        [sys.executable, "-c", program, str(model_folder), str(tmp_path)],
        env={**os.environ, "HF_HOME": str(hub_home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_a_run_needs_neither_ray_nor_a_database(tiny_model_folder: Path, tmp_path: Path) -> None:
    _run(_TRAIN, tiny_model_folder, tmp_path)


def test_an_engine_needs_neither_ray_nor_a_database(tiny_model_folder: Path, tmp_path: Path) -> None:
    _run(_SERVE, tiny_model_folder, tmp_path)
