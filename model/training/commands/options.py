"""Declares options that several commands share."""

import click

from sketch_search.model.command_line import a_path, option
from sketch_search.model.limits import MAX_VARIANTS
from sketch_search.model.training.tasks import LARGE_PROTOCOLS, PARTS

BACKBONE = "--backbone FILE|TIMM-TAG"

source = click.argument("source", type=a_path, metavar="IN.safetensors")
target = click.argument("target", type=a_path, metavar="OUT.safetensors")
data = option("--data DIR", "sketch/<class>/* and photo/<class>/* (default: the folder in SKETCH_SEARCH_DATA).", a_path)
word_vectors = option("--words FILE", "Word vectors of classes (default: those of SKETCH_SEARCH_DATA).", a_path)
settings = option("--set KEY=VALUE", "Change the recipe, as in optimiser.warmup=20.", name="settings", multiple=True)
weights = option("--weights FILE", "Checkpoint (SBIR_WEIGHTS, else the embedded one).", a_path, envvar="SBIR_WEIGHTS")
variants = option("--variants N", "Variants of each sketch (the checkpoint's).", click.IntRange(1, MAX_VARIANTS))
part = option("--split NAME", f"Classes: {', '.join(PARTS)} (val).", click.Choice(PARTS), default="val")
_LARGE = f"{', '.join(LARGE_PROTOCOLS)} (everyday)."
large = option("--protocol NAME", _LARGE, click.Choice(LARGE_PROTOCOLS), default="everyday")
trained_on = option("--trained-on PARTS", "Parts to take fresh pictures from, such as train+val.")
as_json = option("--json", "Print JSON instead of tables.", name="as_json")
