"""The step: two passes, and all that has to be put back after them. No other room writes weights, gradients or random states."""
