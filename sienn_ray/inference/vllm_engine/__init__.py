"""vLLM as an engine.

refusals: adapters that vLLM can't serve; without torch and vLLM.
versions: the installed vLLM, and whether it is new enough; without importing it.
engine: the engine itself.
batch: requests that vLLM computes, and those that wait.
core: vLLM's `AsyncLLM` on a thread of its own.
loras: adapters that vLLM has in memory.
lora_places: how many of them share a batch.
lora_files: their files, none of which is left behind.
processes: the processes of a core, none of which is left behind.
watchdog: a program that ends them when their parent has died.
arguments: what vLLM is started with.
sampling: sampling parameters to vLLM, and tokens from it.
base_facts: a base model's configuration and shapes, without its weights.
"""
