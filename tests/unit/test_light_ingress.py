from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys
import deployments.ingress
print(json.dumps([name for name in ("torch", "transformers", "ray.data", "peft") if name in sys.modules]))
"""


def test_ingress_brings_neither_ray_data_nor_tokenizers_along() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []
