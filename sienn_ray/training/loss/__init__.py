"""Losses over packed rows.

packing: tokenized rows as batches without padding.
row_tree: what rows begin with in common.
batches: batches, and their way to a device.
packed_attention: attention over packed rows, one after another.
varlen_attention: the same by one kernel for all rows, on GPUs.
examples: rows that a loss takes together, and sums over them.
objectives: the losses: completions, or preferences.
pair_losses: losses over a chosen and a rejected answer (DPO, IPO, ORPO, SimPO).
unpaired: the loss over labelled answers (KTO).
mismatched: prompts with answers to others, for KTO's baseline.
reference: the model that a run starts from.
scoring: scores of a batch's tokens by the base model.
token_log_probs: log-probabilities from hidden states, a few at a time.
"""
