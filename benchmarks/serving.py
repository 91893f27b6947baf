"""Serving beside transformers, PEFT, vLLM and llama.cpp: tokens a second, and how long each waits for them.

All have the same base model (SmolLM2-135M-Instruct), the same random adapters (r 16, all seven projections), prompts
(32 to 512 tokens, no two with a beginning in common) and CPUs, and answer each with 64 tokens, the likeliest ones. They
run one after the other, in rounds; medians are printed. Clients are as many as there are concurrent requests, and each
sends its next request when its last one is answered. Loading isn't measured: every adapter is used before.

    python benchmarks/serving.py [--rounds 3]             # 16 requests at a time over 8 adapters
    python benchmarks/serving.py --full                   # 1 to 64 requests over 0 to 64 adapters: takes hours
    python benchmarks/serving.py --concurrency 1 16 --adapters 0 64 --peers vllm vllm-bf16 --skip-http

- transformers: `generate` with PEFT, one request at a time, so it is measured with one client whatever the setting is:
  more would wait for each other.
- peft-batch: `generate` with PEFT's `adapter_names`, static batches of 16.
- vllm: its CPU build; its engine in its process, and (http) its OpenAI server. It compiles the model, and vllm-eager
  doesn't, as the engine of our service on a CPU.
- llamacpp: its server, through HTTP, on the same weights in several types; adapters by request, which it answers in
  batches of one adapter each. `--llamacpp wheel` takes the server of a ready wheel, built for any CPU with AVX2,
  instead of building one for this CPU.
- ours: the engine in its process, and (http) the whole service, which streams; with `--whole-answers` (http-whole) also
  asked for answers in one piece, of which only the tokens a second say something: their first token is their last.
- ours-on-vllm-http: the whole service over vLLM's engine (`--on-vllm`), in the environment that `make test-vllm` makes:

    python benchmarks/serving.py --on-vllm --own --requests 16 --peers vllm vllm-eager --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "own"), str(HERE / "peers")]

from environment import peers_python
from serving_environments import llama_server, llamacpp_python, replica_python, vllm_python, vllm_variables
from serving_load import Load, Work
from serving_material import LORA_R, Material

MAX_NEW_TOKENS = 64
REQUESTS = {1: 4, 4: 12, 16: 48, 64: 96}  # by concurrency
TIMEOUT_S = 3600
STATIC_BATCH = 16
DEFAULT = "default"  # our settings as they are
LLAMACPP_WEIGHTS = ("f32", "bf16", "q8_0", "q4_1")


@dataclass(frozen=True)
class Contender:
    """Something that answers.

    Args:
        name: In the tables.
        command: Its runner, without what all runners take.
        variables: Of its environment.
        one_at_a_time: It is measured with a single client.
        is_ours: It is one of ours.
    """

    name: str
    command: Callable[[], list[str]]
    variables: Callable[[], dict[str, str]] = dict
    one_at_a_time: bool = False
    is_ours: bool = False


@dataclass
class Measured:
    """The rounds of one contender in one setting."""

    loads: list[dict[str, Any]] = field(default_factory=list)

    def median(self, name: str, part: str | None = None) -> float:
        return float(statistics.median(load[name][part] if part else load[name] for load in self.loads))

    @property
    def cpu_share(self) -> float:
        """Of the threads' seconds in all rounds, so that a long one weighs more."""
        return float(sum(load["cpu_s"] for load in self.loads) / sum(load["thread_s"] for load in self.loads))


Table = dict[str, Measured]


