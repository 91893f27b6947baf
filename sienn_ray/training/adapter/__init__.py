"""Adapters on a base model.

adapters: a LoRA adapter on a base model, and its optimizer.
start: the adapter that a run starts from.
start_checks: checks of whether it counts, and reads its rows, as the run will.
target_modules: modules that may have an adapter.
fused_lora: LoRA's linear layer as one autograd step.
half_lora: the same in half precision on GPUs, and copies of the adapter for it.
frozen_weight: weights of base layers, as they are or in 4 bits.
fused_nf4: the fused layer over weights in 4 bits.
"""
