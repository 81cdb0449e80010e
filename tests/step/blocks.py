"""The block as the documentation has it, for tests of several files."""

from bisam.step import RNGState


def climbed(opt, model, x, y):
    """The block, after a pass of ours or, where another loss is raised, around it."""
    if opt.recipe.ascent is not None:
        return opt.perturbed(model, ascent=lambda: opt.recipe.ascent(model(x), y))
    noise = RNGState()
    opt.recipe.descent(model(x), y).backward()
    return opt.perturbed(model, noise)
