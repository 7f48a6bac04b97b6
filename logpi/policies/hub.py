"""Names on the Hugging Face hub: whether a word can be one, and whether the hub answers, within
seconds.

Libraries that download try an unreachable hub again and again, half a minute for each misspelt
local name. `answers` tries it once, and sets those libraries offline if it fails. Left out:
downloading, which those libraries do.
"""

from __future__ import annotations

from functools import cache

# seconds
PATIENCE = 5.0


def check_name(name: str) -> None:
    """Refuse a word that cannot name a repository of the hub, such as `../x` or `a/b/c`: it was
    meant as a path, and nothing is there.

    Raises:
        ValueError: it is no `owner/name`.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ValueError(
            f"{name[:200]}: no such file or directory, and no name on the Hugging Face hub"
            " (owner/name)"
        ) from None


def check_model(name: str) -> None:
    """Refuse a model that is not in the hub's cache on this machine while the hub is unreachable.

    Raises:
        ValueError: as `check_name`; or the hub does not answer.
    """
    from huggingface_hub import try_to_load_from_cache

    check_name(name)
    if not answers() and not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise ValueError(
            f"{name}: no such file or directory here, and the Hugging Face hub does not answer (or"
            " HF_HUB_OFFLINE is set)"
        )


@cache
def answers() -> bool:
    """Whether the hub is reachable. If not, its own libraries stay offline for the rest of this
    process."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    # its client may raise anything: there is no answer
    except Exception:
        constants.HF_HUB_OFFLINE = True
        return False
    return True
