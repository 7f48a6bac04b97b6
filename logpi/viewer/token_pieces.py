"""The text of each token of a response, by the run's own tokenizer.

    ids      15339  11  12520  99  229
    pieces  "Hello" ","   ""    "" " 🦉"     a character of several tokens stands at its last one

Joined pieces are the text. The tokenizer is `tokenizer.json`, which the run keeps, or one beside
its model; no model is loaded and no code of a tokenizer's is run. Left out: prompts, whose tokens
are not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from logpi.viewer.files import Folders, ViewError, open_regular

LARGEST = 128 * 2**20  # bytes of a tokenizer
MISSING = "no tokenizer: the run kept none, and its model is not here"


def tokenizer_of(folders: Folders, run: Path, arguments: Mapping[str, Any]) -> Any:
    """The run's tokenizer. Raises ViewError: there is none, or it cannot be read."""
    for path in _places(folders, run, arguments):
        try:
            status = path.stat()
        except (OSError, ValueError):
            continue
        return _loaded(path, status.st_mtime_ns, status.st_size)
    raise ViewError(MISSING)


def _places(folders: Folders, run: Path, arguments: Mapping[str, Any]) -> Iterator[Path]:
    """Where it may be: in the run, in its checkpoints, in the model that it began with. That may be
    outside the folders that are shown: nothing of it is shown but the texts of tokens."""
    inside = [run / "tokenizer", run / "model", run / "base"]
    inside += sorted((run / "checkpoints").glob("step-*"), reverse=True)[:1]
    for folder in inside:
        path = folder / "tokenizer.json"
        if path.is_file() and folders.hold(path):
            yield path.resolve()
    for name in ("tokenizer", "model"):
        word = arguments.get(name)
        if isinstance(word, str) and word and "\0" not in word:
            path = Path(word) / "tokenizer.json"
            if path.is_file():
                yield path.resolve()


@lru_cache(maxsize=4)
def _loaded(path: Path, changed: int, size: int) -> Any:
    from tokenizers import Tokenizer

    if size > LARGEST:
        raise ViewError("the tokenizer is too large to read")
    with open_regular(path) as file:
        data = file.read(LARGEST)
    try:
        return Tokenizer.from_str(data.decode("utf-8"))
    except BaseException as error:
        # the package raises bare Exception for what it cannot read, and panics are no Exception
        reason = str(error).splitlines()[0][:200] if str(error) else "it is damaged"
        raise ViewError(f"the tokenizer cannot be read: {reason}") from None


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token, one entry for each; joined they are the text of all.

    Errors: a number that is no token has the piece "�".
    """
    from tokenizers.decoders import DecodeStream

    known = tokenizer.get_vocab_size(with_added_tokens=True)
    stream, texts, begin = DecodeStream(skip_special_tokens=False), [], 0
    for i, token in enumerate(ids):
        if not 0 <= token < known:
            texts.append("\ufffd")
            continue
        try:
            texts.append(stream.step(tokenizer, token) or "")
        except BaseException:
            # bytes that are no text (a panic of the package is no Exception): begin anew behind
            # them, with what they are alone
            texts.append(tokenizer.decode(list(ids[begin : i + 1]), skip_special_tokens=False))
            stream = DecodeStream(skip_special_tokens=False)
        begin = i + 1 if texts[-1] else begin
    if begin < len(ids):
        # an unfinished character at the end
        rest = tokenizer.decode(list(ids[begin:]), skip_special_tokens=False)
        texts[-1] = rest or texts[-1]
    return texts


def specials(tokenizer: Any, ids: Sequence[int], text: str, ended: bool) -> list[str]:
    """The special tokens of a response that its text does not show, in their order: they count as
    tokens. ended: the last one ended it, which is no wonder."""
    known = tokenizer.get_added_tokens_decoder()
    own = ids[:-1] if ended else ids
    marks = [known[i].content for i in own if i in known and known[i].special]
    return [mark for mark in marks if mark not in text]


def by_turns(tokenizer: Any, ids: Sequence[int], turns: Sequence[int]) -> list[str]:
    """As `pieces`, each turn for itself: `turns` are their numbers of tokens."""
    texts: list[str] = []
    for count in turns:
        texts += pieces(tokenizer, ids[len(texts) : len(texts) + count])
    return texts + pieces(tokenizer, ids[len(texts) :])
