"""Tokens per second of our decoder beside the model's own `generate`: same weights, same prompts, as many tokens.

Runs are paired and interleaved, so a slow moment of the machine hits both. Every row samples exactly `--tokens` tokens
at temperature 1 (end tokens are switched off), `--group` rows share a prompt. Left out: ragged lengths, where rows that
end early make way for others and the decoder gains more.

    python benchmarks/engine.py                              # a built-in Llama of 0.8 M parameters
    python benchmarks/engine.py --model DIR --tokens 32 --batch 1 8 32
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import torch

from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.engine import Engine, Request, Sampling


def small_model():
    """A Llama of 0.8 M parameters: d 128, 4 layers, 4 query heads on 2 key heads, 48 characters."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=48,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    core = Tokenizer(models.BPE(vocab={chr(48 + i): i for i in range(48)}, merges=[]))
    return LlamaForCausalLM(config).eval(), PreTrainedTokenizerFast(tokenizer_object=core)


def load(path: str | None) -> CausalLM:
    """The policy to measure, its end tokens switched off."""
    policy = CausalLM(*small_model()) if path is None else CausalLM.load(path)
    policy.tokenizer.eos_token = None
    policy.model.generation_config.eos_token_id = None
    policy.model.generation_config.pad_token_id = 0
    return policy


def ours(policy: CausalLM, engine: Engine, prompts: torch.Tensor, group: int, tokens: int) -> int:
    requests = [Request(p.tolist(), n=group) for p in prompts]
    done = engine.generate(requests, Sampling(max_tokens=tokens), torch.Generator().manual_seed(1))
    return sum(len(c.tokens) for row in done for c in row)


def theirs(policy: CausalLM, prompts: torch.Tensor, group: int, tokens: int) -> int:
    ids = prompts.repeat_interleave(group, 0)
    options = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=tokens)
    with policy.plain_attention(), torch.inference_mode():
        out = policy.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return out[:, ids.shape[1] :].numel()


def timed(f, *args) -> float:
    """Tokens per second."""
    begin = time.perf_counter()
    tokens = f(*args)
    return tokens / (time.perf_counter() - begin)


def compare(policy: CausalLM, batch: int, options: argparse.Namespace) -> dict:
    group = min(options.group, batch)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(policy.vocabulary, (batch // group, options.prompt), generator=generator)
    engine = Engine(policy, slots=batch)
    a = (ours, policy, engine, prompts, group, options.tokens)
    b = (theirs, policy, prompts, group, options.tokens)
    timed(*a), timed(*b)  # warm up
    pairs = [(timed(*a), timed(*b)) for _ in range(options.repeats)]
    ratios = sorted(x / y for x, y in pairs)
    return {
        "batch": batch,
        "engine_tokens_per_s": statistics.median(x for x, _ in pairs),
        "generate_tokens_per_s": statistics.median(y for _, y in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory, hub name or .gguf file (default: a built-in small model)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 128], help="rows (default: 1 32 128)")
    parser.add_argument("--prompt", type=int, default=24, help="tokens of a prompt (default: 24)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens sampled for each row (default: 64)")
    parser.add_argument("--group", type=int, default=8, help="rows that share a prompt (default: 8)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved pairs (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    policy = load(options.model)
    print(f" batch  engine tok/s  generate tok/s  ratio  (least to most of {options.repeats} pairs)")
    results = []
    for batch in options.batch:
        row = compare(policy, batch, options)
        results.append(row)
        figures = f"{row['engine_tokens_per_s']:13,.0f} {row['generate_tokens_per_s']:15,.0f} {row['ratio']:6.2f}"
        print(f"{batch:6} {figures}  ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
