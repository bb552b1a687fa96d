"""What the codes mean: codes collected while the expert heads for a sub-goal, replayed elsewhere (paper Figs 6, A3).

If codes stand for sub-goals, a code recorded while the expert headed for sub-goal g takes the agent to g from other
layouts, at other times, and in orders never seen in training.
"""

import flax.struct
import jax
import jax.numpy as jnp

from internal_rl.demonstrations.contract import Batch
from internal_rl.models.contract import SplitModel
from internal_rl.models.metacontroller import Metacontroller, encode
from internal_rl.play.controllers import Controller, Decision


@flax.struct.dataclass
class CodeBank:
    """Codes in force at the last step of expert segments, grouped by the sub-goal that the segment headed for."""

    codes: jax.Array
    """[N, Z]."""
    weight: jax.Array
    """[G, N] one where code n belongs to sub-goal g, else 0."""


def collect_codes(
    base: SplitModel, meta: Metacontroller, batch: Batch, key: jax.Array, num_goals: int
) -> CodeBank:
    """Encode expert rows [B, T] (one trajectory each) and keep one code per segment, the one in force at its end."""
    _, found = encode(base, meta, batch, key, sample=False)
    after = jnp.pad(batch.subgoal[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    valid_after = jnp.pad(batch.valid[:, 1:], ((0, 0), (0, 1)))
    last = batch.valid & ((after != batch.subgoal) | ~valid_after)
    goal = jnp.arange(num_goals, dtype=batch.goal.dtype).reshape(-1, 1)
    weight = (batch.goal.reshape(1, -1) == goal) & last.reshape(1, -1)
    codes = found.z.reshape(-1, found.z.shape[-1])
    return CodeBank(codes=codes, weight=weight.astype(codes.dtype))


def replay_controller(meta: Metacontroller, bank: CodeBank) -> Controller:
    """At every true sub-goal change, draw a recorded code of that sub-goal; the switching unit is not used.

    Where none was recorded for it, or it is unknown, the code stays as it is (at the start: zeros).
    """
    known = jnp.any(bank.weight > 0, axis=1)

    def act(key, e, state, goal):
        previous, z = state
        drawn = bank.codes[jax.random.categorical(key, jnp.log(bank.weight)[goal])]
        switch = (goal != previous) & (goal >= 0) & known[goal]
        z = jnp.where(switch[:, None], drawn, z)
        decision = Decision(
            switch=switch,
            gate=switch.astype(e.dtype),
            z=z,
            log_prob=jnp.zeros_like(goal, dtype=e.dtype),
        )
        return (goal, z), meta.decoder.control(e, z), decision

    def init(batch):
        return jnp.full((batch,), -1, jnp.int32), jnp.zeros((batch, meta.cfg.code_dim))

    return Controller(init=init, act=act)
