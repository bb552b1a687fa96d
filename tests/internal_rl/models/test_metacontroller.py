"""`discover` against a slow loop over rows and steps in numpy, and what each setting promises."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from internal_rl.config import Config
from tests.internal_rl.small import SMOKE, assert_close, bind_meta, changed, meta_params, normal

BATCH, TIME, WIDTH, CODE = 3, 7, SMOKE.model.width, SMOKE.metacontroller.code_dim
LENGTHS = np.array([7, 4, 1])
VALID = np.arange(TIME)[None] < LENGTHS[:, None]
KEY = jax.random.key(11)
E = normal(0, BATCH, TIME, WIDTH)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def with_(**fields) -> Config:
    return changed(SMOKE, metacontroller=fields)


def discover(config=SMOKE, params=None, e=E, valid=VALID, *, sample=True, key=KEY):
    params = meta_params(config) if params is None else params
    return jax.device_get(compiled(config, sample)(params, e, jnp.asarray(valid), key))


@cache
def compiled(config, sample):
    return jax.jit(
        lambda params, e, valid, key: bind_meta(params, config).discover(
            e, valid, key, sample=sample
        )
    )


def with_gate_logit(params, value):
    """The switching unit puts out this logit whatever it reads."""
    switch = params["switch"]
    out = {
        "kernel": jnp.zeros_like(switch["out"]["kernel"]),
        "bias": jnp.full_like(switch["out"]["bias"], value),
    }
    return params | {"switch": switch | {"out": out}}


def with_silent_encoder(params):
    """μ = 0 and log σ = 0 everywhere, so that without noise every code is 0."""
    return params | {"encoder": jax.tree.map(jnp.zeros_like, params["encoder"])}


@cache
def noise():
    """The noise that KEY stands for, by probing: of codes [B, T, Z] and of the gate [B, T]."""
    free = with_(first_step_switches=False)
    codes = discover(free, with_gate_logit(with_silent_encoder(meta_params(free)), 60.0)).z
    relaxed = with_(first_step_switches=False, gate="gumbel", gate_temperature=1.0)
    gate = discover(relaxed, with_gate_logit(meta_params(relaxed), 0.0)).gate.astype(np.float64)
    return codes, np.log(gate) - np.log1p(-gate)


def slow_discover(config, params, *, reads_proposal=False, reads_present=False):
    """App. D.2 step by step. The two flags are mistakes that the comparison has to notice."""
    cfg = config.metacontroller
    p = jax.tree.map(np.asarray, params)
    code_noise, gate_noise = noise()
    embed = jax.jit(lambda params: bind_meta(params, config).embedder(E, jnp.asarray(VALID)))
    gru = jax.jit(lambda params, e, h: bind_meta(params, config).history.step(e, h)[0])
    s = np.asarray(embed(params))
    e = np.asarray(E)

    def mlp(p, x):
        hidden = np.maximum(x @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
        return hidden @ p["out"]["kernel"] + p["out"]["bias"]

    z = np.zeros((BATCH, TIME, CODE))
    gates, probabilities = np.zeros((BATCH, TIME)), np.zeros((BATCH, TIME))
    means, log_stds = np.zeros_like(z), np.zeros_like(z)
    for b in range(BATCH):
        history = np.zeros(cfg.history_dim)
        z_before, proposal_before = np.zeros(CODE), np.zeros(CODE)
        for t in range(LENGTHS[b]):
            after = gru(params, E[b, t][None], jnp.asarray(history, jnp.float32)[None])
            after = np.asarray(after[0], np.float64)
            seen = after if reads_present else history
            mean, log_std = np.split(mlp(p["encoder"], np.concatenate([e[b, t], seen, s[b, t]])), 2)
            log_std = np.clip(log_std, -7.0, 2.0)
            proposal = mean + np.exp(log_std) * code_noise[b, t]
            code = proposal_before if reads_proposal else z_before
            switch = p["switch"]
            hidden = np.concatenate([e[b, t], seen]) @ switch["read"]["kernel"]
            hidden = hidden + switch["read"]["bias"] + code @ switch["read_code"]["kernel"]
            logit = np.maximum(hidden, 0) @ switch["out"]["kernel"][:, 0] + switch["out"]["bias"][0]
            noisy = sigmoid((logit + gate_noise[b, t]) / cfg.gate_temperature)
            gate = {
                "soft": sigmoid(logit),
                "gumbel": noisy,
                "hard": float(logit + gate_noise[b, t] > 0),
            }[cfg.gate]
            probability = sigmoid(logit)
            if cfg.forced_switching or (t == 0 and cfg.first_step_switches):
                gate = probability = 1.0
            z[b, t] = gate * proposal + (1 - gate) * z_before
            gates[b, t], probabilities[b, t] = gate, probability
            means[b, t], log_stds[b, t] = mean, log_std
            history, z_before, proposal_before = after, z[b, t], proposal
    return z, gates, probabilities, means, log_stds


def fields_of(found):
    return found.z, found.gate, found.switch_probability, found.mean, found.log_std


@pytest.mark.parametrize(
    "config",
    [
        with_(),
        with_(first_step_switches=False, embedding_readout="reverse"),
        with_(gate="gumbel", gate_temperature=0.7),
        with_(gate="hard", embedding_readout="bidirectional"),
        with_(forced_switching=True),
    ],
    ids=["soft", "soft-free-start", "gumbel", "hard", "forced"],
)
def test_equals_a_slow_loop(config):
    found = fields_of(discover(config))
    expected = slow_discover(config, meta_params(config))
    for name, fast, slow in zip(
        ("z", "gate", "probability", "mean", "log_std"), found, expected, strict=True
    ):
        np.testing.assert_allclose(fast[VALID], slow[VALID], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("mistake", ["reads_proposal", "reads_present"])
def test_the_comparison_notices_what_others_got_wrong(mistake):
    """The switching unit reads z_{t-1} and h_{t-1}: not the proposal, not the present."""
    found = discover().switch_probability
    wrong = slow_discover(SMOKE, meta_params(), **{mistake: True})[2]
    assert np.abs(found - wrong)[VALID].max() > 1e-2


def test_beta_means_replace_not_keep():
    params = meta_params(with_(first_step_switches=False))
    config = with_(first_step_switches=False)
    always = discover(config, with_gate_logit(params, 60.0))
    proposal = always.mean + np.exp(always.log_std) * noise()[0]
    assert_close(always.z, proposal)  # β = 1 replaces
    never = discover(config, with_gate_logit(params, -60.0))
    np.testing.assert_allclose(never.z, 0.0, atol=1e-6)  # β = 0 keeps, and nothing was there
    first = discover(with_(), with_gate_logit(params, -60.0))
    assert_close(first.z, np.repeat(proposal[:, :1], TIME, axis=1))  # the first code stays
    np.testing.assert_array_equal(first.switch_probability[:, 0], 1.0)
    assert (first.switch_probability[:, 1:] < 1e-6).all()
    half = discover(config, with_gate_logit(params, 0.0))
    assert_close(half.z[:, 0], 0.5 * proposal[:, 0])
    assert_close(half.z[:, 1], 0.5 * proposal[:, 1] + 0.25 * proposal[:, 0])


@pytest.mark.parametrize("readout", ["last", "reverse", "bidirectional"])
def test_codes_know_the_future_and_switches_do_not(readout):
    config = with_(embedding_readout=readout)
    full = np.ones_like(VALID)
    before = discover(config, valid=full)
    changed_e = E.at[:, 5].add(1.0)
    after = discover(config, e=changed_e, valid=full)
    # The proposal at t = 0 sees step 5: the embedding is not causal.
    assert np.abs(before.mean[:, 0] - after.mean[:, 0]).max() > 1e-4
    assert np.abs(before.z[:, 0] - after.z[:, 0]).max() > 1e-4
    # With z held fixed the switching unit is causal.
    silent = with_silent_encoder(meta_params(config))
    before = discover(config, silent, valid=full, sample=False).switch_probability
    after = discover(config, silent, e=changed_e, valid=full, sample=False).switch_probability
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.abs(before[:, 5] - after[:, 5]).max() > 1e-3  # e_t
    assert np.abs(before[:, 6] - after[:, 6]).max() > 1e-5  # h_{t-1}


@pytest.mark.parametrize("readout", ["last", "reverse", "bidirectional"])
@pytest.mark.parametrize("gate", ["soft", "hard"])
def test_padding_has_no_influence(readout, gate):
    config = with_(embedding_readout=readout, gate=gate)
    found = fields_of(discover(config))
    garbage = jnp.where(jnp.asarray(VALID)[..., None], E, 77.0)
    for one, other in zip(found, fields_of(discover(config, e=garbage)), strict=True):
        np.testing.assert_array_equal(one[VALID], other[VALID])
        assert np.isfinite(other).all()
    # Nor has its length.
    short = fields_of(discover(config, sample=False, e=E[:, :4], valid=VALID[:, :4]))
    long = fields_of(discover(config, sample=False))
    for one, other in zip(short, long, strict=True):
        assert_close(one[1:][VALID[1:, :4]], other[1:, :4][VALID[1:, :4]])


def test_gate_kinds_with_the_same_logits():
    """All kinds share one switch probability while z is the same; they differ in what is mixed."""
    logit, batch = 0.8, 4096
    e = jnp.zeros((batch, 1, WIDTH))
    valid = np.ones((batch, 1), bool)
    params = with_gate_logit(meta_params(), logit)
    gates = {
        kind: discover(with_(gate=kind, first_step_switches=False), params, e, valid)
        for kind in ("soft", "gumbel", "hard")
    }
    for found in gates.values():
        assert_close(found.switch_probability, np.full((batch, 1), sigmoid(logit)))
    assert_close(gates["soft"].gate, np.full((batch, 1), sigmoid(logit)))
    assert set(np.unique(gates["hard"].gate)) == {0.0, 1.0}
    assert abs(gates["hard"].gate.mean() - sigmoid(logit)) < 0.03
    relaxed = gates["gumbel"].gate
    assert ((relaxed > 0) & (relaxed < 1)).all()
    # P(σ((l + logistic) / τ) > x) has a closed form; at x = 1/2 it is σ(l).
    assert abs((relaxed > 0.5).mean() - sigmoid(logit)) < 0.03
    assert relaxed.std() > 0.2


@pytest.mark.parametrize("gate", ["soft", "gumbel", "hard"])
def test_gradient_reaches_the_switching_unit(gate):
    config = with_(gate=gate)
    weight = normal(9, BATCH, TIME, CODE)

    @jax.jit
    def gradient(params):
        def objective(params):
            found = bind_meta(params, config).discover(E, jnp.asarray(VALID), KEY)
            return jnp.sum(weight * found.z)

        return jax.grad(objective)(params)

    grads = gradient(meta_params(config))["switch"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_hard_gate_passes_on_the_gradient_of_the_relaxed_one():
    """One step: z = β z~, so dz/dlogit = z~ · σ'((l + noise)/τ)/τ although β is 0 or 1."""
    config = with_(gate="hard", gate_temperature=0.5, first_step_switches=False)
    params = with_gate_logit(meta_params(), 0.3)
    e = E[:, :1]
    valid = jnp.ones((BATCH, 1), bool)

    def total(bias):
        changed_params = with_gate_logit(params, bias)
        found = bind_meta(changed_params, config).discover(e, valid, KEY)
        return found.z.sum(), found

    grad, found = jax.jit(jax.grad(total, has_aux=True))(jnp.float32(0.3))
    always = discover(config, with_gate_logit(params, 60.0), e, valid)
    soft = with_(gate="gumbel", gate_temperature=0.5, first_step_switches=False)
    relaxed = discover(soft, params, e, valid).gate
    assert set(np.unique(found.gate)) <= {0.0, 1.0}
    expected = (always.z.sum(-1) * relaxed * (1 - relaxed) / 0.5).sum()
    assert_close(grad, expected, rtol=1e-3)


