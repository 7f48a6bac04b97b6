"""Where the three texts have a method: row of THE TABLE to sections.

    SECTIONS["rloo"]  ->  (Section("Liu, Brief Introduction …", "3. RLOO"),)

docs/texts.md goes through the same sections in the texts' order; a test compares the headings. Left
out: rows that no text has.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SECTIONS", "Section", "sections"]

JU = "Ju, Maths for Policy Gradient Methods"
LIU = "Liu, Brief Introduction of Policy Gradient in LLM Reasoning"


@dataclass(frozen=True)
class Section:
    """A section of a text.

    Attributes:
        text: author and title. heading: of the section, or "" for a whole post.
    """

    text: str
    heading: str = ""

    def __str__(self) -> str:
        return f'{self.text}, "{self.heading}"' if self.heading else self.text


def _ju(heading: str) -> Section:
    return Section(JU, heading)


def _liu(heading: str) -> Section:
    return Section(LIU, heading)


def _chan(post: str, heading: str = "") -> Section:
    return Section(f"Chan, {post}", heading)


FIVE_FIXES = "PPO is REINFORCE plus five fixes"
GRADIENT = "REINFORCE: the gradient that drives training"
DPO = "DPO: RLHF collapsed into one loss"

SECTIONS: dict[str, tuple[Section, ...]] = {
    "policy_gradient": (_ju("1 Policy gradient theorem"), _liu("2. Policy Gradient")),
    "reinforce": (_ju("2.1 REINFORCE"), _liu("4. REINFORCE"), _chan(GRADIENT)),
    "reinforce_baseline": (
        _ju("2.3 REINFORCE with baseline"),
        _liu("6. Policy Gradient with Advantages"),
        _chan(FIVE_FIXES, "Fix 2: Add a value network (the critic)"),
    ),
    "a2c": (
        _liu("6. Policy Gradient with Advantages"),
        _chan(FIVE_FIXES, "Fix 3: Estimate the advantage with GAE"),
    ),
    "actor_critic_q": (_liu("6. Policy Gradient with Q Values"),),
    "trpo": (_ju("2.4 Trust Region Policy Optimization"),),
    "ppo": (
        _ju("2.5 Proximal Policy Optimization"),
        _liu("5. PPO / ORZ"),
        _chan(FIVE_FIXES),
    ),
    "orz": (_liu("5. PPO / ORZ"),),
    "reinforce_plus_plus": (_liu("2. REINFORCE ++"),),
    "rloo": (_liu("3. RLOO"),),
    "remax": (_liu("4. REMAX"),),
    "grpo": (
        _liu("5. GRPO (original version)"),
        _chan("GRPO: the algorithm behind reasoning models"),
    ),
    "grpo_r1": (
        _liu("6. GRPO (R1 version)"),
        _chan("R1-Zero was the result. R1 was the product"),
    ),
    "grpo_sequence": (_ju("2.6 Group Relative Policy Optimization"),),
    "dr_grpo": (_liu("8. DR.GRPO"),),
    "dapo": (_liu("7. DAPO"),),
    "sft": (
        _chan(
            GRADIENT,
            "3. A useful reframe: REINFORCE is supervised learning with two tweaks",
        ),
    ),
    "dpo": (_chan(DPO),),
    "reward_model": (_chan(DPO, "Step 4: Plug into Bradley-Terry"),),
}


def sections(row: str) -> str:
    """The sections of the texts that a row comes from, in a line; "" for none.

    >>> sections("trpo")
    'Ju, Maths for Policy Gradient Methods, "2.4 Trust Region Policy Optimization"'
    """
    return "; ".join(map(str, SECTIONS.get(row, ())))
