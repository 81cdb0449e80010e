"""Tensors in, tensors out: the bounds of the 0-1 loss, cross-entropy above it and the surrogate below."""