def test_noise_has_the_right_distribution():
    """Standard normal for codes, logistic for gates (variance π²/3), fresh for another key."""
    e, valid = jnp.zeros((1024, 4, WIDTH)), np.ones((1024, 4), bool)
    free = with_(first_step_switches=False, gate="gumbel")
    silent = with_silent_encoder(meta_params(free))
    codes = discover(free, with_gate_logit(silent, 60.0), e, valid).z
    assert abs(codes.mean()) < 0.05
    assert abs(codes.std() - 1) < 0.03
    gate = discover(free, with_gate_logit(silent, 0.0), e, valid).gate.astype(np.float64)
    logistic = np.log(gate) - np.log1p(-gate)
    assert abs(logistic.mean()) < 0.1
    assert abs(logistic.std() - np.pi / np.sqrt(3)) < 0.06
    correlation = np.corrcoef(codes[..., 0].ravel(), logistic.ravel())[0, 1]
    assert abs(correlation) < 0.05
    other = discover(free, with_gate_logit(silent, 60.0), e, valid, key=jax.random.key(12)).z
    assert abs(np.corrcoef(codes.ravel(), other.ravel())[0, 1]) < 0.05


def test_random_switches_ask_nobody():
    """A scaffold for early training: gates at random times, the unit's own opinion untouched."""
    config = with_(random_switch_rate=0.3)
    params = with_gate_logit(meta_params(config), -60.0)
    e, valid = jnp.zeros((512, 8, WIDTH)), jnp.ones((512, 8), bool)

    @jax.jit
    def run(flag):
        return bind_meta(params, config).discover(e, valid, KEY, random_switches=flag)

    on, off = jax.device_get((run(jnp.bool_(True)), run(jnp.bool_(False))))
    assert set(np.unique(on.gate)) == {0.0, 1.0}
    np.testing.assert_array_equal(on.gate[:, 0], 1.0)
    assert abs(on.gate[:, 1:].mean() - 0.3) < 0.03
    assert (off.gate[:, 1:] < 1e-6).all()
    np.testing.assert_array_equal(on.switch_probability, off.switch_probability)


