"""Settings of one estimator. Where paper and repository differ, the default follows the repository."""

from dataclasses import dataclass, field
from typing import Literal, get_args

HindsightLoss = Literal["classification", "contrastive", "successor"]
Method = Literal[
    "reinforce",
    "advantage",
    "q_critic",
    "trajectory_cv",
    "hca",
    "hca_plus",
    "hca_return",
    "counterfactual_return",
    "cocoa_reward",
    "cocoa_feature",
]
METHODS: tuple[str, ...] = get_args(Method)
HINDSIGHT_METHODS = ("hca", "hca_plus", "cocoa_reward", "cocoa_feature")
RETURN_METHODS = ("hca_return", "counterfactual_return")
VALUE_METHODS = ("advantage", "q_critic", "trajectory_cv")


@dataclass(frozen=True)
class FeatureConfig:
    """Reward features of COCOA-feature, trained once on data of the untrained policy."""

    backbone: Literal["gate", "mask"] = "gate"
    """gate: H features per action (key-to-door). mask: the masked observation (task interleaving)."""
    binary: bool = True
    """Features are 0 or 1 while they are trained, else the thresholded value itself."""
    width: int = 128
    """H, features of the gate."""
    threshold: float = 0.05
    """A feature is on above this."""
    learning_rate: float = 3e-3
    """Of AdamW without weight decay."""
    shrink_backbone: float = 1e-3
    """η1: the backbone is multiplied by 1 - η1 after each step."""
    shrink_readout: float = 0.03
    """η2: likewise the readout."""
    burn_in: int = 30
    """Training batches during which only data is collected; they count against the budget."""
    steps: int = 20_000
    """Gradient steps, each on all data."""
    after_end: bool = False
    """Learn also from the steps of a fixed horizon that lie after an episode's end, which keep its last observation and
    pay nothing. Without them the readout's bias may stand for an outcome."""
    max_outcomes: int = 8
    """Distinct feature vectors per episode that are told apart; `unmatched_rewards` counts the rest."""


@dataclass(frozen=True)
class CreditConfig:
    """An estimator and how its model is learned."""

    method: Method = "cocoa_reward"
    """Which estimator."""
    model: Literal["learned", "exact"] = "learned"
    """exact: the model is recomputed from the true MDP at every update."""
    policy_rate: float = 3e-4
    """Learning rate of the policy."""
    model_rate: float = 3e-3
    """Learning rate of the hindsight network, value function or action-value function."""
    trace: float = 0.9
    """λ of TD(λ) and Q(λ), and of the successor counts."""
    q_bootstrap: Literal["max", "expected"] = "max"
    """max: Peng's Q(λ), as the repository. expected: expected-SARSA(λ), where the paper says TD(λ)."""
    mask_zero_reward: bool = True
    """Leave later steps without reward out of the hindsight loss."""
    hindsight_loss: HindsightLoss = "classification"
    """How coefficients are learned; the authors found contrastive worse. successor: cocoa_reward only, by TD(λ) on
    how often each reward will follow."""
    clip_ratio: bool = True
    """Contrastive only: bound h/π by 1/π."""
    hindsight_clip: float = 0.0
    """Largest norm of the hindsight gradient; 0: no bound."""
    hindsight_width: int = 256
    """Hidden units of the hindsight network, and of the level of successor counts."""
    value_width: int = 256
    """Hidden units of value, action-value and reward networks."""
    action_samples: int = 0
    """M > 0: average contributions over M fresh actions instead of summing over all of them."""
    perturbation: float = 0.0
    """Exact models only: outputs are multiplied by 1 + this × a normal number drawn once (Fig. 12)."""
    features: FeatureConfig = field(default_factory=FeatureConfig)


