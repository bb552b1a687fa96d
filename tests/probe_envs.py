"""Probe environments: tiny gymnax environments whose right values and actions are known exactly.

The first five (after rejax) each catch one class of bug in a learner; a value function or policy
that fails one of them points at the part that is broken:

    constant_reward     value 1 in the only state: the value loss and its optimiser
    observed_reward     value = observation (±1): the network sees its input
    discounted_reward   value γ, then 1: discounting and bootstrapping over one step
    chosen_reward       reward ±1 for action 1 / 0: the policy's loss and its sign
    matched_reward      reward +1 where action = observation: policy and value together

The others are for truncation and for switching between abstract actions, where episodes consist of
`segments` segments of equal length and the cue (the right action) changes only between segments:

    endless_reward      reward 1, only ever truncated: value 1 / (1 - γ), never 0 after the limit
    held_cue            the cue is seen in a segment's first step only: it must be held until the
                        next one, so the right gate is 1 at the first steps of segments and 0 else
    sparse_plan         one reward at the end if every action of the episode matched its cue, which
                        is never seen but always the same: held actions find it with probability
                        A^-segments per episode, step-by-step noise with A^-length
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int

Reward = Literal["constant", "cue", "last", "action", "match", "all_matched"]
View = Literal["nothing", "cue", "time", "segment_start"]


@struct.dataclass
class ProbeState(environment.EnvState):
    """time: steps so far; cues: right action of each segment; matched: all actions so far were."""

    time: Int[Array, "*b"]  # pyright: ignore[reportIncompatibleVariableOverride]
    cues: Int[Array, "*b S"]
    matched: Bool[Array, "*b"]


@dataclass(frozen=True)
class Probe(environment.Environment[ProbeState, environment.EnvParams]):
    """An episode of `segments` segments of `segment_length` steps.

    Attributes:
        reward: what is paid: "constant" 1; "cue" ±1 for cue 1 / 0; "last" 1 in the last step;
            "action" ±1 for action 1 / 0; "match" ±1 for right / wrong actions; "all_matched" 1 in
            the last step if every action was right.
        view: what is seen: "nothing"; the "cue" (±1, or one-hot beyond two actions); the "time";
            the cue at a "segment_start", zeros elsewhere.
        fixed_cues: the cues are 0, 1, 2, … (modulo A) in every episode instead of random.
        endless: the episode never terminates, it is only truncated.
    """

    probe: str
    reward: Reward
    view: View = "nothing"
    actions: int = 2
    segments: int = 1
    segment_length: int = 1
    fixed_cues: bool = False
    endless: bool = False

    @property
    def name(self) -> str:
        return self.probe

    @property
    def num_actions(self) -> int:
        return self.actions

    @property
    def length(self) -> int:
        """Steps in an episode."""
        return self.segments * self.segment_length

    @property
    def default_params(self) -> environment.EnvParams:
        # Far enough not to truncate an episode that terminates by itself.
        return environment.EnvParams(self.length if self.endless else 10 * self.length)

    def reset_env(self, key: Array, params: Any) -> tuple[Array, ProbeState]:
        cues = jax.random.randint(key, (self.segments,), 0, self.actions, jnp.int32)
        if self.fixed_cues:
            cues = jnp.arange(self.segments, dtype=jnp.int32) % self.actions
        state = ProbeState(time=jnp.int32(0), cues=cues, matched=jnp.array(True))
        return self.get_obs(state), state

    def step_env(
        self, key: Array, state: ProbeState, action: Any, params: Any
    ) -> tuple[Array, ProbeState, Array, Array, dict[Any, Any]]:
        right = self._cue(state) == action
        matched = state.matched & right
        last = state.time + 1 == self.length
        sign = {"cue": self._cue(state) == 1, "action": action == jnp.int32(1), "match": right}
        if self.reward in sign:
            reward = jnp.where(sign[self.reward], 1.0, -1.0)
        else:
            paid = {"constant": True, "last": last, "all_matched": last & matched}
            reward = jnp.asarray(paid[self.reward])
        state = replace(state, time=state.time + 1, matched=matched)
        terminated = self.is_terminated(state, params)
        info = {"segment_start": state.time % self.segment_length == 0, "matched": matched}
        return self.get_obs(state), state, reward.astype(jnp.float32), terminated, info

    def is_terminated(self, state: ProbeState, params: Any) -> Bool[Array, ""]:
        return jnp.array(False) if self.endless else state.time >= self.length

    def get_obs(self, state: ProbeState, params: Any = None, key: Any = None) -> Float[Array, " D"]:
        if self.view == "nothing":
            return jnp.zeros(1, jnp.float32)
        if self.view == "time":
            return state.time.astype(jnp.float32)[None]
        if self.actions == 2:
            seen = (2 * self._cue(state) - 1).astype(jnp.float32)[None]
        else:
            seen = jax.nn.one_hot(self._cue(state), self.actions, dtype=jnp.float32)
        if self.view == "segment_start":
            seen = jnp.where(state.time % self.segment_length == 0, seen, 0.0)
        return seen

    def _cue(self, state: ProbeState) -> Int[Array, ""]:
        return state.cues[jnp.minimum(state.time // self.segment_length, self.segments - 1)]

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(self.actions)

    def observation_space(self, params: Any = None) -> spaces.Box:
        size = 1 if self.actions == 2 or self.view in ("nothing", "time") else self.actions
        return spaces.Box(-1.0, float(self.length), (size,), jnp.float32)


CONSTANT_REWARD = Probe("constant_reward", reward="constant")
OBSERVED_REWARD = Probe("observed_reward", reward="cue", view="cue")
DISCOUNTED_REWARD = Probe("discounted_reward", reward="last", view="time", segments=2)
CHOSEN_REWARD = Probe("chosen_reward", reward="action")
MATCHED_REWARD = Probe("matched_reward", reward="match", view="cue")
ENDLESS_REWARD = Probe("endless_reward", reward="constant", segment_length=4, endless=True)
HELD_CUE = Probe(
    "held_cue", reward="match", view="segment_start", actions=4, segments=3, segment_length=5
)
SPARSE_PLAN = Probe(
    "sparse_plan", reward="all_matched", view="time", segments=3, segment_length=4, fixed_cues=True
)

PROBES = (
    CONSTANT_REWARD,
    OBSERVED_REWARD,
    DISCOUNTED_REWARD,
    CHOSEN_REWARD,
    MATCHED_REWARD,
    ENDLESS_REWARD,
    HELD_CUE,
    SPARSE_PLAN,
)
