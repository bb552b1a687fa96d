"""Every setting of the four stages, as frozen dataclasses.

A `Config` describes the whole pipeline (pretrain → discover → reinforce → evaluate), so that one JSON file in a run
directory is enough to resume a run or to start the next stage from it. Named presets live in `configs/`. The string
below each field is its `--help` text. Fields that the paper (arXiv 2512.20605) leaves open say so.
"""

from dataclasses import dataclass, field
from typing import Literal

from agents.credit.config import SampledCreditConfig
from internal_rl.models.decoders.config import DecoderConfig


@dataclass(frozen=True)
class PinpadConfig:
    """Gridworld-pinpad (paper App. A)."""

    world: Literal["gridworld-pinpad"] = "gridworld-pinpad"
    """Which world."""
    grid_size: int = 4
    """G: the grid has G×G cells."""
    num_objects: int = 4
    """O: number of uniquely coloured cells."""
    num_walls: int = 1
    """W: number of wall cells."""
    horizon: int = 24
    """T: an episode is truncated after this many steps."""
    observation: Literal["egocentric", "offsets", "onehot"] = "egocentric"
    """onehot: the paper's per-cell one-hot. egocentric: one-hot row and column offsets of every object and wall
    relative to the agent, plus the agent's own row and column. offsets: egocentric without the latter two."""
    pretrain_tasks: tuple[str, ...] = ()
    """Tasks of the pretraining data; one digit per colour, e.g. 032."""
    heldout_tasks: tuple[str, ...] = ()
    """Tasks of internal RL and of the evaluation, never seen in training."""


@dataclass(frozen=True)
class TokenConfig:
    """The token world: write named chunks of tokens in a hidden order; a verifier pays for all (docs/tokens.md)."""

    world: Literal["tokens"] = "tokens"
    """Which world."""
    num_chunks: int = 4
    """C: the language has the first C of eight chunks."""
    symbols: int = 12
    """Size of the alphabet; the prompt of every episode has four different symbols of it."""
    horizon: int = 23
    """T: an episode is truncated after this many steps, the reading of the prompt included."""
    fail_early: bool = True
    """A token that no correct text has at its place ends the episode; else the verifier looks at the end only."""
    pretrain_tasks: tuple[str, ...] = ()
    """Tasks of the pretraining data; one digit per chunk, e.g. 0213."""
    heldout_tasks: tuple[str, ...] = ()
    """Tasks of internal RL and of the evaluation, never seen in training."""


@dataclass(frozen=True)
class OwnWorldConfig:
    """A world of your own (docs/own-world.md)."""

    world: str = ""
    """path/to/file.py:NAME of a function (tasks) → World."""
    pretrain_tasks: tuple[str, ...] = ()
    """What that function is called with for the world of the demonstrations."""
    heldout_tasks: tuple[str, ...] = ()
    """What it is called with for the world of internal RL and of the evaluation."""


EnvConfig = PinpadConfig | TokenConfig | OwnWorldConfig
"""One class per world; their field `world` tells them apart."""


@dataclass(frozen=True)
class DataConfig:
    """Where demonstrations come from."""

    source: str = ""
    """Behaviour of pretraining: a folder made by `internal-rl data`, or path/to/file.py:NAME of a function (world) →
    Demonstrations or a sequence of episodes. Empty: the expert that comes with the world."""
    clean_source: str = ""
    """Clean behaviour for discovery, likewise; empty: that of `source`."""
    device_gib: float = 1.0
    """Recorded data up to this size is kept on the device; larger data is fed in chunks, one copy per chunk."""


