"""One file an axis: the choices that a method is made of, and the recipe that holds one of each."""
