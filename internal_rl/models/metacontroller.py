"""The metacontroller: reads the residual stream, writes controls into it (paper App. D.2, Fig. 5).

Its parts bear the paper's names: history GRU, non-causal sequence embedder, encoder, switching unit, temporal
integration, decoder (a hypernetwork). For discovery the encoder proposes codes with knowledge of the future; for
internal RL a causal policy takes the encoder's place and the other parts stay as they are.

Letters: B batch, T time, D width of the residual stream, Z size of the code, H size of the history.
"""

from functools import lru_cache

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from internal_rl.config import MetacontrollerConfig
from internal_rl.demonstrations.contract import Batch
from internal_rl.models.contract import SplitModel
from internal_rl.models.control import Control, FullControl, LowRankControl
from internal_rl.models.networks import Network, make_network
from internal_rl.models.nn import MLP, GRUHistory, SequenceEmbedder, make_norm


@flax.struct.dataclass
class Discovery:
    """What one pass over expert sequences gives; every array starts with [B, T]."""

    z: jax.Array
    """Integrated codes [B, T, Z]."""
    gate: jax.Array
    """β_t as used in the integration, in [0, 1]."""
    switch_probability: jax.Array
    """sigmoid of the switching unit without noise; `first_step_switches` sets it to 1 at t = 0."""
    mean: jax.Array
    """Encoder means μ_t [B, T, Z]."""
    log_std: jax.Array
    """Encoder log standard deviations [B, T, Z]."""


@flax.struct.dataclass
class SeenStream:
    """Residual stream of an `EncoderView`, V tokens of its own time."""

    e: jax.Array
    """[B, V, D]."""
    valid: jax.Array
    """[B, V], False on padding."""
    token: jax.Array
    """[B, T]: the token that stands for step t."""


class SwitchingUnit(nnx.Module):
    """β_t = sigmoid(f_switch(e_t, h_{t−1}, z_{t−1})): an MLP whose first layer is split by input.

    The products with e_t and h_{t−1} do not depend on z, so they are computed for all t at once and only the small part
    in z runs inside the recursion.
    """

    def __init__(self, cfg: MetacontrollerConfig, width: int, rngs: nnx.Rngs):
        hidden = cfg.switch_hidden
        self.read = nnx.Linear(width + cfg.history_dim, hidden, rngs=rngs)
        self.read_code = nnx.Linear(cfg.code_dim, hidden, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(
            hidden, 1, rngs=rngs, bias_init=nnx.initializers.constant(cfg.gate_bias)
        )

    def precompute(self, e: jax.Array, history: jax.Array) -> jax.Array:
        """The part that does not depend on z: [..., hidden]."""
        return self.read(jnp.concatenate([e, history], axis=-1))

    def logit(self, pre: jax.Array, z: jax.Array) -> jax.Array:
        """Gate logits [...] from `precompute` and the integrated code z_{t−1} [..., Z]."""
        return self.out(nnx.relu(pre + self.read_code(z)))[..., 0]


class Decoder(nnx.Module):
    """f_hyp: code z [..., Z] → control U(z), a hypernetwork with one hidden layer. U starts near 0.

    With x = [relu(W z), 1] the low-rank factors are A(z) = Σ_k x_k A_k and B(z) = Σ_k x_k B_k. `control` applies
    them without building either per token: it contracts e with all A_k at once, then weights by x.
    """

    def __init__(self, cfg: MetacontrollerConfig, width: int, rngs: nnx.Rngs):
        self.rank = cfg.rank
        self.hidden = nnx.Linear(cfg.code_dim, cfg.decoder_hidden, rngs=rngs)
        terms = cfg.decoder_hidden + 1
        normal = jax.random.normal
        if cfg.rank:
            scale = (width * terms) ** -0.5
            self.read = nnx.Param(scale * normal(rngs.params(), (terms, cfg.rank, width)))
            scale = 0.3 * (cfg.rank * terms) ** -0.5
            self.write = nnx.Param(scale * normal(rngs.params(), (terms, width, cfg.rank)))
        else:
            scale = 0.1 * (width * terms) ** -0.5
            self.full = nnx.Param(scale * normal(rngs.params(), (terms, width, width)))

    def terms(self, z: jax.Array) -> jax.Array:
        """x = [relu(W z), 1]: [..., K]."""
        x = nnx.relu(self.hidden(z))
        return jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1))], axis=-1)

    def __call__(self, z: jax.Array) -> Control:
        """U(z) with the leading shape of z, as explicit factors; for analyses and tests."""
        x = self.terms(z)
        if not self.rank:
            return FullControl(u=jnp.einsum("...k,kij->...ij", x, self.full[...]))
        return LowRankControl(
            a=jnp.einsum("...k,krd->...rd", x, self.read[...]),
            b=jnp.einsum("...k,kdr->...dr", x, self.write[...]),
        )

    def control(self, e: jax.Array, z: jax.Array) -> jax.Array:
        """ê = e + U(z) e for e [..., D] and z [..., Z]."""
        x = self.terms(z)
        if not self.rank:  # never U itself, which would be D² numbers per token
            written = jnp.einsum(
                "...kd,...k->...d", jnp.einsum("...j,kij->...ki", e, self.full[...]), x
            )
            return e + written
        read = jnp.einsum("...k,...kr->...r", x, jnp.einsum("...d,krd->...kr", e, self.read[...]))
        weighted = x[..., :, None] * read[..., None, :]  # [..., K, r]
        return e + jnp.einsum("...kr,kdr->...d", weighted, self.write[...])