@dataclass(frozen=True)
class ModelConfig:
    """Base model (App. D.1)."""

    name: Literal["residual"] = "residual"
    """Which model."""
    mixer: Literal["transformer", "hawk"] = "transformer"
    """Sequence mixer of every block."""
    width: int = 256
    """n_e: width of the residual stream."""
    depth: int = 6
    """L: number of residual blocks."""
    mlp_width: int = 512
    """Hidden width of the ReLU MLP in every block."""
    num_heads: int = 4
    """Attention heads (Transformer)."""
    head_dim: int = 64
    """Size of one attention head (Transformer)."""
    num_buckets: int = 32
    """Relative-position buckets (Transformer, T5 style)."""
    max_distance: int = 128
    """Distance from which all positions share the last bucket. Not given in the paper."""
    lru_width: int = 256
    """Width of the RG-LRU (Hawk)."""
    lru_blocks: int = 8
    """Gate blocks of the RG-LRU (Hawk); the paper calls them heads."""
    conv_width: int = 4
    """Causal convolution width (Hawk). Not given in the paper; Griffin's value."""
    ring_applies_to: Literal["a", "a_pow_c"] = "a"
    """Which quantity the RG-LRU ring initialisation in [0.9, 0.999] applies to (Griffin's code: a)."""
    norm: Literal["by_mixer", "layernorm", "rmsnorm"] = "by_mixer"
    """Pre-norm of every block; by_mixer: LayerNorm for the Transformer, RMSNorm for Hawk. Not given in the paper."""
    init_scale: float = 0.1
    """Variance scaling (fan-in) of every weight matrix."""
    residual_init: Literal["same", "depth_scaled"] = "same"
    """depth_scaled: matrices that write into the residual stream use scale 2/L (Griffin's default)."""

    @property
    def norm_kind(self) -> Literal["layernorm", "rmsnorm"]:
        """`norm` with the mixer's own where none is named."""
        if self.norm == "by_mixer":
            return "rmsnorm" if self.mixer == "hawk" else "layernorm"
        return self.norm


@dataclass(frozen=True)
class OwnModelConfig:
    """A base model of your own (docs/own-model.md)."""

    name: str = ""
    """path/to/file.py:NAME of a function (obs_spec, action_spec, max_len) → SplitNetwork."""


BaseModelConfig = ModelConfig | DecoderConfig | OwnModelConfig
"""One class per kind of base model; their field `name` tells them apart."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW."""

    learning_rate: float = 3e-4
    """Peak learning rate."""
    weight_decay: float = 0.03
    """Decoupled weight decay; not applied to biases, norm scales and the RG-LRU's a."""
    b1: float = 0.9
    """AdamW β1."""
    b2: float = 0.999
    """AdamW β2."""
    schedule: Literal["constant", "cosine"] = "constant"
    """cosine: decays to a twentieth of the peak, over the last `decay_steps` gradient steps of the stage."""
    decay_steps: int = 0
    """Length of the cosine decay, at most what the warm-up leaves; 0: all of that."""
    warmup_steps: int = 0
    """Linear warm-up from zero."""
    grad_clip: float = 0.0
    """Clip gradients to this global norm; 0 switches clipping off. Not in the paper."""


