"""Anytime-valid sequential tests: evidence that may be looked at after every block, with a proven bound on false rollbacks.

Pure: `math` and nothing else. All evidence is kept as the natural logarithm of an e-value. An *e-value* of a hypothesis is a
non-negative figure whose mean is at most 1 while the hypothesis is true; multiplied block by block it stays one, and by Ville's
inequality (J. Ville, "Étude critique de la notion de collectif", 1939) it ever reaches 1/α with probability α at most.
"""
