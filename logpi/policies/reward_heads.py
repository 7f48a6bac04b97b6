"""The head of a reward model among a checkpoint's weights, whoever saved it.

    score.weight [labels, d]                  transformers' sequence classifiers
    score.weight, score.bias                  its token classifiers (verl)
    classifier.weight, .bias                  those of some families
    value_head.weight, reward_head.weight     OpenRLHF; config.json may have a mean and deviation
    v_head.summary.weight, .bias              TRL's AutoModelForCausalLMWithValueHead

Left out: heads of several layers, whose activations are in nobody's files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from logpi.policies import files
from logpi.policies.hub import check_model

NAMES = ("score", "value_head", "v_head", "reward_head", "regression_head", "classifier")
PLACE = re.compile(
    rf"(?:(?:model|module|base_model|pretrained_model)\.)*({'|'.join(NAMES)})(?:\.(.+))?\.(weight|bias)"
)
ONE_LAYER = (None, "summary", "linear", "out_proj", "dense")


@dataclass(frozen=True)
class RewardHead:
    """r = W h + b.

    Attributes:
        weight: W [labels, d]. bias: b [labels], or None. pools: the checkpoint is a sequence
            classifier, which scores a row in its last token that is not padding; others score it in
            its last token.
    """

    weight: Tensor
    bias: Tensor | None
    pools: bool

    @property
    def labels(self) -> int:
        return self.weight.shape[0]

    def put_on(self, model: Any) -> None:
        """Make it the `score` of a sequence classifier with as many labels. Raises ValueError: of
        another width, or not numbers."""
        like = model.score.weight
        if self.weight.shape != like.shape:
            raise ValueError(
                f"its head has shape {tuple(self.weight.shape)}, the model's states want"
                f" {tuple(like.shape)}"
            )
        made = nn.Linear(
            like.shape[1],
            like.shape[0],
            bias=self.bias is not None,
            device=like.device,
            dtype=like.dtype,
        )
        with torch.no_grad():
            for mine, read in ((made.weight, self.weight), (made.bias, self.bias)):
                if read is not None:
                    if not bool(read.isfinite().all()):
                        raise ValueError("its head holds NaN or infinite numbers")
                    mine.copy_(read)
        model.score = made


def head_of(path: str | Path) -> RewardHead | None:
    """The head in the weights at `path`, a directory or a name on the hub; None if there is none.

    Raises:
        ValueError: one line: no weights there, or a head that is no linear layer.
    """
    from safetensors import safe_open

    directory = _directory(path)
    if directory is None:
        return None
    found: dict[tuple[str, str | None], dict[str, Tensor]] = {}
    for shard in files.shards(directory):
        with safe_open(directory / shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if place := PLACE.fullmatch(name):
                    found.setdefault((place[1], place[2]), {})[place[3]] = file.get_tensor(name)
    heads = sorted((k for k in found if "weight" in found[k]), key=lambda k: NAMES.index(k[0]))
    if not heads:
        return None
    mine = [k for k in heads if k[0] == heads[0][0]]
    if len(mine) > 1 or mine[0][1] not in ONE_LAYER or found[mine[0]]["weight"].dim() > 2:
        raise ValueError(f"its head {mine[0][0]!r} is no single linear layer, so it cannot be read")
    return _normalised(found[mine[0]], files.config(directory))


def _normalised(read: dict[str, Tensor], config: dict[str, Any]) -> RewardHead:
    """(W h + b − mean) / deviation is a head too."""
    weight, bias = read["weight"].float(), read.get("bias")
    weight = weight[None] if weight.dim() == 1 else weight
    bias = None if bias is None else bias.float().reshape(-1)
    if config.get("normalize_reward"):
        mean, deviation = float(config.get("mean", 0.0)), float(config.get("std", 1.0))
        bias = ((0.0 if bias is None else bias) - mean) / deviation * torch.ones(len(weight))
        weight = weight / deviation
    pools = any("SequenceClassification" in str(a) for a in config.get("architectures") or ())
    return RewardHead(weight, bias, pools)


def _directory(path: str | Path) -> Path | None:
    """Where the files are; of a name on the hub, where they were downloaded to."""
    local = Path(path).expanduser()
    if local.is_dir():
        files.weights(local)  # whole, before anything of them is read
        return local
    if local.exists():
        return None
    check_model(str(path))
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path), allow_patterns=["*.json", "model*.safetensors"]))
    except Exception:  # the reader of models says what is wrong with the name
        return None
