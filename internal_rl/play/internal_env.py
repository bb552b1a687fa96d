"""The internal environment: base model, switching unit and decoder seen as an environment over codes (Algorithm 1).

One abstract step takes a code z and plays raw steps with it until the switching unit fires or the episode ends. This is
the paper's algorithm to the letter, for one episode; `vmap` batches it. `internal_rl.play.rollout` plays the same thing
for a whole batch in one loop over raw steps, which is what training uses; a test holds the two against each other.
"""

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from envs.world import World
from internal_rl.models.contract import SplitModel
from internal_rl.models.metacontroller import Metacontroller


@flax.struct.dataclass
class InternalState:
    """State of one episode between two abstract steps."""

    env_state: Any
    lower: Any
    """Carry of the base model's lower half, for one sequence."""
    upper: Any
    """Carry of its upper half."""
    e: jax.Array
    """Residual stream e_t of the observation that has been read, but not yet acted on [D]."""
    history: jax.Array
    """h_{t−1} [H]."""
    t: jax.Array
    """Raw steps so far, int32."""
    done: jax.Array
    """The episode has ended, bool."""


@dataclass(frozen=True)
class InternalEnv:
    """Everything that internal RL does not train, as one environment.

    Args:
        world: environment and task set.
        base: bound, frozen base model.
        meta: bound, frozen metacontroller.
        switch_threshold: β_threshold; the episode's next code is asked for when β reaches it.
    """

    world: World
    base: SplitModel
    meta: Metacontroller
    switch_threshold: float = 0.5

    def reset(self, start: Any) -> tuple[InternalState, jax.Array]:
        """Begin one episode; returns the state and the first observation of the policy, e [D]."""
        env_state, first = self.world.reset(start)
        lower, upper = self.base.init_carry(1)
        lower, e = self.base.lower_step(first.obs[None], lower, jnp.ones((1,), bool))
        state = InternalState(
            env_state=env_state,
            lower=lower,
            upper=upper,
            e=e[0],
            history=self.meta.init_history(1)[0],
            t=jnp.int32(0),
            done=jnp.zeros((), bool),
        )
        return state, e[0]

    def step(
        self, key: jax.Array, state: InternalState, z: jax.Array
    ) -> tuple[InternalState, jax.Array, jax.Array, jax.Array]:
        """One abstract step with code z [Z].

        Args:
            key: key of the episode; raw step t folds t into it, so pass the same key at every abstract step.
            state: not done.
            z: the code to keep until the next switch.

        Returns:
            State, the residual stream at the switch e [D], summed reward, done.
        """

        def keep_going(loop):
            state, _, switch = loop
            return ~(switch | state.done)

        def raw_step(loop):
            state, reward, _ = loop
            state, r = self._raw_step(key, state, z)
            gate = self.meta.switch_probability(state.e[None], state.history[None], z[None])[0]
            switch = (gate >= self.switch_threshold) | self.meta.cfg.forced_switching
            return state, reward + r, switch

        # The first raw step is always played: a code acts for at least one step.
        state, reward, _ = jax.lax.while_loop(
            keep_going, raw_step, raw_step((state, jnp.zeros(()), jnp.zeros((), bool)))
        )
        return state, state.e, reward, state.done

    def _raw_step(
        self, key: jax.Array, state: InternalState, z: jax.Array
    ) -> tuple[InternalState, jax.Array]:
        _, key_action, key_env = jax.random.split(jax.random.fold_in(key, state.t), 3)
        controlled = self.meta.decoder.control(state.e[None], z[None])
        upper, out = self.base.upper_step(controlled, state.upper, (state.t == 0)[None])
        action = self.base.action_distribution(out).sample(seed=key_action)[0]
        env_state, step = self.world.step(
            jax.random.split(key_env, 1)[0],
            state.env_state,
            self.world.action_spec.executed(action),
        )
        history = self.meta.history_step(state.e[None], state.history[None])[0]
        lower, e = self.base.lower_step(step.obs[None], state.lower, jnp.zeros((1,), bool))
        state = InternalState(
            env_state=env_state,
            lower=lower,
            upper=upper,
            e=e[0],
            history=history,
            t=state.t + 1,
            done=step.terminated | step.truncated,
        )
        return state, step.reward
