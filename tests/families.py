"""Small tokenizers and models that behave like the families people use; templates and corpus are
our own, trained on the spot.

    family("gemma3")      (model, tokenizer): two layers of random weights, some 800 tokens
    tokenizer("gemma3")   the latter alone

What matters of each is in `FAMILIES`: how a text becomes tokens (byte-level BPE, or SentencePiece's
kind with or without a space in front), the end of a turn, what the tokenizer's own end and the
published generation config's ends are, and the template's manners.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.tiny import tiny_model

__all__ = ["FAMILIES", "Family", "family", "tokenizer"]

FILES = Path(__file__).parent / "data" / "templates"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CORPUS = (
    [
        f"What is {a}+{b}? It is {a + b}. The answer to {a} plus {b} is {a + b}, I think."
        for a in range(30)
        for b in (1, 2, 7, 12)
    ]
    + [
        "hello there, how are you? user assistant system tool think answer model",
        "def add(a: int, b: int) -> int:\n    return a + b\n",
    ]
    * 40
    + [
        '{"name": "add", "arguments": {"a": 1, "b": 2}}',
        "You are helpful. First, look at it; then say what it is.\n\nSo:\n",
        "user\nassistant\n\nsystem\n\nmodel\ntool\nthink\n\nIt is",
    ]
    * 40
)

# --- templates ---

LOOP, END = "{% for m in messages %}", "{% endfor %}"
ASK = "{%% if add_generation_prompt %%}{{ '%s' }}{%% endif %%}"
IM = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
CHATML = LOOP + IM + END + ASK % "<|im_start|>assistant\\n"
ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles"
    " must alternate user/assistant/…') }}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{%"
    " endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    + NO_SYSTEM
    + LOOP
    + ALTERNATE
    + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (m.content |"
    " trim) + '<end_of_turn>\\n' }}" + END + ASK % "<start_of_turn>model\\n"
)
LLAMA3 = (
    "{{ bos_token }}"
    + LOOP
    + "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + (m.content | trim) +"
    " '<|eot_id|>' }}" + END + ASK % "<|start_header_id|>assistant<|end_header_id|>\\n\\n"
)
MISTRAL = (
    "{{ bos_token }}"
    + LOOP
    + ALTERNATE
    + "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ m.content +"
    " eos_token }}{% endif %}" + END
)
LLAMA2 = (  # a system message stands in the first user's
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\\n' + messages[0].content +"
    " '\\n<</SYS>>\\n\\n' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{%"
    " endif %}"
    + LOOP
    + ALTERNATE
    + "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') +"
    " (m.content | trim) + ' [/INST]' }}{% else %}{{ ' ' + (m.content | trim) + ' ' + eos_token"
    " }}{% endif %}" + END
)
ZEPHYR = (
    LOOP
    + "{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}"
    + END
    + ASK % "<|assistant|>\\n"
)
PHI = (  # a text that asks for nothing ends with <|endoftext|>
    LOOP + "{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}" + END
    + "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)  # fmt: skip
GLM = (
    "[gMASK]<sop>"
    + LOOP
    + "{{ '<|' + m.role + '|>\\n' + m.content }}"
    + END
    + ASK % "<|assistant|>\\n"
)
R1 = (  # thoughts are dropped, and one is opened
    "{{ bos_token }}"
    + LOOP
    + "{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}{{ '<|User|>' +"
    " m.content }}{% else %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token }}{%"
    " endif %}" + END + ASK % "<|Assistant|><think>\\n"
)
THINKING = (FILES / "thinking.jinja").read_text()
QWEN3 = THINKING.replace(
    "{{- '<|im_start|>assistant\\n' -}}\n{%- endif -%}\n",
    "{{- '<|im_start|>assistant\\n' -}}\n{%- if enable_thinking is defined and enable_thinking is"
    " false -%}\n{{- '<think>\\n\\n</think>\\n\\n' -}}\n{%- endif -%}\n{%- endif -%}\n",
)
QWQ = THINKING.replace(
    "{{- '<|im_start|>assistant\\n' -}}\n{%- endif -%}\n",
    "{{- '<|im_start|>assistant\\n<think>\\n' -}}\n{%- endif -%}\n",
)
HERMES = (FILES / "hermes.jinja").read_text()
ITEMS = HERMES.replace(
    '\'\\n<tool_call>\\n{"name": "\' + call.name + \'", "arguments": \' + (call.arguments |'
    " tojson) + '}\\n</tool_call>' -}}",
    "'\\n<tool_call>\\n<function=' + call.name + '>\\n' -}}\n{%- for name, value in call.arguments"
    " | items -%}\n{{- '<parameter=' + name + '>\\n' + (value | string) + '\\n</parameter>\\n'"
    " -}}\n{%- endfor -%}\n{{- '</function>\\n</tool_call>' -}}",
)
assert QWEN3 != THINKING != QWQ and ITEMS != HERMES
MARKED = CHATML.replace("m.content +", "%").replace(
    "{{ '<|im_start|>' + m.role + '\\n' + % '<|im_end|>\\n' }}",
    "{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}{% generation %}{{"
    " m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}",
)
assert "{% generation %}" in MARKED

# --- tokenizers ---


@cache
def _byte_level(space: bool) -> Tokenizer:
    """Qwen, Llama 3, GPT-2, SmolLM2, DeepSeek, GLM: every byte has a token, and no text gets a
    space; RoBERTa's kind puts one before."""
    made = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(
        Regex(WORDS), "isolated"
    )  # line breaks join each other, and punctuation before them
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=space)
    made.pre_tokenizer = bytes_ if space else pre_tokenizers.Sequence([words, bytes_])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    return made


