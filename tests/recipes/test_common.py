"""What recipes share: a demonstration's untrained model, which a kill must not leave half."""

from pathlib import Path

import pytest

from logpi.recipes.common import base_model


def test_a_base_model_is_there_whole_or_not_at_all_and_is_made_once(tmp_path):
    made = []

    class Model:
        def __init__(self, dies: bool) -> None:
            made.append(dies)
            self.dies = dies

        def save(self, directory: Path) -> None:
            (directory / "config.json").write_text("{}")  # what `transformers` writes first
            if self.dies:
                raise KeyboardInterrupt
            (directory / "tokenizer.json").write_text("{}")

    path = tmp_path / "run" / "base"
    with pytest.raises(KeyboardInterrupt):
        base_model(path, lambda: Model(dies=True))  # type: ignore[arg-type]
    assert not path.exists()
    for _ in range(2):
        assert base_model(path, lambda: Model(dies=False)) == path  # type: ignore[arg-type]
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "tokenizer.json"] and made == [True, False]
