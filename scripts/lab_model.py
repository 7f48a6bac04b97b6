"""The small model of `docs/lab/step-values.md`: adds two numbers, half of the time digit by digit,
half of the time at a guess.

    python scripts/lab_model.py [DIRECTORY]

One and a half minutes on a core. The model is kept in the repository (docs/lab/adder, 0.6 MB), not
made anew for the page: trained on another processor it would be another model. Left out: the page
(`lab_docs.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import logpi
from logpi.envs.tasks import Addition
from logpi.policies.small import small_policy


def main(directory: Path) -> None:
    model = small_policy(Addition().alphabet, width=64, layers=3, context=48)
    with TemporaryDirectory() as home:
        job = logpi.SFT(
            model=model,
            task="addition(worked=0.5)",
            steps=800,
            rows=96,
            lr=4e-3,
            warmup=20,
            out=Path(home) / "sft",
        )
        job.run()
        job.result.policy.save(directory)
    (directory / "README.md").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/lab/adder"))