@dataclass
class Results:
    """Everything that was measured, by adapters and concurrency; and what couldn't be."""

    tables: dict[tuple[int, int], Table] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, contender: Contender, num_adapters: int, concurrency: int, load: dict[str, Any]) -> None:
        table = self.tables.setdefault((num_adapters, concurrency), {})
        table.setdefault(contender.name, Measured()).loads.append(load)
        setting = f"{num_adapters:2} adapters  {concurrency:2} concurrent"
        print(f"{setting}  {words(contender.name, Measured([load]))}", flush=True)

    def write(self, path: Path) -> None:
        measured = [
            {"adapters": num_adapters, "concurrency": concurrency, "name": name, "rounds": measured.loads}
            for (num_adapters, concurrency), table in self.tables.items()
            for name, measured in table.items()
        ]
        content = {"facts": self.facts, "measured": measured, "failures": self.failures}
        path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    options = parse_options()
    material = Material(HERE.parent / ".bench" / "serving", Path(options.models))
    contenders = chosen_contenders(options)
    print("preparing adapters and weights", flush=True)
    weights = {weights for weights in LLAMACPP_WEIGHTS if f"llamacpp-{weights}" in options.peers}
    material.prepare(max(options.adapters), weights)
    results = Results()
    for num_adapters in options.adapters:
        for number in range(options.rounds):
            print(f"round {number + 1}", flush=True)
            for contender in contenders:
                measure_one(contender, make_work(material, options, num_adapters, number, contender), options, results)
    report(results, contenders)
    if options.output:
        results.write(options.output)
    if results.failures:
        sys.exit("\n".join(["", "what failed:", *results.failures]))


def measure_one(contender: Contender, work: Work, options: argparse.Namespace, results: Results) -> None:
    """Measure one contender, or note why that failed: the others are worth measuring nevertheless."""
    num_adapters = len(work.adapters)
    try:
        result = run(contender, work)
    except (RuntimeError, subprocess.SubprocessError) as error:
        results.failures.append(f"{contender.name} with {num_adapters} adapters: {error}")
        print(results.failures[-1], flush=True)
        return
    results.facts[contender.name] = result["facts"]
    for concurrency, load in spread(contender, result["loads"], options.concurrency):
        results.add(contender, num_adapters, concurrency, load)


def chosen_contenders(options: argparse.Namespace) -> list[Contender]:
    """Ours first, then the peers."""
    found = own_contenders("serving_engine.py", options.own, "")
    if not options.skip_http:
        found += own_contenders("serving_service.py", options.own, "-http")
    if options.whole_answers and not options.skip_http:
        found += own_contenders("serving_service.py", options.own, "-http-whole", "--whole", "yes")
    if options.on_vllm:
        found.append(service_on_vllm(options.threads, "-http"))
    if options.on_vllm and options.whole_answers:
        found.append(service_on_vllm(options.threads, "-http-whole", "--whole", "yes"))
    peers = [each for each in all_peers(options) if each.name in options.peers]
    return found + [each for each in peers if not (options.skip_http and each.name.endswith("-http"))]


def own_contenders(script: str, own: dict[str, str], ending: str, *further: str) -> list[Contender]:
    def command(chosen: str) -> Callable[[], list[str]]:
        return lambda: [sys.executable, str(HERE / "own" / script), "--settings", chosen, *further]

    return [
        Contender(f"ours{ending}" if name == DEFAULT else f"ours-{name}{ending}", command(chosen), is_ours=True)
        for name, chosen in own.items()
    ]


def service_on_vllm(num_threads: int, ending: str, *further: str) -> Contender:
    """Our service, whose engine is started as vLLM itself is: with room for adapters of the rank that there is."""

    def command() -> list[str]:
        settings = {
            "engine": "vllm",
            "engine_python": str(replica_python()),
            "engine_num_cpus": num_threads,
            "engine_max_lora_rank": LORA_R,
        }
        return [sys.executable, str(HERE / "own" / "serving_service.py"), "--settings", json.dumps(settings), *further]

    def variables() -> dict[str, str]:
        return vllm_variables(replica_python(), num_threads)

    return Contender(f"ours-on-vllm{ending}", command, variables, is_ours=True)


def all_peers(options: argparse.Namespace) -> list[Contender]:
    return [*transformers_peers(), *vllm_peers(options.threads), *llamacpp_peers(options.llamacpp)]


def transformers_peers() -> list[Contender]:
    def command(batch: int, precision: str) -> Callable[[], list[str]]:
        script = str(HERE / "peers" / "serving_transformers.py")
        return lambda: [str(peers_python()), script, "--batch", str(batch), "--precision", precision]

    return [
        Contender("transformers", command(1, "float32"), one_at_a_time=True),
        Contender("transformers-bf16", command(1, "bfloat16"), one_at_a_time=True),
        Contender("peft-batch", command(STATIC_BATCH, "float32")),
        Contender("peft-batch-bf16", command(STATIC_BATCH, "bfloat16")),
    ]


