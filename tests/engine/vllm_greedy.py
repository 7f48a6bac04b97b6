"""What vLLM says greedily after prompts, of a model directory; run by vLLM's own interpreter:

    python vllm_greedy.py DIR '{"ids": [[1, 5]], "texts": ["1+2="], "tokens": 8}'

Prints one line, `RESULT {"tokens": of ids, "read": ids of texts}`.
"""

import json
import sys


def main() -> None:
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    asked = json.loads(sys.argv[2])
    llm = LLM(
        sys.argv[1],
        dtype="float32",
        enforce_eager=True,
        generation_config="vllm",
        max_num_seqs=8,
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=asked["tokens"], detokenize=False)
    prompts = [{"prompt_token_ids": ids} for ids in asked["ids"]]
    done = llm.generate(prompts, sampling, use_tqdm=False)
    tokenizer = llm.get_tokenizer()
    result = {
        "tokens": [list(d.outputs[0].token_ids) for d in done],
        "read": [tokenizer(text)["input_ids"] for text in asked["texts"]],
    }
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
