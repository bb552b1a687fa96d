"""Social dilemmas for several players.

game.py      the contract that a game fulfils, and its time step
matrix.py    payoff matrices by name, and their iterated play
analytic.py  memory-1 policies: exact discounted returns, zero-determinant strategies
cleanup.py   CleanUp-lite
render.py    its pictures and GIFs
"""
