"""Losses over packed rows.

packing: tokenized rows as batches without padding.
packed_attention: attention over packed rows.
objectives: the losses: completions, or preferences.
scoring: scores of a batch's tokens by the base model.
token_log_probs: log-probabilities from hidden states, a few at a time.
"""
