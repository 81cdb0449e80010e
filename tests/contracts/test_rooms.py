"""The rooms of the package, read from its syntax trees: who imports whom, who writes what, and how long a module is."""

import ast
from functools import cache
from pathlib import Path

import bisam
from bisam._kinds import KINDS

PACKAGE = Path(bisam.__file__).parent

# Each room imports only from those in lines before it; rooms of one line do not import each other.
ORDER = [
    {"losses"},
    {"axes"},
    {"step"},
    {"methods"},
    {"measure", "testing", "training"},
    {"evidence"},
    {"notebook"},
    {"gpu", "commands"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
GROUND = {"_checks", "_files", "_kinds", "_look", "_moved", "_progress", "_start"}  # no rooms: they import each other at most

# Private names that are the standard library's or torch's own: of modules, and of what torch and namedtuples hand out.
FOREIGN = {"torch", "nn", "os", "sys", "signal"}
FOREIGN_ATTRIBUTES = {
    "_asdict", "_fields", "_replace",
    "_cdata", "_compiled_call_impl", "_current_level", "_is_view", "_modules", "_orig_mod", "_parameters", "_schema", "_version",
}  # fmt: skip

# What only the room of the step may write, and who else does, why.
OUTSIDE_THE_STEP = {
    "training/rng.py torch.manual_seed": "a run begins with its seed",
    "training/rng.py torch.default_generator.manual_seed": "how an image is cut comes from a seed of its own, inside fork_rng",
    "training/rng.py torch.set_rng_state": "a run goes on from its checkpoint with the random numbers that were next",
    "training/rng.py torch.cuda.set_rng_state": "the same, on a GPU",
    "training/state.py torch.manual_seed": "each of several processes draws other dropout masks",
    "measure/traces.py torch.manual_seed": "the probes of a trace come from a seed, inside fork_rng",
    "testing/conformance.py torch.manual_seed": "each check draws the same random numbers in every run, inside fork_rng",
    "gpu/parts.py .grad": "stands for the backward pass where a step is timed without one",
    "gpu/published.py .data": "SAM as others have published it, to be timed beside ours",
    "gpu/timing.py torch.manual_seed": "what is timed is the same in each process",
    "gpu/two_devices.py torch.manual_seed": "the masks of two GPUs are compared, inside fork_rng",
}

MOST_LINES = 260
# Modules that are longer, with their length: it may only shrink, and a module that has become short leaves the list.
LONGER = {
    "_checks.py": 322,
    "_files.py": 311,
    "step/optimizer.py": 398,
}

# Still to go: what reaches into another module.
PRIVATE_STILL: set[str] = set()


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def named(path):
    return path.relative_to(PACKAGE).as_posix()


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path):
    """The modules of this package that a module imports, as tuples of names below ``bisam``, with the names taken from them."""
    inside = path.relative_to(PACKAGE).with_suffix("").parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "bisam":
                    yield tuple(alias.name.split(".")[1:]), None
        elif isinstance(node, ast.ImportFrom):
            base = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = inside[: len(inside) - node.level + 1] + base
            elif base[:1] == ("bisam",):
                base = base[1:]
            else:
                continue
            for alias in node.names:
                yield base, alias.name


def last_level(room):
    """The last of the levels that a room may import from; the package itself is all floors up to the methods."""
    if room in GROUND:
        return -1
    return LEVEL["methods"] if room == "__init__" else LEVEL[room] - 1


def test_every_module_is_in_a_room_or_in_the_ground():
    assert {room_of(path) for path in modules()} == {*LEVEL, *GROUND, "__init__"}


def test_a_room_imports_only_from_those_before_it():
    upward = set()
    for path in modules():
        room = room_of(path)
        for base, name in imported(path):
            other = base[0] if base else name
            if other not in GROUND | {room, "__version__"} and LEVEL.get(other, len(ORDER)) > last_level(room):
                upward.add(f"{named(path)} imports {'.'.join(('bisam', *base))}: {name}")
    assert not upward


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def own_names(path):
    """Private names that the module itself defines, at any depth."""
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def root(node):
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def test_no_private_name_of_another_module_is_used():
    found = set()
    for path in modules():
        own = set(own_names(path))
        for base, name in imported(path):
            if name and is_private(name) and name not in GROUND and not (PACKAGE.joinpath(*base, f"{name}.py")).exists():
                found.add(f"{named(path)} imports {name}")
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Attribute) or not is_private(node.attr) or node.attr in FOREIGN_ATTRIBUTES:
                continue
            if node.attr not in own and root(node.value) not in {"self", "cls"} | FOREIGN:
                found.add(f"{named(path)} uses {ast.unparse(node)}")
    assert found == PRIVATE_STILL


SEEDS = {"manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all", "seed", "seed_all"}
STATISTICS = {"running_mean", "running_var", "num_batches_tracked", "_buffers"}


def stores(path):
    """What a module writes of ``.grad``, ``.data``, global random states and the statistics of a model."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load) and node.attr in {"grad", "data"} | STATISTICS:
            if root(node) != "self":  # a field of an object of ours
                yield f".{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            place = node.func.value
            if node.func.attr in SEEDS and root(place) in {"torch", "numpy", "random"}:
                yield ast.unparse(node.func)
            elif isinstance(place, ast.Attribute) and place.attr in {"grad", "data"} | STATISTICS and node.func.attr.endswith("_"):
                yield f".{place.attr}"


def test_only_the_step_writes_gradients_weights_random_states_and_buffers():
    found = {f"{named(path)} {what}" for path in modules() if room_of(path) != "step" for what in stores(path)}
    assert found == set(OUTSIDE_THE_STEP)


def test_the_step_is_seen_to_write_them():
    """The check above would find them: the room that may, does."""
    found = {what for path in modules() if room_of(path) == "step" for what in stores(path)}
    assert ".grad" in found and any("set_rng_state" in what for what in found)


def test_a_module_is_short():
    lines = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    longer = {name: count for name, count in lines.items() if count > max(MOST_LINES, LONGER.get(name, 0))}
    assert not longer, "one class or idea a module"
    short = {name: lines[name] for name in LONGER if name in lines and lines[name] <= MOST_LINES}
    assert not short, "no longer belong to the list of long modules"


def test_only_modules_that_are_there_are_listed_as_long():
    assert set(LONGER) <= {named(path) for path in modules()}


def test_a_part_is_asked_and_never_its_class():
    """Outside the room of the methods nobody asks whether a part is of one class or has a certain method: the part answers for itself."""
    parts = {part.__name__ for part in KINDS.values()} - {"Recipe"}
    found = set()
    for path in modules():
        if room_of(path) == "methods":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                asked = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)} & parts
                found |= {f"{named(path)} asks for {name}" for name in asked}
            probes = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr")
            if probes and room_of(path) in ("axes", "step") and isinstance(node.args[0], ast.Attribute) and len(node.args) + (node.func.id == "hasattr") == 3:
                found |= {f"{named(path)} probes {ast.unparse(node)}"} if ast.unparse(node.args[0]).startswith(("self.recipe", "recipe", "step.recipe")) else set()
    assert found == set()
