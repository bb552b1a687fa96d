"""Trees whose branches share a settable number of states, with rewards on every step.

COCOA (arXiv 2306.16803), section 3.3 and appendix: the fewer actions a state remembers, the less
variance its state-based contributions have. Used for exact variances only, not for learning.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Int, PRNGKeyArray, Shaped

from envs.credit.mdp import FiniteMDP, Model, Outcome


@struct.dataclass
class TreeState(environment.EnvState):
    """time: the level i; position: j inside the level, -1 after the end."""

    time: Int[Array, "*b"]  # pyright: ignore[reportIncompatibleVariableOverride]
    position: Int[Array, "*b"]


@dataclass(frozen=True)
class Tree(environment.Environment[TreeState, environment.EnvParams]):
    """A tree of `depth` levels; an episode has `depth` steps and is deterministic given its actions.

    With b = num_actions - overlap, level i + 1 has b N_i + overlap states and action a leads from j
    to (j b + a - floor(b / 2)) mod N_{i+1}.

    Observation: float32[3], level, position in the level, seed_offset; (depth, -1, seed_offset)
        after the end.
    Action: int32 in 0..num_actions-1.
    Reward: float32, ((state + a prime + seed_offset) mod num_rewards) - floor(num_rewards / 2).
    Terminated: after `depth` steps.

    Attributes:
        depth, num_actions, overlap: shape of the tree.
        num_rewards: n_r, number of different rewards.
        seed_offset: shifts the rewards; `seed_offset_of` draws one from a seed.
        prime: spreads the rewards over actions.

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    depth: int = 4
    actions: int = 6
    overlap: int = 0
    num_rewards: int = 5
    seed_offset: int = 0
    prime: int = 9973

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth={self.depth}: allowed is 1 or more")
        if self.actions < 1:
            raise ValueError(f"actions={self.actions}: allowed is 1 or more")
        if not 0 <= self.overlap <= self.actions:
            raise ValueError(f"overlap={self.overlap}: allowed is 0 to actions")
        if self.num_rewards < 2:
            raise ValueError(f"num_rewards={self.num_rewards}: allowed is 2 or more")
        if self.seed_offset < 0:
            raise ValueError(f"seed_offset={self.seed_offset}: allowed is 0 or more")
        size = states = 1
        for _ in range(self.depth - 1):
            size = (self.actions - self.overlap) * size + self.overlap
            states += size
            # What rewards are computed from must fit into an int32 of the compiled world.
            if states + self.actions * self.prime + self.seed_offset >= 2**31:
                raise ValueError(
                    f"depth={self.depth}: allowed are trees whose number of states (plus seed_offset "
                    "and actions times prime) stays below 2147483648"
                )

    # Gymnax interface

    @property
    def name(self) -> str:
        return "Tree"

    @property
    def num_actions(self) -> int:
        return self.actions

    @property
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=self.depth + 1)

    def reset_env(self, key: PRNGKeyArray, params: Any) -> tuple[Array, TreeState]:
        del key
        state = TreeState(time=jnp.int32(0), position=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(
        self,
        key: PRNGKeyArray,
        state: TreeState,
        action: int | float | Shaped[Array, ""],
        params: Any,
    ) -> tuple[Array, TreeState, Array, Array, dict[Any, Any]]:
        del key
        action = jnp.asarray(action, jnp.int32)
        sizes = self.level_sizes()
        before = jnp.asarray(np.cumsum([0, *sizes[:-1]]), jnp.int32)[state.time]
        raw = before + state.position + action * self.prime + self.seed_offset
        reward = raw % self.num_rewards - self.num_rewards // 2
        b = self.actions - self.overlap
        target = jnp.asarray([*sizes[1:], 1], jnp.int32)[state.time]
        position = (state.position * b + action - b // 2) % target
        done = state.time + 1 >= self.depth
        state = replace(state, time=state.time + 1, position=jnp.where(done, -1, position))
        return self.get_obs(state), state, reward.astype(jnp.float32), done, {}

    def is_terminated(self, state: TreeState, params: Any) -> Bool[Array, "*b"]:
        return state.time >= self.depth

    def get_obs(self, state: TreeState, params: Any = None, key: Any = None) -> Array:
        offset = jnp.full_like(state.time, self.seed_offset)
        return jnp.stack([state.time, state.position, offset]).astype(jnp.float32)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(self.actions)

    def observation_space(self, params: Any = None) -> spaces.Box:
        high = float(max(self.seed_offset, sum(self.level_sizes())))
        return spaces.Box(-1.0, high, (3,), jnp.float32)

    # Ours

    def level_sizes(self) -> list[int]:
        """Number of states of each level."""
        sizes = [1]
        for _ in range(self.depth - 1):
            sizes.append((self.actions - self.overlap) * sizes[-1] + self.overlap)
        return sizes

    def reward_values(self, params: Any = None) -> tuple[float, ...]:
        """Every reward that may occur, 0 included."""
        return tuple(float(r - self.num_rewards // 2) for r in range(self.num_rewards))

    def reward_code(self, level: int, position: int, action: int) -> int:
        """Number that is taken modulo n_r for the reward, and modulo n_r n_g for its groups."""
        state = sum(self.level_sizes()[:level]) + position
        return state + action * self.prime + self.seed_offset

    def model(self, params: Any) -> Model:
        """The same dynamics in plain Python; a state is (level, position)."""
        sizes, b = self.level_sizes(), self.actions - self.overlap

        def outcomes(state: Any, action: int) -> list[Outcome]:
            level, position = state
            reward = self.reward_code(level, position, action) % self.num_rewards
            after = (level + 1, -1)
            if level + 1 < self.depth:
                after = (level + 1, (position * b + action - b // 2) % sizes[level + 1])
            return [Outcome(1.0, float(reward - self.num_rewards // 2), after)]

        return Model(
            start=[(1.0, (0, 0))],
            outcomes=outcomes,
            observe=lambda state: (*state, self.seed_offset),
            is_terminal=lambda state: state[1] < 0,
            num_actions=self.actions,
            horizon=self.depth,
            reward_values=self.reward_values(),
        )

    def grouping(self, mdp: FiniteMDP, groups: int) -> np.ndarray:
        """int[S, A]: the reward refined into `groups` sub-classes; groups = 1 is the reward itself.

        Terminal states get the class of reward 0.
        """
        if groups < 1:
            raise ValueError(f"groups={groups}: allowed is 1 or more")
        table = np.full((mdp.num_states, self.actions), self.num_rewards // 2)
        for s in np.flatnonzero(~np.asarray(mdp.terminal)):
            level, position = (int(x) for x in mdp.observations[s][:2])
            for a in range(self.actions):
                code = self.reward_code(level, position, a)
                table[s, a] = code % (self.num_rewards * groups)
        return table


def seed_offset_of(tree: Tree, seed: int) -> int:
    """A uniform offset below the tree's number of states, from a seed of numpy's generator."""
    return int(np.random.default_rng(seed).integers(sum(tree.level_sizes())))
