"""What a run saves of its options: words and numbers as they are, objects as records."""

from __future__ import annotations

import pytest

from logpi.errors import UserError
from logpi.jobs.options.saved import from_json, to_json
from logpi.jobs.sft import SFT


def test_words_and_numbers_of_an_option_that_takes_objects_come_back() -> None:
    """`lora` is a number or a peft configuration."""
    job = SFT(model="m", task="addition", lora=8)
    assert to_json(job)["lora"] == 8 and from_json(SFT, to_json(job)) == job


def test_an_object_is_recorded_and_only_its_script_goes_on_with_it() -> None:
    saved = to_json(SFT(model="m", task=[{"prompt": "1+1=", "completion": "2"}]))
    assert saved["task"]["object"] == "list of 1 rows"
    with pytest.raises(UserError, match="begun from Python with an object as its task"):
        from_json(SFT, saved)