class Metacontroller(nnx.Module):
    """All parts together; see the module's first lines.

    Args:
        cfg: sizes and the gate's kind.
        width: D of the base model's residual stream.
        rngs: parameter keys.
    """

    def __init__(self, cfg: MetacontrollerConfig, width: int, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.input_norm = make_norm("layernorm", width, rngs) if cfg.input_norm else None
        self.history = GRUHistory(width, cfg.history_dim, rngs=rngs)
        self.embedder = SequenceEmbedder(
            width,
            cfg.embedding_width,
            cfg.embedding_depth,
            cfg.embedding_dim,
            cfg.embedding_readout,
            rngs=rngs,
        )
        self.encoder = MLP(
            width + cfg.history_dim + cfg.embedding_dim,
            cfg.encoder_hidden,
            2 * cfg.code_dim,
            rngs=rngs,
        )
        self.switch = SwitchingUnit(cfg, width, rngs)
        self.decoder = Decoder(cfg, width, rngs)

    def read(self, e: jax.Array) -> jax.Array:
        """The residual stream as every part but the control reads it (normalised if `input_norm`)."""
        return e if self.input_norm is None else self.input_norm(e)

    def init_history(self, batch: int) -> jax.Array:
        """h_0 [B, H]."""
        return self.history.init_carry((batch,))

    def switch_probability(self, e: jax.Array, history: jax.Array, z: jax.Array) -> jax.Array:
        """One step of the switching unit, for rollouts.

        Args:
            e: e_t [B, D].
            history: h_{t−1} [B, H].
            z: the integrated code z_{t−1} [B, Z], not the proposal.

        Returns:
            β_t [B].
        """
        logit = self.switch.logit(self.switch.precompute(self.read(e), history), z)
        return jax.nn.sigmoid(logit)

    def history_step(self, e: jax.Array, history: jax.Array) -> jax.Array:
        """h_t = GRU(e_t, h_{t−1}): [B, D], [B, H] → [B, H]."""
        return self.history.step(self.read(e), history)[0]

    def discover(
        self,
        e: jax.Array,
        valid: jax.Array,
        key: jax.Array,
        *,
        sample: bool = True,
        random_switches: jax.Array | None = None,
        seen: SeenStream | None = None,
    ) -> Discovery:
        """Encode expert sequences into switching codes.

        Args:
            e: residual stream e_{1:T} [B, T, D].
            valid: [B, T], False on right padding.
            key: for code and gate noise.
            sample: False uses the encoder's mean and thresholds the gate at 1/2 for kinds other than `soft`.
            random_switches: scalar bool; True puts switches at random times instead of asking the switching unit.
            seen: what encoder and embedder read in place of e, history included; None: e. The switching unit and the
                control keep e.
        """
        batch, steps, _ = e.shape
        x = self.read(e)
        key_code, key_gate, key_random = jax.random.split(key, 3)

        previous = self._previous_history(x, valid)
        if seen is None:
            inputs = jnp.concatenate([x, previous, self.embedder(x, valid)], axis=-1)
        else:
            y = self.read(seen.e)
            parts = [y, self._previous_history(y, seen.valid), self.embedder(y, seen.valid)]
            inputs = jnp.concatenate(parts, axis=-1)
            inputs = jnp.take_along_axis(inputs, seen.token[..., None], axis=1)
        mean, log_std = jnp.split(self.encoder(inputs), 2, axis=-1)
        log_std = jnp.clip(log_std, -7.0, 2.0)
        proposal = mean
        if sample:
            proposal += jnp.exp(log_std) * jax.random.normal(key_code, mean.shape)

        noise = jnp.zeros((batch, steps))
        if sample and self.cfg.gate != "soft":
            noise = jax.random.logistic(key_gate, (batch, steps))
        first = jnp.zeros((steps,), bool).at[0].set(self.cfg.first_step_switches)
        pre = self.switch.precompute(x, previous)
        drawn = jnp.zeros((batch, steps), bool)
        if random_switches is not None:
            drawn = jax.random.bernoulli(key_random, self.cfg.random_switch_rate, (batch, steps))

        def step(z, inputs):
            pre_t, proposal_t, noise_t, drawn_t, first_t = inputs
            logit = self.switch.logit(pre_t, z)
            gate = self._gate(logit, noise_t)
            if random_switches is not None:
                gate = jnp.where(random_switches, drawn_t.astype(gate.dtype), gate)
            forced = first_t | self.cfg.forced_switching
            gate = jnp.where(forced, 1.0, gate)
            probability = jnp.where(forced, 1.0, jax.nn.sigmoid(logit))
            # Replace, not keep: β = 1 takes the proposal (App. D.2).
            z = gate[:, None] * proposal_t + (1.0 - gate)[:, None] * z
            return z, (z, gate, probability)

        over_time = (
            jnp.swapaxes(pre, 0, 1),
            jnp.swapaxes(proposal, 0, 1),
            noise.T,
            drawn.T,
            first,
        )
        z0 = jnp.zeros((batch, self.cfg.code_dim))
        _, (z, gate, probability) = jax.lax.scan(step, z0, over_time)
        return Discovery(
            z=jnp.swapaxes(z, 0, 1),
            gate=gate.T,
            switch_probability=probability.T,
            mean=mean,
            log_std=log_std,
        )

    def _previous_history(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """h_{t-1} at every t: [B, T, D] → [B, T, H]."""
        _, h = self.history(x, None, None, valid)
        return jnp.concatenate([self.init_history(x.shape[0])[:, None], h[:, :-1]], axis=1)

    def _gate(self, logit: jax.Array, noise: jax.Array) -> jax.Array:
        if self.cfg.gate == "soft":
            return jax.nn.sigmoid(logit)
        relaxed = jax.nn.sigmoid((logit + noise) / self.cfg.gate_temperature)
        if self.cfg.gate == "gumbel":
            return relaxed
        # Straight-through: a binary value going forward, the relaxed sample's gradient going back.
        binary = (logit + noise > 0).astype(relaxed.dtype)
        return relaxed + jax.lax.stop_gradient(binary - relaxed)


@lru_cache(maxsize=64)
def metacontroller_network(cfg: MetacontrollerConfig, width: int) -> Network[Metacontroller]:
    """The metacontroller of a config for a residual stream of this width."""
    return make_network(lambda rngs: Metacontroller(cfg, width, rngs=rngs))


def encode(
    base: SplitModel,
    meta: Metacontroller,
    batch: Batch,
    key: jax.Array,
    *,
    sample: bool = True,
    random_switches: jax.Array | None = None,
) -> tuple[jax.Array, Discovery]:
    """Residual stream [B, T, D] of expert rows, and the codes found in it.

    The encoder reads `batch.view` if there is one, through the same layers of the base model.
    """
    _, e = base.lower(batch.obs, None, batch.reset)
    seen = None
    if batch.view is not None:
        view = batch.view
        first = jnp.zeros(view.valid.shape, bool).at[:, 0].set(True)
        seen = SeenStream(base.lower(view.obs, None, first)[1], view.valid, view.token)
    found = meta.discover(
        e, batch.valid, key, sample=sample, random_switches=random_switches, seen=seen
    )
    return e, found
