"""Who samples tokens: the decoder on the policy's own weights, or vLLM.

    sampler          the protocol that rollouts use: requests in, completions out
    engine           the decoder; generation.py has its steps, slots.py the state of its rows
    open_generation  the same without an end: rows join and leave, for a server
    openai_server    OpenAI's protocol on it
    sampling         requests, completions, and the draw of a token
    turns            the end of a turn, and the continuation
    kv_cache         keys and values; shared_prompts.py has those of long prompts
    cuda_graphs      steps that are captured and replayed
    fallback         the model's own `generate`, for models that keep their own attention
    vllm             servers with a copy of the weights in the decoder's place

Left out: prompts as text, and how responses are judged (`rollouts/`).
"""
