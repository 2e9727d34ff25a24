"""What follows from formulas: operations, parameters, bytes. Nothing is run."""