def test_single_steps_agree_with_whole_sequences():
    """Rollouts use `switch_probability` and `history_step`; discovery runs all steps at once."""
    params = meta_params()
    found = discover(sample=False)
    meta = bind_meta(params)
    step = jax.jit(
        lambda p, e, h, z: (
            bind_meta(p).switch_probability(e, h, z),
            bind_meta(p).history_step(e, h),
        )
    )
    history, z = meta.init_history(BATCH), jnp.zeros((BATCH, CODE))
    for t in range(TIME):
        probability, history = step(params, E[:, t], history, z)
        if t > 0:
            alive = VALID[:, t]
            assert_close(probability[alive], found.switch_probability[alive, t])
        z = jnp.asarray(found.z[:, t])


def test_input_norm_reads_normalised_but_writes_raw():
    config = with_(input_norm=True)
    params = meta_params(config)
    scaled = discover(config, params, e=7.0 * E, sample=False)
    assert_close(scaled.z, discover(config, params, sample=False).z, atol=1e-3)
    assert np.abs(discover(e=7.0 * E, sample=False).z - discover(sample=False).z).max() > 1e-2
    decoder, z = bind_meta(params, config).decoder, normal(5, BATCH, TIME, CODE)
    # Linear in e itself, not in its normalised form.
    assert_close(decoder.control(2.0 * E, z), 2.0 * decoder.control(E, z))
