"""Task interleaving: several query-answer tasks in random order, with rewards only for answers.

COCOA (arXiv 2306.16803), section 4 and appendix. C contexts, O objects of either kind per context.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Int, PRNGKeyArray, Shaped

from envs.credit.mdp import Model, Outcome

CLOSED, WITHOUT_KEY, WITH_KEY = range(3)


@struct.dataclass
class InterleavingState(environment.EnvState):
    """open, keys: bits of the contexts; context: the current one; answer: in its answer room;
    objects: index of the unrewarded and of the rewarded object; flipped: the rewarded object is
    right; dead: the episode is over."""

    time: Int[Array, "*b"]  # pyright: ignore[reportIncompatibleVariableOverride]
    open: Bool[Array, "*b C"]
    keys: Bool[Array, "*b C"]
    context: Int[Array, "*b"]
    answer: Bool[Array, "*b"]
    objects: Int[Array, "*b 2"]
    flipped: Int[Array, "*b"]
    dead: Bool[Array, "*b"]


@struct.dataclass
class InterleavingParams(environment.EnvParams):
    """death: probability that an episode ends after a step."""

    max_steps_in_episode: Any = 100
    death: Any = 0.05


@dataclass(frozen=True)
class Interleaving(environment.Environment[InterleavingState, InterleavingParams]):
    """In a query room the right choice of two objects gives the context's key; an answer room of the
    context, visited later, pays r_context if the key is there.

    Observation: float32[1 + 3C + 4O]: context one-hot, answer-room bit, one-hot of the left and of
        the right object among the context's 2O (zeros in answer rooms), open bits, key bits. All
        zeros once terminated.
    Action: int32, 0 left, 1 right; without effect in answer rooms.
    Reward: float32, one of 0 and C values evenly spaced from 0.2 to 1.
    Terminated: with probability `death` after each step. Truncated: after `max_steps_in_episode`.

    Attributes:
        contexts: C.
        max_open: B, at most this many contexts are open at a time.
        objects: O.
        split_seed: which objects of each context are the rewarded ones (numpy's generator).

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    contexts: int = 5
    max_open: int = 3
    objects: int = 2
    split_seed: int = 2020

    def __post_init__(self) -> None:
        if self.contexts < 1:
            raise ValueError(f"contexts={self.contexts}: allowed is 1 or more")
        if not 1 <= self.max_open <= self.contexts:
            raise ValueError(f"max_open={self.max_open}: allowed is 1 to contexts")
        if self.objects < 1:
            raise ValueError(f"objects={self.objects}: allowed is 1 or more")

    # Gymnax interface

    @property
    def name(self) -> str:
        return "Interleaving"

    @property
    def num_actions(self) -> int:
        return 2

    @property
    def default_params(self) -> InterleavingParams:
        return InterleavingParams()

    def reset_env(
        self, key: PRNGKeyArray, params: InterleavingParams
    ) -> tuple[Array, InterleavingState]:
        context_key, objects_key, flip_key = jax.random.split(key, 3)
        none = jnp.zeros(self.contexts, bool)
        state = InterleavingState(
            time=jnp.int32(0),
            open=none,
            keys=none,
            context=jax.random.randint(context_key, (), 0, self.contexts, jnp.int32),
            answer=jnp.array(False),
            objects=jax.random.randint(objects_key, (2,), 0, self.objects, jnp.int32),
            flipped=jax.random.randint(flip_key, (), 0, 2, jnp.int32),
            dead=jnp.array(False),
        )
        return self.get_obs(state), state

    def step_env(
        self,
        key: PRNGKeyArray,
        state: InterleavingState,
        action: int | float | Shaped[Array, ""],
        params: InterleavingParams,
    ) -> tuple[Array, InterleavingState, Array, Array, dict[Any, Any]]:
        keys = jax.random.split(key, 5)
        here = jnp.arange(self.contexts, dtype=jnp.int32) == state.context
        values = jnp.asarray(self._answer_rewards(), jnp.float32)
        paid = state.answer & state.keys[state.context]
        reward = jnp.where(paid, values[state.context], 0.0)

        right = jnp.asarray(action, jnp.int32) == state.flipped
        is_open = jnp.where(here, ~state.answer, state.open)
        has_key = jnp.where(here, ~state.answer & right, state.keys)

        count = jnp.sum(is_open, dtype=jnp.int32)
        to_answer = jax.random.uniform(keys[0]) * self.max_open < count.astype(jnp.float32)
        choices = jnp.where(to_answer, is_open, ~is_open)
        objects = jax.random.randint(keys[2], (2,), 0, self.objects, jnp.int32)
        flipped = jax.random.randint(keys[3], (), 0, 2, jnp.int32)
        state = replace(
            state,
            time=state.time + 1,
            open=is_open,
            keys=has_key,
            context=jax.random.categorical(keys[1], jnp.where(choices, 0.0, -jnp.inf)).astype(
                jnp.int32
            ),
            answer=to_answer,
            objects=jnp.where(to_answer, 0, objects),
            flipped=jnp.where(to_answer, 0, flipped),
            dead=jax.random.uniform(keys[4]) < params.death,
        )
        held = jnp.sum(has_key, dtype=jnp.float32)
        fraction = jnp.where(count > 0, held / jnp.maximum(count, 1).astype(jnp.float32), 1.0)
        return self.get_obs(state), state, reward, state.dead, {"correct": fraction}

    def is_terminated(self, state: InterleavingState, params: Any) -> Bool[Array, "*b"]:
        return state.dead

    def get_obs(self, state: InterleavingState, params: Any = None, key: Any = None) -> Array:
        kinds = jnp.asarray(self.object_split(), jnp.int32)[state.context]  # [2, O]
        unrewarded = kinds[1, state.objects[0]]
        rewarded = kinds[0, state.objects[1]]
        right = state.flipped == 1
        sides = (
            jnp.where(right, unrewarded, rewarded),
            jnp.where(right, rewarded, unrewarded),
        )
        shown = [
            jnp.where(state.answer, 0.0, jax.nn.one_hot(side, 2 * self.objects, dtype=jnp.float32))
            for side in sides
        ]
        obs = jnp.concatenate(
            [
                jax.nn.one_hot(state.context, self.contexts, dtype=jnp.float32),
                state.answer.astype(jnp.float32)[None],
                *shown,
                state.open.astype(jnp.float32),
                state.keys.astype(jnp.float32),
            ]
        )
        return jnp.where(state.dead, 0.0, obs)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (1 + 3 * self.contexts + 4 * self.objects,), jnp.float32)

    # Ours

    def object_split(self) -> np.ndarray:
        """int[C, 2, O]: identities of each context's rewarded and unrewarded objects."""
        generator = np.random.default_rng(self.split_seed)
        rows = [generator.permutation(2 * self.objects) for _ in range(self.contexts)]
        return np.array(rows).reshape(self.contexts, 2, self.objects)

    def reward_values(self, params: Any = None) -> tuple[float, ...]:
        """Every reward that may occur."""
        return (0.0, *self._answer_rewards())

    def model(self, params: InterleavingParams) -> Model:
        """The same dynamics in plain Python. A state is (inventory per context, context, answer
        room?, unrewarded object, rewarded object, flipped), or None after death."""
        count, values, split = self.contexts, self._answer_rewards(), self.object_split()
        death = float(params.death)

        def rooms(inventory: tuple, answer: bool) -> list[tuple[float, Any]]:
            found = [c for c in range(count) if (inventory[c] != CLOSED) == answer]
            if answer:
                return [(1 / len(found), (inventory, c, True, 0, 0, 0)) for c in found]
            shown = list(itertools.product(range(self.objects), range(self.objects), (0, 1)))
            each = 1 / (len(found) * len(shown)) if found else 0.0
            return [(each, (inventory, c, False, *choice)) for c in found for choice in shown]

        def outcomes(state: Any, action: int) -> list[Outcome]:
            inventory, context, answer, *_, flipped = state
            reward = values[context] if answer and inventory[context] == WITH_KEY else 0.0
            held = CLOSED if answer else (WITH_KEY if action == flipped else WITHOUT_KEY)
            after = (*inventory[:context], held, *inventory[context + 1 :])
            p_answer = sum(item != CLOSED for item in after) / self.max_open
            following = [(death, None)]
            for p, is_answer in ((p_answer, True), (1.0 - p_answer, False)):
                if p > 0:
                    following += [((1 - death) * p * q, s) for q, s in rooms(after, is_answer)]
            return [Outcome(p, reward, s) for p, s in following]

        def observe(state: Any) -> list[float]:
            pair, row = 2 * self.objects, [0.0] * (1 + 3 * count + 4 * self.objects)
            if state is None:
                return row
            inventory, context, answer, unrewarded, rewarded, flipped = state
            row[context] = 1.0
            row[count] = float(answer)
            if not answer:
                good, bad = int(split[context, 0, rewarded]), int(split[context, 1, unrewarded])
                left, right = (bad, good) if flipped else (good, bad)
                row[count + 1 + left] = row[count + 1 + pair + right] = 1.0
            for c, item in enumerate(inventory):
                row[count + 1 + 2 * pair + c] = float(item != CLOSED)
                row[2 * count + 1 + 2 * pair + c] = float(item == WITH_KEY)
            return row

        return Model(
            start=rooms((CLOSED,) * count, False),
            outcomes=outcomes,
            observe=observe,
            is_terminal=lambda state: state is None,
            num_actions=2,
            horizon=int(params.max_steps_in_episode),
            reward_values=self.reward_values(),
        )

    def _answer_rewards(self) -> list[float]:
        return np.linspace(0.2, 1.0, self.contexts).tolist()
