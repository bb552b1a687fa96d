"""The contract of a world: one task set of one environment, as every stage of internal RL plays it.

A world of your own is a class with the members of `World`, in any file; `check_world` (`envs.check`) tells whether it
keeps the contract. Letters: n episodes, O size of an observation, A of an action.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from envs.adapter import TimeStep

Start = Any
State = Any


@dataclass(frozen=True)
class ObservationSpec:
    """What one observation is. Name one of three kinds:

    - `dim` real numbers: float32 [dim];
    - one-hot blocks of `factor_sizes`, concatenated: float32 [sum of the sizes], which `dim` then is;
    - one integer token out of `num_tokens`: int32 [].

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    dim: int = 0
    factor_sizes: tuple[int, ...] = ()
    num_tokens: int = 0

    def __post_init__(self) -> None:
        if self.num_tokens:
            if self.num_tokens < 2 or self.dim or self.factor_sizes:
                raise ValueError(
                    f"num_tokens={self.num_tokens}: allowed is 2 or more, with neither dim nor factor_sizes"
                )
        elif self.factor_sizes and self.dim != sum(self.factor_sizes):
            raise ValueError(
                f"dim={self.dim}: allowed with factor_sizes is their sum, {sum(self.factor_sizes)}"
            )
        elif self.dim < 1:
            raise ValueError(f"dim={self.dim}: allowed is 1 or more, or num_tokens instead")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return () if self.num_tokens else (self.dim,)

    @property
    def dtype(self) -> Any:
        """int32 for tokens, else float32."""
        return jnp.int32 if self.num_tokens else jnp.float32

    @property
    def is_real(self) -> bool:
        """A vector of real numbers, neither one-hot nor a token."""
        return not (self.num_tokens or self.factor_sizes)


@dataclass(frozen=True)
class ActionSpec:
    """What one action is: one of `num_actions` alternatives, int32 [], or `dim` real numbers in [low, high], float32
    [dim].

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    num_actions: int = 0
    dim: int = 0
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if (self.num_actions > 0) == (self.dim > 0) or min(self.num_actions, self.dim) < 0:
            raise ValueError(
                f"num_actions={self.num_actions}, dim={self.dim}: allowed is one of them, 1 or more"
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"low={self.low}, high={self.high}: allowed are finite bounds, low < high"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return (self.dim,) if self.dim else ()

    @property
    def dtype(self) -> Any:
        """int32 for alternatives, float32 for real numbers."""
        return jnp.float32 if self.dim else jnp.int32

    @property
    def param_dim(self) -> int:
        """Numbers that a network's action head puts out per step."""
        return self.num_actions if self.num_actions else self.dim

    @property
    def middle(self) -> float:
        """Centre of the bounds."""
        return 0.5 * (self.low + self.high)

    @property
    def half_range(self) -> float:
        """Half the distance between the bounds."""
        return 0.5 * (self.high - self.low)

    def executed(self, action: jax.Array) -> jax.Array:
        """What the world gets of a sampled action: real numbers are clipped to the bounds. A policy's density stays
        that of the sample."""
        return jnp.clip(action, self.low, self.high) if self.dim else action


@runtime_checkable
class World(Protocol):
    """One task set of one environment. Methods are pure and act on one episode (`starts`: on n); the object is frozen and
    hashable, for it is a static argument of compiled programs.

    Optional members:
        with_distractors(reward, steps) -> World: the same with rewards for nothing (`reinforce.distractor_reward`).
        reward_kinds: tuple[float, ...], every reward but 0 that it may pay; credit assignment over codes needs it.
        view(key, source, time) -> obs [R, V, *O]: what discovery's encoder reads with `discover.encoder_view =
        symmetric`,
            of trajectories `source` (`Batch.source`, or where there is none their observations [R, T+1, *O]) at steps
            `time` [R, V].
        draw(state) -> uint8 [H, W, 3]: a picture of one state, on the host (NumPy arrays in).
        oracle(key, count) -> {"expert": [], "bayes": []}: nats per step that the best predictors of the expert pay, who
        know
            the goal and who do not.
        name_task(i) -> str, name_goal(i) -> str, and goal_colour(i) -> (r, g, b) of 0..255.
    """

    @property
    def obs_spec(self) -> ObservationSpec:
        """What one observation is."""
        ...

    @property
    def action_spec(self) -> ActionSpec:
        """What one action is."""
        ...

    @property
    def horizon(self) -> int:
        """T: every episode ends after at most this many steps."""
        ...

    @property
    def num_goals(self) -> int:
        """Sub-goals that `goal` numbers; 0: unlabelled. Then there is no steering and no alignment, and everything else
        works."""
        ...

    def starts(self, key: jax.Array, n: int) -> tuple[Start, dict[str, jax.Array]]:
        """Where n fresh episodes start, any pytree [n, ...], and scalars about them such as `solvable_fraction`."""
        ...

    def reset(self, start: Start) -> tuple[State, TimeStep]:
        """Begin one episode."""
        ...

    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, TimeStep]:
        """One transition, without auto-reset. After the end it may do anything, but must not fail."""
        ...

    def goal(self, state: State) -> jax.Array:
        """int32 []: the true active sub-goal, -1 where unknown. Analyses read it; no learner does."""
        ...

    def outcome(self, state: State) -> dict[str, jax.Array]:
        """`success` bool [] and `progress` int32 [] (sub-goals reached) of an episode that stands at `state`."""
        ...


def zeros_obs(spec: ObservationSpec, *leading: int) -> np.ndarray:
    """Observations of zeros [*leading, *shape]; a valid one of every kind as far as shapes and dtypes go."""
    return np.zeros((*leading, *spec.shape), np.dtype(spec.dtype))
