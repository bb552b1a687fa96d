"""The worlds a config names: environment, task sets and what the base model needs to know of them."""

from dataclasses import dataclass

import jax

from agents.distributions import ActionSpec
from envs.pinpad.expert import sample_solvable
from envs.pinpad.gridworld import GridPinpad, PinpadParams
from envs.pinpad.layout import Layout
from envs.pinpad.tasks import Tasks, encode_tasks
from internal_rl.base_model import ObservationSpec
from internal_rl.config import EnvConfig, ReinforceConfig


@dataclass(frozen=True)
class World:
    """Static description of one environment and one task set."""

    env: GridPinpad
    sequences: tuple[str, ...]
    horizon: int

    @property
    def tasks(self) -> Tasks:
        """The task set as arrays."""
        return encode_tasks(self.sequences, self.env.num_objects)

    @property
    def params(self) -> PinpadParams:
        """Environment parameters."""
        return PinpadParams(tasks=self.tasks, max_steps_in_episode=self.horizon)

    @property
    def obs_spec(self) -> ObservationSpec:
        """Shape of one observation."""
        return ObservationSpec(self.env.obs_dim, self.env.factor_sizes)

    @property
    def action_spec(self) -> ActionSpec:
        """Four cardinal moves."""
        return ActionSpec(num_actions=4)

    def sample_starts(self, key: jax.Array, count: int) -> tuple[Layout, jax.Array, jax.Array]:
        """Uniform tasks [count] with layouts in which they can be solved within the horizon.

        Returns:
            Layouts, task indices [count], and the fraction of proposed layouts that were solvable.
        """
        key_task, key_layout = jax.random.split(key)
        task = jax.random.randint(key_task, (count,), 0, len(self.sequences))
        layout, solvable = sample_solvable(
            key_layout, count, self.env, self.tasks, task, self.horizon
        )
        return layout, task, solvable


def make_world(
    cfg: EnvConfig, sequences: tuple[str, ...], rl: ReinforceConfig | None = None
) -> World:
    """World of `cfg` with these tasks, and with the distractor rewards of `rl`."""
    distractors = {}
    if rl is not None:
        distractors["distractor_reward"] = rl.distractor_reward
        distractors["distractor_steps"] = rl.distractor_steps
    env = GridPinpad(
        grid_size=cfg.grid_size,
        num_objects=cfg.num_objects,
        num_walls=cfg.num_walls,
        observation=cfg.observation,
        **distractors,
    )
    return World(env, tuple(sequences), cfg.horizon)


def pretrain_world(cfg: EnvConfig) -> World:
    """The world of the expert data (stages 1 and 2)."""
    return make_world(cfg, cfg.pretrain_tasks)


def heldout_world(cfg: EnvConfig, rl: ReinforceConfig | None = None) -> World:
    """The world of internal RL and, without `rl`, of the evaluation (stages 3 and 4)."""
    return make_world(cfg, cfg.heldout_tasks, rl)
