"""Draw photo-like variants of a data set's renders, with diffusers.

    pip install -r requirements-variants.txt
    python -m datasets.variants --root data/mygame --model stable-diffusion-v1-5/stable-diffusion-v1-5
    python -m datasets.variants --root data/mygame --model FOLDER --controlnet FOLDER --count 20

Reads   ROOT/images/NAME.png          renders, aligned
Writes  ROOT/aug_images/NAME.png      a photo-like variant of each
        ROOT/variants.json            the settings, and which renders have no variant
        ROOT/variants_left_out.txt    the same for people: NAME and reason

A variant must show its render's character, or its labels are wrong. So the face detector looks at both. If its five
points moved by more than --tolerance on average, the variant is drawn again, at most twice, and then left out.
Every NAME has a seed of its own: a run that was stopped goes on with the same command and draws the same variants.
Pictures in aug_images that this program did not draw are never touched.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from datasets.labels import Layout, read_layout
from datasets.variants.gate import PointFinder, draw_checked
from datasets.variants.painter import Painter
from datasets.variants.recipe import CONTROLNETS, PROMPTS, Recipe, seed_of
from datasets.variants.record import Record, render_digest
from models.mtcnn import FaceDetector
from utils.errors import Interrupted, UserError, run_script
from utils.files import lock_folder, sweep_temporaries
from utils.pictures import UnreadablePicture, check_unreadable, read_rgb
from utils.progress import progress
from utils.stop import StopRequest

#: variants.json is saved this often, in seconds.
_SAVE_SECONDS = 5.0


class Job(NamedTuple):
    """A render that is to have a variant."""

    name: str
    render: Path
    target: Path  #: where its variant goes


# --- options --------------------------------------------------------------------------------------


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError for what cannot be."""
    keep_lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m datasets.variants", description=__doc__, formatter_class=keep_lines)
    parser.add_argument("--root", type=Path, required=True, help="data set in the HS_FACE layout")
    parser.add_argument("--count", type=int, help="only the first COUNT renders by name, to try settings")
    parser.add_argument("--restart", action="store_true", help="draw the variants of other settings anew")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if there is one")
    parser.add_argument(
        "--max-unreadable",
        type=float,
        default=0.05,
        metavar="FRACTION",
        help="exit with status 2 where more than this fraction of the renders cannot be read (default 0.05)",
    )
    _add_recipe(parser)
    options = parser.parse_args()

    if options.count is not None and options.count < 1:
        raise UserError(f"--count is {options.count}; expected at least 1")
    if not 0 <= options.max_unreadable <= 1:
        raise UserError(f"--max-unreadable is {options.max_unreadable}; expected a fraction from 0 to 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; leave the option out to use the CPU")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    default = {field.name: field.default for field in fields(Recipe)}
    recipe = parser.add_argument_group("what decides how a variant looks; fixed within a data set")

    def add(option: str, name: str, kind: type, meaning: str) -> None:
        text = f"{meaning} (default: {default[name]})".replace("%", "%%")
        recipe.add_argument(option, dest=name, type=kind, default=default[name], help=text)

    recipe.add_argument("--model", required=True, help="diffusion model: a folder, or a name on the Hugging Face hub")
    pairs = ", ".join(f"{condition}: {name}" for condition, name in CONTROLNETS.items())
    recipe.add_argument("--controlnet", help=f"must belong to model and condition (default, for SD 1.5: {pairs})")
    recipe.add_argument(
        "--condition", choices=tuple(CONTROLNETS), default="edges", help="what holds the variant to its render (edges)"
    )
    add("--depth-model", "depth_model", str, "estimator for --condition depth; near must be bright")
    add("--strength", "strength", float, "how far a variant may leave its render, above 0 to 1")
    add("--steps", "steps", int, "of the diffusion; the fraction STRENGTH of them is taken")
    add("--guidance", "guidance", float, "how much the prompt counts")
    add("--control", "control", float, "how much the condition counts")
    prompts = f"one of them is drawn for each variant (default: {len(PROMPTS)} lights and places)"
    recipe.add_argument("--prompt", dest="prompts", action="append", metavar="TEXT", help=f"may be repeated; {prompts}")
    add("--negative-prompt", "negative_prompt", str, "what a variant should not look like")
    add("--tolerance", "tolerance", float, "how far the five points may move on average, pixels at 256")
    add("--size", "size", int, "side of what the diffusion sees, pixels; 0: what the model was trained with")
    add("--seed", "seed", int, "another one gives other variants of the same renders")
    recipe.add_argument("--precision", choices=("fp32", "fp16", "bf16"), help="of the networks (CUDA: fp16, CPU: fp32)")


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe that the command line describes. Raises UserError for values that nothing can be drawn with."""
    chosen = {field.name: getattr(options, field.name) for field in fields(Recipe)}
    chosen["controlnet"] = options.controlnet or CONTROLNETS[options.condition]
    chosen["prompts"] = tuple(options.prompts or PROMPTS)
    chosen["precision"] = options.precision or ("fp16" if options.device == "cuda" else "fp32")
    recipe = Recipe(**chosen)
    recipe.check()
    return recipe


# --- work -----------------------------------------------------------------------------------------


def find_jobs(layout: Layout, root: Path) -> list[Job]:
    """A job for each render of a data set, in the order of the names."""
    there = layout.parts.get("aug_images", {})
    jobs = []
    for name, render in layout.parts["images"].items():
        jobs.append(Job(name, render, there.get(name, root / "aug_images" / f"{render.stem}.png")))
    return jobs


class Studio:
    """Draws the variants of renders, looks whether they show the same face, and notes what came of it."""

    def __init__(self, recipe: Recipe, record: Record, device: str) -> None:
        self.recipe, self.record = recipe, record
        self.find = point_finder(FaceDetector())
        self.painter = Painter(recipe, device)
        self.counts: Counter[str] = Counter()

    def work(self, job: Job, after_step: Callable[[], None]) -> None:
        """Draw a render's variant and write it, or note why there is none.

        Raises:
            UnreadablePicture: the render cannot be read, or is not square.
        """
        # The digest first: a render that changes meanwhile is then drawn again next time.
        digest, render = render_digest(job.render), read_rgb(job.render)
        height, width = render.shape[:2]
        if height != width:
            raise UnreadablePicture(f"{width}×{height} pixels; aligned renders are square")

        def draw(shown: np.ndarray, attempt: int) -> np.ndarray:
            return self.painter.draw(shown, seed_of(job.name, seed=self.recipe.seed, attempt=attempt), after_step)

        outcome = draw_checked(render, draw, self.find, tolerance=self.recipe.tolerance)
        self.counts["refused"] += outcome.attempts - (outcome.variant is not None)
        if outcome.variant is None:
            self.counts["left out"] += 1
            self.record.leave_out(job.name, job.target, outcome.reason, render=digest)
        else:
            self.counts["variants"] += 1
            self.record.add_variant(job.name, job.target, outcome.variant, render=digest)


def point_finder(detector: FaceDetector) -> PointFinder:
    """A function that finds the five points of the largest face in a picture."""

    def find(picture: np.ndarray) -> np.ndarray | None:
        faces = detector.find(picture)
        _, index = faces.choose("largest")
        return None if index is None else faces.points[index]

    return find


def draw_all(todo: list[Job], studio: Studio, unreadable: dict[str, str], bar: tqdm) -> None:
    """Draw the variants of renders.

    Args:
        unreadable: to it is added which renders could not be read, and why.

    Raises:
        Interrupted: asked to stop, also within a drawing.
    """
    record, saved, stop = studio.record, time.monotonic(), StopRequest()

    def leave_if_asked() -> None:
        if stop.requested:
            raise Interrupted("Stopped. What was drawn is kept; the same command draws the rest.")

    try:
        record.save()  # the settings are known before the first variant is there
        for job in todo:
            leave_if_asked()
            try:
                studio.work(job, leave_if_asked)
            except UnreadablePicture as error:
                unreadable[str(job.render)] = str(error)
            bar.update()
            if time.monotonic() - saved > _SAVE_SECONDS:
                record.save()
                saved = time.monotonic()
    finally:
        record.save()


def run(options: argparse.Namespace, recipe: Recipe) -> None:
    """Draw what is missing, and say what came of it."""
    root, started = options.root, time.monotonic()
    jobs = find_jobs(read_layout(root), root)[: options.count]
    record = Record(root, recipe.settings(), restart=options.restart)
    for folder in (root, root / "aug_images"):
        sweep_temporaries(folder)

    todo = [job for job in jobs if not record.is_done(job.name, job.render, job.target)]
    if not todo:
        print(f"{len(jobs)} renders in {root}: nothing is left to draw; {len(record.left_out)} were left out before")
        return

    studio, unreadable = Studio(recipe, record, options.device), dict[str, str]()
    with progress(total=len(jobs), initial=len(jobs) - len(todo), unit="render", desc="drawing") as bar:
        draw_all(todo, studio, unreadable, bar)

    # Report.
    counts, seconds = studio.counts, time.monotonic() - started
    print(
        f"{len(jobs)} renders: {counts['variants']} variants drawn, {counts['left out']} left out, "
        f"{counts['refused']} drawings refused; {len(jobs) - len(todo)} done before; {seconds:.0f} s; {record.file}"
    )
    if counts["left out"] > counts["variants"]:
        print("Most were left out: a lower --strength or a higher --control keeps variants nearer to their renders.")
    check_unreadable(
        unreadable,
        total=len(jobs),
        most=options.max_unreadable,
        setting="--max-unreadable",
        listing=root / "variants_unreadable.txt",
    )


def main() -> None:
    options = parse_options()
    recipe = recipe_of(options)
    if not options.root.is_dir():
        raise UserError(f"--root {options.root} is no folder; expected a data set with images/ in it")
    with lock_folder(options.root, "python -m datasets.variants"):
        run(options, recipe)


if __name__ == "__main__":
    run_script(main)
