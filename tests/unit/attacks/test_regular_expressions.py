"""No regular expression of the service takes more than linear time, whatever it is given (ReDoS).

All of them are searched in hostile texts by one process, which the kernel ends once it has used up its CPU time: a
bound on work, not on the clock, so a slow machine makes no difference.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

# Far above what linear ones need together, far below what a quadratic one would take in texts of this length.
CPU_S = 20
_PROGRAM = textwrap.dedent(
    """
    import importlib, json, pkgutil, re, resource, sys
    import deployments, sienn_ray

    cpu_s, own = int(sys.argv[1]), json.loads(sys.argv[2])
    SKIPPED = ("migrations",)
    patterns = {f"own {pattern}": re.compile(pattern) for pattern in own}
    if not own:
        for package in (sienn_ray, deployments):
            for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                if any(word in found.name for word in SKIPPED) or found.name.endswith("__main__"):
                    continue
                module = importlib.import_module(found.name)
                for name, value in vars(module).items():
                    values = value if isinstance(value, (tuple, list)) else [value]
                    flat = [x for each in values for x in (each if isinstance(each, tuple) else [each])]
                    for number, each in enumerate(flat):
                        if isinstance(each, re.Pattern):
                            patterns[f"{found.name}.{name}.{number}"] = each
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (spent + cpu_s, spent + cpu_s))
    N = 30_000
    units = ["a", "A", "0", "-", ".", "/", " ", "\\t", "_", ":", "=", "@", "x.", "a-", "a/", "0.", "../"]
    units += ["http://a", "\\x1b[", "\\x1b]", "\\x1b[0", '"', "'", "<", "a, ", "; ", "a_", "é", "1/", "hf_", "AKIA"]
    units += ["{", "a:", "://", "[ ", "\\n", "<0x"]
    texts = [unit * (N // len(unit)) + end for unit in units for end in ("", "!", "\\n", "\\x00", "@")]
    # What is opened at the beginning, and never closed.
    inner = (" ", "a", "[", '\\\\"')
    texts += [begin + unit * (N // len(unit)) + "x" for begin in ('"', "[", "{", "<") for unit in inner]
    for name, pattern in patterns.items():
        print(name, flush=True)
        for text in texts:
            given = text.encode() if isinstance(pattern.pattern, bytes) else text
            pattern.search(given)
            pattern.match(given)
            pattern.fullmatch(given)
            pattern.sub(b"" if isinstance(given, bytes) else "", given)
    print("done", len(patterns))
    """
)


def run(*own: str) -> subprocess.CompletedProcess[str]:
    """Search all expressions of the service, or some others, in hostile texts."""
    command = [sys.executable, "-c", _PROGRAM, str(CPU_S if not own else 2), json.dumps(own)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_of_them_are_linear() -> None:
    result = run()
    lines = result.stdout.splitlines()
    assert result.returncode == 0, f"{lines[-1:]} takes too much time\n{result.stderr[-2000:]}"
    assert int(lines[-1].removeprefix("done ")) > 30


@pytest.mark.parametrize("evil", [r"(a+)+$", r"\s*\s*x", r"[\[{]\s*[\[{]?\s*'", r'"(?:[^"\\]|\\.)*"|[{}]'])
def test_one_that_is_not_would_be_found(evil: str) -> None:
    assert run(evil).returncode < 0  # ended by the kernel
