"""Who samples tokens: the decoder on the policy's own weights, its KV cache, and its turns with
environments.

Import the module of the one you need. Left out: what is asked and how responses are judged
(`rollouts/`).
"""
