"""Every setting of a credit-assignment run; presets are in `configs.credit`.

The string below each field is its `--help` text.
"""

from dataclasses import dataclass, field
from typing import Literal

from agents.credit import CreditConfig, TrainConfig
from internal_rl.config import RuntimeConfig


@dataclass(frozen=True)
class KeyToDoorConfig:
    """Linear key-to-door. Rewards are in units of 23 / length."""

    length: int = 23
    """Steps of an episode (the paper's L is 3 less)."""
    num_keys: int = 1
    """Keys needed for the door."""
    distractor_prob: float = 0.8
    """Probability of an apple in a distractor cell of the fixed layout."""
    layout_seed: int = 2022
    """Seed of the layout, the same for all episodes and seeds."""
    treasure_at_door: bool = False
    """Pay the treasure at the door instead of one step later."""
    ignore_door: bool = False
    """The door opens whatever the action."""
    random_distractors: bool = False
    """A new layout each episode; there are no exact tables then."""
    distractor: tuple[float, ...] = (0.1, 0.9)
    """Values of an apple, equally likely."""
    treasure: tuple[float, ...] = (0.2,)
    """Values of the treasure, equally likely."""
    treasure_after: tuple[float, ...] = ()
    """Values of the treasure from train.switch_at on; empty: as before."""


@dataclass(frozen=True)
class InterleavingConfig:
    """Task interleaving."""

    contexts: int = 5
    """C, query-answer tasks."""
    max_open: int = 3
    """B, tasks open at a time."""
    objects: int = 2
    """O, rewarded and unrewarded objects per context."""
    split_seed: int = 2020
    """Which objects are rewarded."""
    horizon: int = 100
    """An episode is cut after this many steps."""
    death: float = 0.05
    """Probability that an episode ends after a step."""


@dataclass(frozen=True)
class TreeConfig:
    """Tree with state overlap, for exact variances."""

    depth: int = 4
    """Steps of an episode."""
    actions: int = 6
    """Branches of a state."""
    overlap: int = 0
    """States of a level that branches share; 0: a real tree."""
    num_rewards: int = 5
    """Distinct rewards."""
    seed: int = 100
    """Seed of the rewards' offset."""


@dataclass(frozen=True)
class WorldConfig:
    """Which environment; only the fields of that kind matter."""

    kind: Literal["key_to_door", "interleaving", "tree"] = "key_to_door"
    """Environment."""
    key_to_door: KeyToDoorConfig = field(default_factory=KeyToDoorConfig)
    interleaving: InterleavingConfig = field(default_factory=InterleavingConfig)
    tree: TreeConfig = field(default_factory=TreeConfig)


@dataclass(frozen=True)
class ShadowConfig:
    """Estimators that are measured beside the acting one."""

    methods: tuple[str, ...] = (
        "reinforce",
        "advantage",
        "q_critic",
        "trajectory_cv",
        "cocoa_reward",
    )
    """Learned models that are measured; `main` acts."""
    exact_methods: tuple[str, ...] = ()
    """Exact models that are measured, too."""
    perturbations: tuple[float, ...] = (0.0,)
    """Each exact model is measured with its outputs multiplied by 1 + this × a normal number drawn once."""
    first_state_only: bool = True
    """Measure the decision at t = 0 alone, as the paper does in key-to-door."""


@dataclass(frozen=True)
class CreditRunConfig:
    """A credit-assignment run."""

    name: str = "custom"
    """Name of the preset it came from."""
    seed: int = 0
    """The one seed of the run."""
    world: WorldConfig = field(default_factory=WorldConfig)
    credit: CreditConfig = field(default_factory=CreditConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    shadow: ShadowConfig = field(default_factory=ShadowConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
