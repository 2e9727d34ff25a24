"""How fast simulations are, beside bare loops."""
