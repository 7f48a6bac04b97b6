"""A server that speaks OpenAI's protocol, with vLLM's extensions for tokens, on our own decoder.

    app          HTTP: routes, limits, the key, streams of events
    fields       what a request may say, and what is refused
    prompts      texts and messages as token ids, and back
    scheduler    one thread that samples for all requests, and changes the weights
    texts        text from tokens as they come; stop strings
    scores       log-probabilities of prompts (`echo`)
    turns        an answer's text and its tool calls, also while it is written
    completions, chat    the JSON of the two routes

Left out: where weights come from (`commands/serve.py`), other engines, TLS, more than one model.
"""
