"""vLLM as the sampler: a server, or several, in place of our own decoder.

    sampler      VLLMSampler: requests in, completions out, by the weights of the moment
    call         the rows of one call on their way through the servers: turns, retries
    rows         a row, and what the policy itself says of it
    server       one server: live or down, checked, and given the weights of the moment
    client       its routes over HTTP
    weights      how weights get there: files, NCCL, CUDA IPC
    launch       a server that lives and dies with the run; supervise.py kills all of it
    plugin       vLLM's side of weights by files

Left out: what is sampled for (`rollouts/`), and vLLM itself, which mostly has an environment of its
own.
"""