def check_credit(config: CreditConfig) -> None:
    """Raise ValueError naming the first wrong field, its value and what is allowed."""

    def need(name: str, value: object, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"credit.{name} is {value!r}; allowed: {allowed}")

    need("method", config.method, config.method in METHODS, ", ".join(METHODS))
    need("model", config.model, config.model in ("learned", "exact"), "learned, exact")
    for name in ("policy_rate", "model_rate", "hindsight_clip", "perturbation"):
        need(name, getattr(config, name), getattr(config, name) >= 0, "at least 0")
    need("trace", config.trace, 0 <= config.trace <= 1, "0 to 1")
    # Counts of outcomes that are listed because they occurred would be biased. Exact models learn nothing.
    countable = config.method == "cocoa_reward" or config.model == "exact"
    losses = [loss for loss in get_args(HindsightLoss) if countable or loss != "successor"]
    allowed = f"{', '.join(losses)} for {config.method}"
    need("hindsight_loss", config.hindsight_loss, config.hindsight_loss in losses, allowed)
    for name in ("hindsight_width", "value_width"):
        need(name, getattr(config, name), getattr(config, name) >= 1, "at least 1")
    need("action_samples", config.action_samples, config.action_samples >= 0, "at least 0")
    sampled = config.action_samples == 0 or config.method in HINDSIGHT_METHODS
    need("action_samples", config.action_samples, sampled, f"0 for {config.method}")
    exact = config.perturbation == 0 or config.model == "exact"
    need("perturbation", config.perturbation, exact, "0 for learned models")
    for name in ("width", "steps", "max_outcomes", "burn_in"):
        value = getattr(config.features, name)
        need(f"features.{name}", value, value >= 1, "at least 1")


SampledMethod = Literal["trajectory", Method]


@dataclass(frozen=True)
class SampledCreditConfig:
    """Credit assignment over abstract steps."""

    method: SampledMethod = "trajectory"
    """trajectory: one advantage per episode, without a model (paper, App. C.5). Else an estimator of docs/credit.md."""
    samples: int = 8
    """M, fresh actions per decision."""
    width: int = 64
    """Hidden units of each of the model's two hidden layers."""
    model_rate: float = 1e-3
    """Learning rate of the model."""
    model_steps: int = 4
    """Gradient steps of the model per batch, before the policy's."""
    trace: float = 1.0
    """λ of the targets of V and Q; 1: the return itself."""
    hindsight: Literal["density_ratio", "gaussian"] = "density_ratio"
    """density_ratio: a discriminator of taken and fresh actions. gaussian: mean and spread of the action given the
    outcome, all that the gradient of a Gaussian policy depends on."""
    max_ratio: float = 20.0
    """Bound of h/π, which for densities has none of its own. Gaussian hindsight needs none."""
    replay: int = 0
    """R > 0, cocoa_reward: the model learns from the last R decisions that each kind of reward followed, of earlier
    policies, too, kinds weighing alike. 0: from the current batch alone."""
    max_outcomes: int = 4
    """Rewarded decisions per episode that are told apart by hca, hca_plus and cocoa_feature."""
    feature_width: int = 16
    """Binary features of cocoa_feature."""


def check_sampled(config: SampledCreditConfig) -> None:
    """Raise ValueError naming the first wrong field, its value and what is allowed."""
    methods = get_args(SampledMethod)
    if config.method not in methods:
        raise ValueError(f"credit.method is {config.method!r}; allowed: {', '.join(methods)}")
    for name in ("samples", "width", "model_steps", "max_outcomes", "feature_width"):
        if getattr(config, name) < 1:
            raise ValueError(f"credit.{name} is {getattr(config, name)}; allowed: at least 1")
    if config.model_rate < 0:
        raise ValueError(f"credit.model_rate is {config.model_rate}; allowed: at least 0")
    if not 0 <= config.trace <= 1:
        raise ValueError(f"credit.trace is {config.trace}; allowed: 0 to 1")
    if config.replay < 0 or (config.replay and config.method != "cocoa_reward"):
        allowed = "at least 0" if config.method == "cocoa_reward" else f"0 for {config.method}"
        raise ValueError(f"credit.replay is {config.replay}; allowed: {allowed}")
    # HCA-return divides by h/π, which two moments say nothing about.
    either = config.method in (*HINDSIGHT_METHODS, "counterfactual_return")
    hindsights = ("density_ratio", "gaussian") if either else ("density_ratio",)
    if config.hindsight not in hindsights:
        allowed = f"{', '.join(hindsights)} for {config.method}"
        raise ValueError(f"credit.hindsight is {config.hindsight!r}; allowed: {allowed}")
    if config.max_ratio <= 1:
        raise ValueError(f"credit.max_ratio is {config.max_ratio}; allowed: above 1")
