"""Every setting of the learning-aware experiments, as frozen dataclasses. Presets are in `configs/social/`."""

from dataclasses import dataclass, field
from typing import Literal

from agents.learning_aware.analytic import AnalyticSettings
from agents.learning_aware.naive import ActorCriticSettings, PolicyGradientSettings
from agents.learning_aware.population import PoolSettings
from agents.learning_aware.predictive import PredictiveSettings
from internal_rl.config import RuntimeConfig


@dataclass(frozen=True)
class GameConfig:
    """What is played in one inner episode."""

    name: str = "prisoners_dilemma"
    """A two-player matrix game of envs.social.matrix (prisoners_dilemma, stag_hunt, chicken, …), or cleanup; your own as
    file.py:NAME or module:NAME: payoffs [2, A, A], or a class with the members of SocialGame."""
    episode_length: int = 10
    """T: steps of one inner episode."""


@dataclass(frozen=True)
class PolicyConfig:
    """A policy network or table."""

    kind: Literal["tabular", "tabular_by_episode", "random_tables", "hawk", "gru"] = "tabular"
    """tabular: one table over the last joint action. tabular_by_episode: one per inner episode. random_tables: one per
    chain, P(C) ~ U(0, 1), for co-players that never learn. hawk, gru: recurrent, with the whole history as context."""
    initial_logit: float = 0.0
    """Tables: mean of the initial logits of cooperation."""
    noise: float = 0.0
    """Tables: standard deviation of the initial logits."""
    critic: bool = False
    """Tables (kind tabular): add a table of values."""
    width: int = 32
    """Hawk, GRU: width of the recurrence, and of Hawk's residual stream."""
    embed: int = 32
    """GRU: width of the embedded observation."""
    mlp_width: int = 32
    """Hawk: hidden width of the MLP."""
    lru_blocks: int = 2
    """Hawk: gate blocks (the paper: heads)."""
    depth: int = 1
    """Hawk: residual blocks."""
    memory: Literal["meta_episode", "inner_episode", "step"] = "meta_episode"
    """Hawk: how far back it sees. meta_episode: over all inner episodes (the paper's meta agents; naive ones are reset by
    those who play them). inner_episode, step: ablations; with step it is a memory-1 policy."""
    init_scale: float = 1.0
    """Hawk: variance scaling of the matrices; both read-outs start at zero. Not given in the paper."""


@dataclass(frozen=True)
class NaiveConfig:
    """The naive co-players of a pool."""

    rule: str = "policy_gradient"
    """policy_gradient; actor_critic, which is A2C, and PPO with more than one epoch; frozen, which never learns; your own
    as file.py:NAME or module:NAME, a function of a Policy that returns a NaiveLearner."""
    policy: PolicyConfig = PolicyConfig()
    """Its network; the paper gives it that of the meta agents."""
    policy_gradient: PolicyGradientSettings = field(default_factory=PolicyGradientSettings)
    """Settings of the rule policy_gradient."""
    actor_critic: ActorCriticSettings = field(default_factory=ActorCriticSettings)
    """Settings of the rule actor_critic."""


@dataclass(frozen=True)
class SocialConfig:
    """A pool of meta agents in a sampled game (`internal-rl social train`)."""

    name: str = "custom"
    """Name of the preset it came from."""
    seed: int = 0
    """The one seed of the run."""
    iterations: int = 100
    """Meta updates."""
    game: GameConfig = GameConfig()
    policy: PolicyConfig = PolicyConfig()
    """Of the meta agents."""
    naive: NaiveConfig = field(default_factory=NaiveConfig)
    pool: PoolSettings = field(default_factory=PoolSettings)
    runtime: RuntimeConfig = field(
        default_factory=lambda: RuntimeConfig(log_every=10, checkpoint_every=100)
    )


@dataclass(frozen=True)
class AnalyticConfig:
    """Memory-1 agents with exact gradients (`internal-rl social analytic`)."""

    name: str = "custom"
    """Name of the preset it came from."""
    seed: int = 0
    """The one seed of the run."""
    iterations: int = 6000
    """Meta updates."""
    agents: AnalyticSettings = field(default_factory=AnalyticSettings)
    runtime: RuntimeConfig = field(
        default_factory=lambda: RuntimeConfig(log_every=100, checkpoint_every=2000)
    )


@dataclass(frozen=True)
class EmbeddedConfig:
    """Embedded Bayesian agents in repeated two-player games (`internal-rl social embedded`)."""

    name: str = "custom"
    """Name of the preset it came from."""
    game: str = "twin_dilemma"
    """A two-player, two-action game of envs.social.matrix."""
    alphas: tuple[float, ...] = (0.6, 0.5, 0.3, 0.1, 0.01, 0.001)
    """Prior weights α of "the other runs my own policy"."""
    policies: Literal["open_loop", "half_defect", "memory_one"] = "open_loop"
    """open_loop: all action sequences, uniform. half_defect: half of the mass on always-defect, the rest as before.
    memory_one: the 32 deterministic memory-1 policies, which react, so that looking ahead matters."""
    tremble: float = 1e-3
    """memory_one: probability that a policy misses its action; independent of the other's."""
    rounds: int = 12
    """Rounds played."""
    depth: int = 1
    """k: own choices that are maximised over; what follows is as the mixture predicts itself. The horizon: embedded best
    response. Not above the horizon."""
    discount: float = 0.0
    """γ of what is to come. 0 with a horizon of 1, above 0 with a longer one."""
    horizon: int = 1
    """Rounds that are valued, the present one included."""


@dataclass(frozen=True)
class PredictiveConfig:
    """Two agents that improve on their own sequence model's predictions (`internal-rl social predictive`)."""

    name: str = "custom"
    """Name of the preset it came from."""
    seed: int = 0
    """The one seed of the run."""
    iterations: int = 30
    """Phases."""
    game: GameConfig = GameConfig(episode_length=100)
    agents: PredictiveSettings = field(default_factory=PredictiveSettings)
    embed: int = 32
    """Width of the embeddings of observations, rewards and actions."""
    hidden: int = 128
    """Width of the GRU."""
    gru_step: Literal["symbol", "round"] = "symbol"
    """What the GRU takes a step for. symbol: each of o_t, r_t, a_t, the closest reading of the paper. round: all three at
    once, with a direct path from o_t and a_t to what follows them; a third of the cost."""
    runtime: RuntimeConfig = field(
        default_factory=lambda: RuntimeConfig(log_every=1, checkpoint_every=1)
    )
