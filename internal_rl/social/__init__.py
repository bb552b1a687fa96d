"""Runs of learning-aware agents: what a config names, run directories, evaluation, the command line.

config.py      every setting
build.py       games, policies and learners that a config names; checks
hawk.py        long-context policy on the Hawk mixer
pipeline.py    training runs: pools, the analytical game, predictive agents
parents.py     what predictive agents need of a run that they build on
evaluate.py    per-inner-episode curves, cooperation per state
embedded.py    embedded Bayesian agents, exact tables
predictor.py   GRU world and self-model of predictive agents
film.py        GIF of a CleanUp-lite episode
cli.py         `internal-rl social train|evaluate|analytic|embedded|predictive`
"""