@cache
def _pieces(space: str, first: tuple[str, ...]) -> Tokenizer:
    """SentencePiece's kind, with bytes for what it does not know. space: `legacy` and `always`
    before every stretch of text between special tokens, `first` before a text, or `never`
    (Gemma)."""
    learner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    lines = pre_tokenizers.Split(Regex(r"\n+"), "isolated")
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), lines]
    )
    tokens = [*first, *(f"<0x{i:02X}>" for i in range(256))]
    learner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=750, special_tokens=tokens, show_progress=False)
    )
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(m) for m in learned["merges"]]
    made = Tokenizer(
        models.BPE(
            vocab=learned["vocab"],
            merges=merges,
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    spaces = [normalizers.Replace(" ", "▁")]
    if space in ("first", "always"):
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=space, split=False)
    else:
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), *spaces] if space == "legacy" else spaces
        )
    made.decoder = decoders.Sequence(
        back if space == "never" else [*back, decoders.Strip(content=" ", left=1, right=0)]
    )
    return made


@dataclass(frozen=True)
class Family:
    """One of them.

    Attributes:
        template: its chat template, or None. end: of an assistant's turn. eos, bos, pad: the
            tokenizer's. stops: the generation config's.
        special: further special tokens; added: tokens that are not special. space: of
            SentencePiece's kind (`_pieces`); "" is byte-level,
        and "bytes" with a space. begins: the tokenizer puts its BOS before a text. kind: of model.
        strips: special tokens swallow white space behind them. cleans: decoding "cleans up" spaces.
    """

    template: str | None
    end: str
    eos: str
    bos: str | None = None
    pad: str | None = None
    stops: tuple[str, ...] = ()
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    space: str = ""
    begins: bool = False
    kind: str = "llama"
    strips: bool = False
    cleans: bool = False

    def tokenizer(self):
        from transformers import PreTrainedTokenizerFast

        named = [t for t in (self.pad, self.bos, self.eos) if t]
        whole = self.space in ("", "bytes")
        first = () if whole else tuple(dict.fromkeys(["<unk>", *named]))
        core = deepcopy(_byte_level(bool(self.space)) if whole else _pieces(self.space, first))
        special = {
            t: AddedToken(t, special=True, normalized=False, rstrip=self.strips)
            for t in (*first, *named, *self.special)
        }
        core.add_special_tokens(list(special.values()))
        core.add_tokens([AddedToken(t, special=False, normalized=False) for t in self.added])
        if self.begins:
            core.post_processor = processors.TemplateProcessing(
                single=f"{self.bos} $A", special_tokens=[(self.bos, core.token_to_id(self.bos))]
            )
        made = PreTrainedTokenizerFast(
            tokenizer_object=core,
            unk_token=None if whole else "<unk>",
            clean_up_tokenization_spaces=self.cleans,
            **{
                f"{name}_token": special.get(t)
                for name, t in (("eos", self.eos), ("bos", self.bos), ("pad", self.pad))
            },
            additional_special_tokens=[special[t] for t in self.special],
        )
        made.chat_template = self.template
        return made


IM_TOKENS = ("<|im_start|>", "<|im_end|>")
THINK, CALLS = ("<think>", "</think>"), ("<tool_call>", "</tool_call>")


def _qwen(template: str, **options) -> Family:
    return Family(
        template,
        **(
            {
                "end": "<|im_end|>",
                "eos": "<|im_end|>",
                "pad": "<|endoftext|>",
                "stops": ("<|im_end|>", "<|endoftext|>"),
                "special": IM_TOKENS[:1],
                "added": THINK + CALLS,
                "kind": "qwen2",
            }
            | options
        ),
    )


def _gemma(kind: str, *stops: str) -> Family:
    turns = ("<start_of_turn>", "<end_of_turn>")
    return Family(
        GEMMA,
        turns[1],
        "<eos>",
        "<bos>",
        "<pad>",
        stops,
        turns,
        space="never",
        begins=True,
        kind=kind,
    )


def _llama3(template: str) -> Family:
    special = ("<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>")
    stops = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
    return Family(
        template,
        "<|eot_id|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        None,
        stops,
        special,
        begins=True,
        cleans=True,
    )


def _mistral(template: str, *special: str) -> Family:
    return Family(
        template,
        "</s>",
        "</s>",
        "<s>",
        None,
        ("</s>",),
        special,
        space="legacy",
        begins=True,
        kind="mistral",
    )