def vllm_peers(num_threads: int) -> list[Contender]:
    def command(through: str, precision: str, *further: str) -> Callable[[], list[str]]:
        script = str(HERE / "peers" / "serving_vllm.py")
        return lambda: [str(vllm_python()), script, "--through", through, "--precision", precision, *further]

    def variables() -> dict[str, str]:
        return vllm_variables(vllm_python(), num_threads)

    return [
        Contender("vllm", command("engine", "float32"), variables),
        Contender("vllm-eager", command("engine", "float32", "--eager", "yes"), variables),
        Contender("vllm-bf16", command("engine", "bfloat16"), variables),
        Contender("vllm-http", command("http", "float32"), variables),
        Contender("vllm-bf16-http", command("http", "bfloat16"), variables),
    ]


def llamacpp_peers(build: str) -> list[Contender]:
    def command(weights: str) -> Callable[[], list[str]]:
        script = str(HERE / "peers" / "serving_llamacpp.py")
        if build == "wheel":
            return lambda: [str(llamacpp_python()), script, "--weights", weights]
        return lambda: [sys.executable, script, "--weights", weights, "--binary", str(llama_server())]

    return [Contender(f"llamacpp-{weights}", command(weights)) for weights in LLAMACPP_WEIGHTS]


def make_work(
    material: Material, options: argparse.Namespace, num_adapters: int, number: int, contender: Contender
) -> Work:
    """The same for all, but for those that are measured with one client."""
    concurrencies = [1] if contender.one_at_a_time else options.concurrency
    return Work(
        model_folder=str(material.model_folder),
        gguf={weights: str(material.gguf(weights)) for weights in LLAMACPP_WEIGHTS},
        adapters=[str(material.adapter(adapter)) for adapter in range(num_adapters)],
        gguf_adapters=[str(material.gguf_adapter(adapter)) for adapter in range(num_adapters)],
        num_threads=options.threads,
        warm_up=material.warm_up(num_adapters),
        loads=[make_load(material, options, concurrency, num_adapters, number) for concurrency in concurrencies],
        home=str(material.folder),
    )


def make_load(
    material: Material, options: argparse.Namespace, concurrency: int, num_adapters: int, number: int
) -> Load:
    num_requests = options.requests or REQUESTS.get(concurrency, 2 * concurrency)
    return material.load(concurrency, num_requests, num_adapters, seed=number, max_new_tokens=MAX_NEW_TOKENS)


