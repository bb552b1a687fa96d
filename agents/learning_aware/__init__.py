"""Learning-aware agents: policy gradients that see how a co-player learns.

policies.py      policies as values; tabular ones
naive.py         naive learners as values: policy gradient, A2C, PPO
shaping.py       the batched co-player shaping POMDP: meta-episodes against learning and learned co-players
estimators.py    COALA-PG and its relatives as weights on the scores; batch λ-returns
objectives.py    losses of a meta agent: score-weighted, A2C, PPO
population.py    the training iteration of a pool of meta agents
lola.py          LOLA-DiCE from sampled rollouts
analytic.py      exact-gradient versions in the memory-1 game, LOLA, LOLA-DiCE
mixture.py       embedded Bayesian agents: mixtures over universes, planning
sequences.py     the same for open-loop classes, in closed form
predictive.py    predictive policy improvement: a sequence model as world and self-model
predictive_phases.py   its phases of fitting and playing, against learning and frozen agents
equilibria.py    checks of (subjective) embedded equilibria
"""