@dataclass(frozen=True)
class PretrainConfig:
    """Stage 1: next-action prediction on expert behaviour (spec section 1)."""

    steps: int = 256_000
    """Gradient steps."""
    batch_size: int = 1024
    """Sequences per gradient step. With packing, rows of `horizon` tokens."""
    packing: bool = True
    """Put several trajectories into one row, kept apart by resets; about the same gradient for less compute."""
    obs_loss_weight: float = 0.01
    """λ: weight of the next-observation likelihood."""
    epsilon: float = 0.0
    """Probability of replacing an expert action by a random non-terminating one."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(frozen=True)
class MetacontrollerConfig:
    """Metacontroller architecture (App. D.2)."""

    code_dim: int = 8
    """n_z: size of the abstract-action code z."""
    history_dim: int = 32
    """n_h: width of the history GRU."""
    embedding_dim: int = 32
    """n_s: size of the non-causal sequence embedding s(e_1:T)."""
    embedding_readout: Literal["last", "reverse", "bidirectional"] = "last"
    """last: one vector of the whole sequence (the paper's wording). reverse: s_t sees e_t:T. bidirectional: s_t sees all,
    per step."""
    embedding_width: int = 64
    """Width of the Hawk blocks of the sequence embedder. Not given in the paper."""
    embedding_depth: int = 1
    """Hawk blocks of the sequence embedder. Not given in the paper."""
    encoder_hidden: int = 64
    """Hidden width of the encoder MLP."""
    switch_hidden: int = 64
    """Hidden width of the switching unit. Not given in the paper."""
    decoder_hidden: int = 32
    """Hidden width of the hypernetwork decoder."""
    rank: int = 16
    """Rank of the control matrix U_t; 0 means a full n_e×n_e matrix."""
    input_norm: bool = False
    """LayerNorm on the residual stream as the metacontroller's parts read it, never on what they write. Not in the
    paper."""
    gate: Literal["soft", "gumbel", "hard"] = "soft"
    """β during discovery. soft: the paper's sigmoid. gumbel: relaxed Bernoulli sample (paper, Fig. 7). hard: binary
    Gumbel-sigmoid sample with straight-through gradient."""
    gate_temperature: float = 1.0
    """Temperature of the Gumbel-sigmoid gate."""
    random_switch_rate: float = 0.25
    """Probability of a switch per step while discovery's `random_switch_steps` last."""
    gate_bias: float = 0.0
    """Initial bias of the switching unit's output. Not given in the paper."""
    first_step_switches: bool = True
    """The first step always switches (β_1 = 1), since no code exists before it. The paper leaves it open."""
    forced_switching: bool = False
    """Ablation: β = 1 at every step, during training and in RL."""


@dataclass(frozen=True)
class DiscoverConfig:
    """Stage 2: self-supervised discovery of abstract actions."""

    steps: int = 64_000
    """Gradient steps."""
    batch_size: int = 512
    """Trajectories per gradient step."""
    controlled_layer: int = -1
    """l: the metacontroller reads and writes the residual stream after l blocks (0 = the embedding, −1 = half of the
    model's depth, as in the paper)."""
    kl_weight: float = 0.1
    """α: weight of the KL between the code's posterior and N(0, I)."""
    kl_warmup_steps: int = 0
    """α rises linearly over this many steps. Not in the paper."""
    kl_warmup_start: float = 0.02
    """Fraction of α before the warm-up. With too much the codes collapse before the decoder has learnt to use them."""
    kl_hold_steps: int = 0
    """Steps before the warm-up begins. Not in the paper."""
    tail_steps: int = 0
    """The last steps: switches and codes are found by then, and the decoder gets time to make the most of them. Not in
    the paper."""
    tail_kl_weight: float = 0.0
    """α in the last `tail_steps`; a low one makes codes exact, and strong enough to overrule the base model."""
    tail_kl_decay_steps: int = 0
    """Steps at the beginning of the tail over which α falls geometrically from `kl_weight`; 0: at once."""
    tail_tie_breaking: Literal["uniform", "deterministic"] = "uniform"
    """`tie_breaking` in the last `tail_steps`."""
    obs_loss_weight: float = 0.0
    """λ of this stage; the paper uses 0."""
    random_switch_steps: int = 0
    """Steps at the start in which switches fall at random times, so that codes must serve for several steps before the
    switching unit learns when to change them. Not in the paper."""
    tie_breaking: Literal["uniform", "deterministic"] = "uniform"
    """Pinpad's expert: its choice among equally short paths in D*. deterministic removes noise that competes with the
    goals."""
    encoder_view: Literal["same", "symmetric"] = "same"
    """What the encoder reads. same: the trajectory that is to be explained (paper). symmetric: the same trajectory with
    its grid turned or mirrored by one of the square's eight symmetries, drawn anew for every trajectory, so that codes
    can name objects but not places or directions. Not in the paper."""
    encoder_end: bool = True
    """Such a view ends with o_{T+1}, the observation that the last action led to."""
    encoder_stretch: int = 0
    """Above 0: the encoder reads the trajectory stretched to `encoder_stretch` × T tokens, every observation repeated
    at random, so that codes can hardly name numbers of steps. At least 2. Not in the paper."""
    candidates: int = 1
    """Metacontrollers that train side by side in one run, of which the best goes on. Not in the paper."""
    select_steps: int = 0
    """With several candidates: the step after which only the one with the lowest loss goes on."""
    cotrain: bool = False
    """Ablation: train the base model together with the metacontroller."""
    cotrain_from_scratch: bool = True
    """With cotrain: start from a random base model (paper's grid ablation) instead of the pretrained one."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=1e-3))


@dataclass(frozen=True)
class ReinforceConfig:
    """Stage 3: RL on the held-out tasks, with a critic-free PPO objective (App. C.5)."""

    method: Literal["internal", "raw_action"] = "internal"
    """internal: learn π(z | e). raw_action: fine-tune the base model's own weights token by token."""
    iterations: int = 100_000
    """Rollout-and-update iterations."""
    batch_size: int = 1024
    """Episodes per iteration."""
    epochs: int = 1
    """Passes over a batch. Not given in the paper."""
    minibatches: int = 1
    """Minibatches per epoch. Not given in the paper."""
    clip: float = 0.2
    """PPO clip ε. Not given in the paper."""
    advantage_delta: float = 1e-3
    """δ in A = (R − mean R) / (std R + δ)."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus; the paper uses 0."""
    switch_threshold: float = 0.5
    """β_threshold: the policy acts when β reaches it."""
    policy_width: int = 256
    """Width of the policy's Hawk block."""
    policy_lru_blocks: int = 8
    """Gate blocks of the policy's RG-LRU."""
    abstract_steps: int = 0
    """Updates see at most this many abstract steps of an episode, the first ones; 0: all. Episodes rarely hold as many as
    raw steps, so a small number makes updates cheaper; `unseen_decisions` in the metrics tells what they miss."""
    initial_std: float = 1.0
    """Standard deviation of π(z) before training, which starts as the prior N(0, I) when it is 1."""
    credit: SampledCreditConfig = field(default_factory=SampledCreditConfig)
    """How codes are credited with later rewards. The paper's way is credit.method = trajectory."""
    distractor_reward: float = 0.0
    """Above 0: early moves up also pay this with probability 1/2, whatever the task (worlds that offer it). Not in the
    paper."""
    distractor_steps: int = 8
    """How many steps of an episode are early."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=3e-5, weight_decay=0.0)
    )


@dataclass(frozen=True)
class EvaluateConfig:
    """Stage 4: success on fresh layouts."""

    episodes: int = 1024
    """Episodes per RL seed and method."""
    greedy: bool = False
    """Act with the policy's mean instead of samples."""
    steering_steps: int = 1000
    """Gradient steps for each labelled controller (the steering upper bound; paper: 3.2k)."""


@dataclass(frozen=True)
class RuntimeConfig:
    """Logging, checkpoints and devices; none of these changes a result by more than rounding."""

    log_every: int = 100
    """Steps inside one compiled chunk; metrics are averaged over it and logged once."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; a multiple of log_every."""
    keep_checkpoints: int = 2
    """Checkpoints kept; older ones are deleted."""
    cpu_devices: int = 1
    """CPU devices that several seeds are split over (on other backends: all there are), as far as JAX has so many and
    they divide the seeds. Useful up to the number of cores; another number may change the last bits of results."""
    wandb: str = ""
    """Weights & Biases project that metrics also go to (needs the extra `wandb`); empty: none."""


@dataclass(frozen=True)
class Config:
    """The whole pipeline."""

    name: str = "custom"
    """Name of the preset it came from."""
    seed: int = 0
    """The one seed of the run."""
    env: EnvConfig = field(default_factory=PinpadConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: BaseModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    metacontroller: MetacontrollerConfig = field(default_factory=MetacontrollerConfig)
    discover: DiscoverConfig = field(default_factory=DiscoverConfig)
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    raw_action: ReinforceConfig = field(
        default_factory=lambda: ReinforceConfig(method="raw_action")
    )
    """The raw-action baseline of the demo; same objective and number of episodes as `reinforce`."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