def run(contender: Contender, work: Work) -> dict[str, Any]:
    """Run a runner in a process of its own.

    Raises:
        RuntimeError: It failed; the message has the end of what it said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        asked, output, log = (Path(scratch) / name for name in ("work.json", "out.json", "log"))
        work.write(asked)
        with log.open("w") as said:
            ended = subprocess.run(
                [*contender.command(), "--work", str(asked), "--output", str(output)],
                check=False,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", **contender.variables()},
                timeout=TIMEOUT_S,
            )
        if ended.returncode:
            raise RuntimeError(f"exit code {ended.returncode}\n{log.read_text(errors='replace')[-3000:]}")
        result: dict[str, Any] = json.loads(output.read_text())
        return result


def spread(
    contender: Contender, loads: Sequence[dict[str, Any]], concurrencies: Sequence[int]
) -> list[tuple[int, dict[str, Any]]]:
    """Loads by setting: what answers one request at a time has the same in each."""
    if contender.one_at_a_time:
        return [(concurrency, loads[0]) for concurrency in concurrencies]
    return [(load["concurrency"], load) for load in loads]


def words(name: str, measured: Measured) -> str:
    first, each = ((measured.median(kind, "p50"), measured.median(kind, "p95")) for kind in ("first_s", "each_s"))
    return (
        f"{name:18} {measured.median('tokens_per_s'):7.1f} tokens/s  first token {first[0]:7.2f} {first[1]:7.2f} s"
        f"  each further {each[0] * 1000:6.0f} {each[1] * 1000:6.0f} ms  CPU {measured.cpu_share:4.0%}"
        f"  {measured.median('num_tokens'):.0f} tokens"
    )


def report(results: Results, contenders: Sequence[Contender]) -> None:
    """Print medians for each setting, and ratios of ours to the peers."""
    alone = {each.name for each in contenders if each.one_at_a_time}
    own = [each.name for each in contenders if each.is_ours]
    for (num_adapters, concurrency), table in sorted(results.tables.items()):
        num_rounds = max(len(measured.loads) for measured in table.values())
        print(
            f"\n{num_adapters} adapters, {concurrency} concurrent requests; medians of {num_rounds} rounds, p50 and p95"
        )
        for name, measured in table.items():
            print(f"{words(name, measured)}{'  (one at a time)' if name in alone else ''}")
        report_same_answers(table, alone)
        for ours in (name for name in own if name in table):
            for peer in (name for name in table if name not in own):
                print(f"{ours:18} / {peer:18} {ratios(table[ours], table[peer])}")
    print("\nwhat answered:")
    for name, said in results.facts.items():
        print(f"{name:18} {json.dumps(said)}")


def ratios(ours: Measured, peer: Measured) -> str:
    speed = ours.median("tokens_per_s") / peer.median("tokens_per_s")
    first = ours.median("first_s", "p50") / peer.median("first_s", "p50")
    each = ours.median("each_s", "p50") / peer.median("each_s", "p50")
    return f"{speed:6.2f} x tokens/s  {first:6.2f} x time to first token  {each:6.2f} x time per further token"


def report_same_answers(table: Table, alone: set[str]) -> None:
    """Print how many answers begin as another's do. Most must: it is the sign that all compute the same thing.

    Rounding differs, so that texts part sooner or later; a wrong adapter parts at the first word.
    """
    texts = {name: measured.loads[0]["texts"] for name, measured in table.items() if name not in alone}
    reference = next((name for name in ("peft-batch", "vllm", "ours") if name in texts), None)
    if reference is None:
        return
    for name in (name for name in texts if name != reference):
        pairs = list(zip(texts[name], texts[reference], strict=True))
        num_same = sum(one.strip()[:16] == other.strip()[:16] for one, other in pairs)
        num_equal = sum(one.strip() == other.strip() for one, other in pairs)
        print(f"{name:18} begins as {reference} does in {num_same} of {len(pairs)} answers, is equal in {num_equal}")


def named_settings(text: str) -> tuple[str, str]:
    """`NAME={...}`: settings of ours, under a name for the tables."""
    name, _, chosen = text.partition("=")
    json.loads(chosen or "{}")
    return name, chosen or "{}"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [each.name for each in all_peers(argparse.Namespace(threads=2, llamacpp="native"))]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16])
    parser.add_argument("--adapters", type=int, nargs="+", default=[8])
    parser.add_argument("--requests", type=int, help="of each load, instead of two or more for each client")
    parser.add_argument("--own", nargs="*", type=named_settings, default=[(DEFAULT, "{}")], metavar="NAME=JSON")
    parser.add_argument("--peers", nargs="*", choices=names, default=names)
    parser.add_argument("--llamacpp", choices=("native", "wheel"), default="native")
    parser.add_argument("--skip-http", action="store_true", help="leave our service and vLLM's server out")
    parser.add_argument("--whole-answers", action="store_true", help="ask our service for such as aren't streamed, too")
    parser.add_argument("--on-vllm", action="store_true", help="our service over vLLM's engine, too")
    parser.add_argument("--full", action="store_true", help="1 to 64 requests at a time over 0 to 64 adapters")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--models", default=str(HERE.parent / ".bench" / "models"))
    parser.add_argument("--output", type=Path, help="write every round as JSON")
    options = parser.parse_args()
    options.own = dict(options.own)
    if options.full:
        options.concurrency, options.adapters = [1, 4, 16, 64], [0, 1, 8, 64]
    return options


if __name__ == "__main__":
    main()
