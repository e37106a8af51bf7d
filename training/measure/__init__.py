"""How good a bundle is, and what its similarities are worth."""
