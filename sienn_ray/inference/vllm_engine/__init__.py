"""vLLM as an engine.

refusals: adapters that vLLM can't serve; without torch and vLLM.
versions: the installed vLLM, and whether it is new enough; without importing it.
engine: the engine itself.
"""
