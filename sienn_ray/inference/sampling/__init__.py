"""The choice of each next token.

sampler: the next tokens of many requests.
penalties: penalties on tokens that were generated.
truncation: top-k, top-p and min-p.
candidates: the largest entries of long rows.
drawing: random draws from logits, reproducible for each request.
rounds: reads from the device, made together.
logprobs: log-probabilities as the model gave them.
"""