PHI_ROLES = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
FAMILIES = {
    "qwen2.5": _qwen((FILES / "chatml.jinja").read_text()),  # writes a system message of its own
    "chatml": _qwen(CHATML),
    "base-qwen": _qwen(
        CHATML,
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        stops=("<|endoftext|>",),
        special=IM_TOKENS,
    ),  # the end of texts, not turns
    "qwen3": _qwen(QWEN3, kind="qwen3"),
    "think-special": _qwen(QWEN3, added=CALLS, special=(*IM_TOKENS[:1], *THINK), kind="qwen3"),
    "qwq": _qwen(QWQ, kind="qwen3"),
    "hermes": _qwen(HERMES),
    "items": _qwen(ITEMS, kind="qwen3"),
    "marked": _qwen(MARKED),
    "smollm2": _qwen(
        (FILES / "chatml.jinja").read_text(),
        bos="<|im_start|>",
        pad="<|im_end|>",
        stops=("<|im_end|>",),
        special=("<|endoftext|>",),
        kind="llama",
    ),
    "llama2": Family(LLAMA2, "</s>", "</s>", "<s>", None, ("</s>",), space="legacy", begins=True),
    "llama3": _llama3(LLAMA3),
    "llama3.1": _llama3((FILES / "ipython.jinja").read_text()),
    "gemma2": _gemma("gemma2", "<eos>"),
    "gemma3": _gemma("gemma3", "<eos>", "<end_of_turn>"),
    "mistral": _mistral(MISTRAL),
    "mistral-tools": _mistral(
        (FILES / "results.jinja").read_text(),
        "[INST]",
        "[/INST]",
        "[TOOL_CALLS]",
        "[AVAILABLE_TOOLS]",
        "[/AVAILABLE_TOOLS]",
        "[TOOL_RESULTS]",
        "[/TOOL_RESULTS]",
    ),
    "zephyr": Family(
        ZEPHYR, "</s>", "</s>", "<s>", "</s>", ("</s>",), space="first", begins=True, kind="mistral"
    ),
    "phi3": Family(
        PHI,
        "<|end|>",
        "<|endoftext|>",
        "<s>",
        "<|endoftext|>",
        ("<|end|>", "<|endoftext|>"),
        PHI_ROLES,
        space="legacy",
        kind="phi3",
        strips=True,
    ),
    "phi3.5": Family(
        PHI,
        "<|end|>",
        "<|endoftext|>",
        None,
        "<|endoftext|>",
        ("<|end|>", "<|assistant|>", "<|endoftext|>"),
        PHI_ROLES,
        kind="phi3",
    ),
    "glm4": Family(
        GLM,
        "<|endoftext|>",
        "<|endoftext|>",
        None,
        "<|endoftext|>",
        ("<|endoftext|>", "<|user|>", "<|observation|>"),
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    ),
    "r1": Family(
        R1,
        "<|endofsentence|>",
        "<|endofsentence|>",
        "<|begin|>",
        "<|endofsentence|>",
        ("<|endofsentence|>",),
        ("<|User|>", "<|Assistant|>"),
        THINK,
        begins=True,
        kind="qwen2",
    ),
    "base-bytes": Family(
        None, "", "<|endoftext|>", "<|endoftext|>", None, ("<|endoftext|>",), kind="gpt2"
    ),
    "base-space": Family(None, "", "</s>", "<s>", None, ("</s>",), space="bytes"),
    "base-always": Family(None, "", "</s>", "<s>", None, ("</s>",), space="always", begins=True),
    "base-pieces": Family(None, "", "</s>", "<s>", None, ("</s>",), space="first", begins=True),
}

# --- models ---


def tokenizer(name: str):
    """The family's tokenizer; a new one each time."""
    return FAMILIES[name].tokenizer()


def family(name: str, *, seed: int = 0, template: str | None = None, **config):
    """(model, tokenizer) of a family, with the end tokens that its published generation config has.
    template: instead of its own."""
    made = tokenizer(name)
    if template is not None:
        made.chat_template = template
    network = _model(FAMILIES[name].kind, made, seed, config)
    network.generation_config.eos_token_id = _ids(made, FAMILIES[name].stops)
    network.generation_config.pad_token_id = made.pad_token_id
    return network, made


def _ids(made, names: Sequence[str]):
    ids = [made.convert_tokens_to_ids(n) for n in names]
    return ids if len(ids) > 1 else ids[0]


def _model(kind: str, made, seed: int, config: dict):
    shape = (
        dict(
            vocab_size=len(made),
            max_position_embeddings=1024,
            pad_token_id=made.pad_token_id,
            bos_token_id=made.bos_token_id,
            eos_token_id=made.eos_token_id,
        )
        | config
    )
    if kind not in ("gpt2", "phi3"):
        return tiny_model(kind, seed=seed, **shape)
    import transformers as hf

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "phi3":
            size = dict(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
            )
            return hf.Phi3ForCausalLM(
                hf.Phi3Config(**(size | {"initializer_range": 0.2} | shape))
            ).eval()
        shape["n_positions"] = shape.pop("max_position_embeddings")
        return hf.GPT2LMHeadModel(
            hf.GPT2Config(
                **({"n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2} | shape)
            )
        ).eval()
