"""datasets.variants: seeds, the gate, what is written, what is left alone; a tiny pipeline of diffusers itself."""

import importlib.util
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.variants import painter as painter_module
from datasets.variants.gate import ATTEMPTS, draw_checked, mean_move
from datasets.variants.painter import Painter
from datasets.variants.recipe import PROMPTS, TOLERANCE, Recipe, fingerprint, seed_of
from datasets.variants.record import read_mark
from games.game import default_game
from tests.helpers import ROOT, error_of, run_command, run_here, temporaries, times_of
from utils.alignment import TEMPLATE
from utils.pictures import read_rgb, write_picture

NAMES = ["anna", "berta", "clara", "dora"]

# --- seeds and the gate ---------------------------------------------------------------------------


def test_a_seed_follows_from_name_seed_and_attempt_alone():
    assert seed_of("anna", seed=0, attempt=0) == 7690525562047430215
    seeds = {seed_of(name, seed=seed, attempt=k) for name in NAMES for seed in (0, 1) for k in range(ATTEMPTS)}
    assert len(seeds) == len(NAMES) * 2 * ATTEMPTS
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_moves_are_measured_at_256_pixels():
    points = TEMPLATE / 2
    wider = points.copy()
    wider[3, 0] -= 5
    wider[4, 0] += 5
    assert mean_move(points, wider, side=128) == pytest.approx(2 * (5 + 5) / 5)


def test_the_default_tolerance_is_the_noise_that_was_measured():
    measured = json.loads((ROOT / "benchmarks" / "detector_noise.json").read_text(encoding="utf-8"))
    assert round(measured["small changes"]["p97.5"], 1) == TOLERANCE


def test_the_noise_can_be_measured(tmp_path):
    run_here("-m", "benchmarks.detector_noise", "--count", 2, "--json", "noise.json", cwd=tmp_path)
    measured = json.loads((tmp_path / "noise.json").read_text(encoding="utf-8"))
    assert 0 < measured["small changes"]["p50"] < measured["another character"]["p50"]


class Scene:
    """A render and drawings whose points lie as far from the render's as is wanted; None for a drawing without face."""

    def __init__(self, *moves: float | None) -> None:
        self.moves = list(moves)
        self.drawn: list[int] = []
        self.render = np.zeros((256, 256, 3), np.uint8)

    def draw(self, render: np.ndarray, attempt: int) -> np.ndarray:
        self.drawn.append(attempt)
        return np.full_like(render, attempt + 1)

    def find(self, picture: np.ndarray) -> np.ndarray | None:
        which = int(picture[0, 0, 0])
        move = 0.0 if which == 0 else self.moves[which - 1]
        return None if move is None else TEMPLATE + (move, 0)


@pytest.mark.parametrize("moves, attempts", [((3.0,), 1), ((3.1, 2.0), 2), ((None, 9.0, 0.0), 3)])
def test_the_first_variant_whose_points_stayed_is_taken(moves, attempts):
    scene = Scene(*moves)
    outcome = draw_checked(scene.render, scene.draw, scene.find, tolerance=3.0)
    assert (outcome.attempts, outcome.reason) == (attempts, "")
    assert scene.drawn == list(range(attempts))
    assert outcome.variant is not None and outcome.variant[0, 0, 0] == attempts


def test_after_three_attempts_a_render_has_no_variant_and_every_reason_is_said():
    scene = Scene(4.0, None, 12.5, 0.0)
    outcome = draw_checked(scene.render, scene.draw, scene.find, tolerance=3.0)
    assert outcome.variant is None
    assert scene.drawn == [0, 1, 2]
    assert outcome.reason == "points moved by 4.0 px, no face found, points moved by 12.5 px; 3 px are allowed"


def test_nothing_is_drawn_for_a_render_without_a_face():
    scene = Scene(0.0)
    outcome = draw_checked(scene.render, scene.draw, lambda picture: None, tolerance=3.0)
    assert (outcome.variant, outcome.reason, scene.drawn) == (None, "no face found in the render", [])


# --- the command, with a plain pipeline in place of diffusers' ---------------------------------------


class Pipeline:
    """What diffusers' pipeline is to the command: draws its picture with a little noise of the generator.

    Args:
        draws: a render and the number of the call → what is drawn in its place.
    """

    unet = SimpleNamespace(config=SimpleNamespace(sample_size=16))
    vae_scale_factor = 8

    def __init__(self, draws: Callable[[np.ndarray, int], np.ndarray] | None = None) -> None:
        self.draws = draws or (lambda picture, call: picture)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **options: Any) -> Any:
        self.calls.append(options)
        drawn = self.draws(np.asarray(options["image"]), len(self.calls))
        noise = torch.randn(drawn.shape, generator=options["generator"]).numpy() * 2
        options["callback_on_step_end"](self, 0, 0, {})
        return SimpleNamespace(images=[Image.fromarray(np.clip(drawn + noise, 0, 255).astype(np.uint8))])


@pytest.fixture(scope="module")
def renders() -> np.ndarray:
    """(4, 128, 128, 3) uint8 renders of characters that the detector tells apart."""
    game = default_game()
    characters = [game.character(3, i) for i in range(len(NAMES))]
    parameters = np.array([character.parameters for character in characters])
    looks = [(character.studio,) for character in characters]
    return game.renderer(128).render(parameters, looks)[0][:, 0]


@pytest.fixture
def root(renders, tmp_path) -> Path:
    """A data set of four renders."""
    folder = tmp_path / "data"
    for name, render in zip(NAMES, renders, strict=True):
        write_picture(folder / "images" / f"{name}.png", render)
    (folder / "labels.json").write_text(json.dumps({name: [0.5, 0.25] for name in NAMES}))
    return folder


@pytest.fixture
def pipeline(monkeypatch) -> Pipeline:
    """The command draws with this pipeline."""
    plain = Pipeline()
    monkeypatch.setattr(painter_module, "load_pipeline", lambda recipe, device: plain)
    return plain


def variants(root: Path, *options: object, check: bool = True) -> Any:
    """Run the command on a data set with a model that nobody has."""
    command = ("-m", "datasets.variants.__main__", "--root", root, "--model", "none", "--device", "cpu")
    return run_here(*command, *options, cwd=root.parent, check=check)


def content(root: Path) -> dict[str, bytes]:
    """The variants of a data set."""
    return {path.name: path.read_bytes() for path in sorted((root / "aug_images").iterdir())}


def test_every_render_has_a_variant_of_its_size_and_the_same_command_gives_the_same_bytes(root, pipeline, tmp_path):
    told = variants(root)
    assert "4 renders: 4 variants drawn, 0 left out, 0 drawings refused; 0 done before" in told.stdout
    first = content(root)
    assert list(first) == [f"{name}.png" for name in NAMES]
    for name in NAMES:
        variant, render = (read_rgb(root / part / f"{name}.png") for part in ("aug_images", "images"))
        assert variant.shape == render.shape
        assert 0 < np.abs(variant.astype(int) - render).mean() < 5

    # One render more, and whatever was drawn before it: each variant depends on its NAME alone.
    again = tmp_path / "again"
    (again / "images").mkdir(parents=True)
    for name in reversed(NAMES):
        (again / "images" / f"{name}.png").write_bytes((root / "images" / f"{name}.png").read_bytes())
    variants(again, "--count", 1)
    assert list(content(again)) == ["anna.png"]
    variants(again)
    assert content(again) == first
    assert temporaries(again) == []


def test_a_finished_data_set_needs_no_network(root, pipeline, monkeypatch):
    variants(root)
    before = times_of(list((root / "aug_images").iterdir()))
    monkeypatch.setattr(painter_module, "load_pipeline", lambda recipe, device: pytest.fail("loaded"))
    assert "nothing is left to draw" in variants(root).stdout
    assert times_of(list((root / "aug_images").iterdir())) == before


def test_ctrl_c_within_a_drawing_keeps_what_is_drawn_and_the_rest_is_drawn_as_it_would_have_been(
    root, pipeline, tmp_path
):
    variants(root)
    whole = content(root)
    for path in (root / "aug_images").iterdir():
        path.unlink()

    def interrupt(picture: np.ndarray, call: int) -> np.ndarray:
        if call == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return picture

    pipeline.calls.clear()
    pipeline.draws = interrupt
    stopped = variants(root, check=False)
    assert stopped.returncode == 130
    assert "the same command draws the rest" in stopped.stderr
    assert list(content(root)) == ["anna.png", "berta.png"]

    pipeline.draws = lambda picture, call: picture
    assert "2 variants drawn" in variants(root).stdout
    assert content(root) == whole


def test_a_variant_whose_face_moved_is_drawn_again_then_left_out_and_listed(root, pipeline, renders):
    def berta_moves(picture: np.ndarray, call: int) -> np.ndarray:
        return np.roll(picture, 10, axis=1) if np.array_equal(picture, renders[1]) else picture

    pipeline.draws = berta_moves
    told = variants(root)
    assert "3 variants drawn, 1 left out, 3 drawings refused" in told.stdout
    assert list(content(root)) == ["anna.png", "clara.png", "dora.png"]
    listed = (root / "variants_left_out.txt").read_text(encoding="utf-8")
    assert listed.startswith("berta\tpoints moved by ")
    assert len(pipeline.calls) == 6
    assert len({call["generator"].initial_seed() for call in pipeline.calls}) == 6

    # It is known to be left out, until its render changes.
    pipeline.calls.clear()
    assert "1 were left out before" in variants(root).stdout
    assert pipeline.calls == []
    write_picture(root / "images" / "berta.png", renders[1][:, ::-1].copy())
    pipeline.draws = lambda picture, call: picture
    assert "1 variants drawn, 0 left out" in variants(root).stdout
    assert len(pipeline.calls) == 1
    assert not (root / "variants_left_out.txt").exists()


def test_a_variant_of_a_render_that_changed_is_drawn_anew_or_taken_away(root, pipeline, renders):
    variants(root)
    before = content(root)
    write_picture(root / "images" / "anna.png", renders[0][:, ::-1].copy())
    write_picture(root / "images" / "dora.png", renders[3][:, ::-1].copy())
    pipeline.draws = lambda picture, call: picture if call == 1 else np.zeros_like(picture)
    pipeline.calls.clear()
    assert "1 variants drawn, 1 left out, 3 drawings refused; 2 done before" in variants(root).stdout
    after = content(root)
    assert list(after) == ["anna.png", "berta.png", "clara.png"]
    assert after["anna.png"] != before["anna.png"]
    assert after["berta.png"] == before["berta.png"]


def test_pictures_that_others_put_there_are_never_touched(root, pipeline):
    write_picture(root / "aug_images" / "anna.jpg", np.zeros((40, 40, 3), np.uint8))
    write_picture(root / "aug_images" / "berta.png", np.zeros((40, 40, 3), np.uint8))
    before = times_of([root / "aug_images" / "anna.jpg", root / "aug_images" / "berta.png"])
    assert "2 variants drawn" in variants(root).stdout
    assert "2 variants drawn" in variants(root, "--restart", "--seed", 1).stdout
    assert list(content(root)) == ["anna.jpg", "berta.png", "clara.png", "dora.png"]
    assert times_of(list(before)) == before


def test_other_settings_are_refused_by_name_and_drawn_with_restart(root, pipeline):
    variants(root)
    before = content(root)
    told = error_of(variants(root, "--strength", 0.5, check=False))
    assert "strength = 0.8, now 0.5" in told and "--restart" in told
    assert content(root) == before
    assert "4 variants drawn" in variants(root, "--strength", 0.5, "--seed", 1, "--restart").stdout
    after = content(root)
    assert all(after[name] != before[name] for name in before)
    assert pipeline.calls[-1]["strength"] == 0.5
    assert "nothing is left to draw" in variants(root, "--strength", 0.5, "--seed", 1).stdout


def test_renders_that_cannot_be_read_are_listed(root, pipeline):
    (root / "images" / "anna.png").write_bytes(b"no picture")
    write_picture(root / "images" / "berta.png", np.zeros((40, 60, 3), np.uint8))
    told = error_of(variants(root, check=False))
    assert "2 of 4 pictures cannot be read" in told and "variants_unreadable.txt" in told
    listed = (root / "variants_unreadable.txt").read_text(encoding="utf-8")
    assert "berta.png\t60×40 pixels; aligned renders are square" in listed
    assert list(content(root)) == ["clara.png", "dora.png"]
    assert "left out; listed in" in variants(root, "--max-unreadable", 0.5).stderr


@pytest.mark.parametrize(
    "content", ['{"mine": 1}', "{", '{"format": "face2parameter variants 1", "settings": {}, "left_out": {"a": 1}}']
)
def test_a_file_of_somebody_else_is_not_replaced(root, pipeline, content):
    (root / "variants.json").write_text(content)
    assert "is damaged, or no file of datasets.variants" in error_of(variants(root, check=False))
    assert (root / "variants.json").read_text() == content
    assert not (root / "aug_images").exists()


@pytest.mark.parametrize(
    "options, told",
    [
        (("--strength", "0"), "--strength is 0.0; expected above 0 to 1"),
        (("--strength", "0.01", "--steps", "20"), "less than one step"),
        (("--steps", "0"), "--steps is 0"),
        (("--size", "100"), "a multiple of 64"),
        (("--tolerance", "0"), "--tolerance is 0.0"),
        (("--tolerance", "nan"), "--tolerance is nan"),
        (("--seed", "-1"), "--seed is -1"),
        (("--count", "0"), "--count is 0"),
        (("--max-unreadable", "2"), "expected a fraction"),
        (("--root", "nowhere"), "nowhere is no folder"),
        (("--root", "empty"), "has no folder images/"),
    ],
)
def test_it_refuses_with_a_sentence(root, pipeline, options, told):
    (root.parent / "empty").mkdir()
    assert told in error_of(variants(root, *options, check=False))
    assert not (root / "variants.json").exists()


def test_without_the_packages_it_names_the_command(root, monkeypatch):
    monkeypatch.setattr(painter_module, "PACKAGES", ("diffusers_of_nobody", "torch"))
    told = error_of(variants(root, check=False))
    assert "need diffusers_of_nobody, which is not installed. Run: pip install -r requirements-variants.txt" in told
    assert not (root / "aug_images").exists()


# --- what the pipeline is given ---------------------------------------------------------------------


def test_the_pipeline_sees_the_size_it_was_trained_with_and_the_edges_of_the_render(pipeline, renders):
    recipe = Recipe("none", "none", strength=0.6, steps=7, guidance=3.0, control=0.5, negative_prompt="ugly")
    steps: list[int] = []
    small = cv2.resize(renders[0], (64, 64), interpolation=cv2.INTER_AREA)
    variant = Painter(recipe, "cpu").draw(small, 8, lambda: steps.append(1))
    assert variant.shape == (64, 64, 3) and steps == [1]
    given = pipeline.calls[0]
    assert given["image"].size == given["control_image"].size == (128, 128)
    assert given["generator"].initial_seed() == 8 and given["prompt"] == PROMPTS[8 % len(PROMPTS)]
    assert {key: given[key] for key in ("strength", "num_inference_steps", "guidance_scale", "negative_prompt")} == {
        "strength": 0.6,
        "num_inference_steps": 7,
        "guidance_scale": 3.0,
        "negative_prompt": "ugly",
    }
    edges = np.asarray(given["control_image"])
    assert set(np.unique(edges)) == {0, 255} and 0.01 < (edges == 255).mean() < 0.3


def test_a_model_is_known_by_its_content_wherever_it_lies(tmp_path):
    for folder, last in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder / "unet").mkdir(parents=True)
        (tmp_path / folder / "unet" / "weights").write_bytes(bytes(100_000) + last)
    a, b, c = (fingerprint(str(tmp_path / folder)) for folder in "abc")
    assert a == b != c
    assert fingerprint("somebody/a-model") == "somebody/a-model"


# --- diffusers itself, with tiny networks of random weights ------------------------------------------

needs_diffusers = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in painter_module.PACKAGES),
    reason="diffusers is not installed; pip install -r requirements-variants.txt",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Folders "model", "controlnet" and "depth", as a person has them, of networks that were never trained."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder / "words")
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        **BLOCKS,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=tiny_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=tiny_unet(folder / "controlnet"),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "model")
    write_depth_estimator(folder / "depth")
    return folder


#: Of the autoencoder and of the UNet.
BLOCKS = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}


def tiny_unet(controlnet_folder: Path) -> Any:
    """A UNet for pictures of 64 pixels; a ControlNet that fits it is written to a folder."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=32,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **BLOCKS,
    )
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
    for weights in controlnet.parameters():  # an untrained ControlNet ends in zeros, and would change nothing
        if not weights.any():
            torch.nn.init.normal_(weights)
    controlnet.save_pretrained(controlnet_folder)
    return unet


def tiny_text_encoder(tokenizer: Any) -> Any:
    """A text encoder of CLIP's kind for the words of a tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **small, **ends))


def write_depth_estimator(folder: Path) -> None:
    """Write a depth estimator as transformers keeps it."""
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    necks = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
    DPTForDepthEstimation(DPTConfig(image_size=64, **small, **necks)).save_pretrained(folder)
    DPTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def tiny_tokenizer(folder: Path) -> Any:
    """A tokenizer of CLIP's kind that knows single characters only."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=77)


def real(models: Path, **changes: Any) -> Recipe:
    """A recipe of the tiny models."""
    return Recipe(str(models / "model"), str(models / "controlnet"), steps=3, **changes)


@needs_diffusers
def test_a_real_pipeline_gives_the_same_bytes_for_the_same_seed_and_others_for_another(models, renders):
    drawn = {}
    for seed in (5, 6):
        painters = [Painter(real(models, prompts=("a face",)), "cpu") for _ in range(2)]
        first, again = (painter.draw(renders[0], seed, lambda: None) for painter in painters)
        assert first.shape == renders[0].shape and first.dtype == np.uint8
        np.testing.assert_array_equal(first, again)
        drawn[seed] = first
    assert not np.array_equal(drawn[5], drawn[6])


@needs_diffusers
@pytest.mark.parametrize("changes", [{"strength": 0.4}, {"prompts": ("a cat",)}, {"control": 2.0}, {"guidance": 1.0}])
def test_every_setting_changes_what_a_real_pipeline_draws(models, renders, changes):
    plain, other = real(models, prompts=("a face",)), real(models, **({"prompts": ("a face",)} | changes))
    assert not np.array_equal(*(Painter(r, "cpu").draw(renders[0], 5, lambda: None) for r in (plain, other)))


@needs_diffusers
def test_depth_is_a_condition_too(models, renders):
    painter = Painter(real(models, condition="depth", depth_model=str(models / "depth")), "cpu")
    depth = painter.condition(renders[0])
    assert depth.shape == renders[0].shape and depth.min() == 0 and depth.max() == 255
    edges = Painter(real(models), "cpu").draw(renders[0], 5, lambda: None)
    assert not np.array_equal(painter.draw(renders[0], 5, lambda: None), edges)


@needs_diffusers
def test_the_command_loads_a_persons_folders_and_refuses_what_random_weights_draw(models, root):
    """`python -m datasets.variants` in a process of its own, from the folders on."""
    command = ("-m", "datasets.variants", "--root", root, "--model", models / "model", "--device", "cpu", "--count", 1)
    told = run_command(*command, "--controlnet", models / "controlnet", "--steps", 3, cwd=root.parent)
    assert "1 renders: 0 variants drawn, 1 left out, 3 drawings refused" in told.stdout
    assert "a lower --strength" in told.stdout
    assert "anna\tno face found" in (root / "variants_left_out.txt").read_text(encoding="utf-8")


@needs_diffusers
def test_the_command_writes_what_a_real_pipeline_draws_where_the_points_stay(models, root, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.variants.__main__.point_finder", lambda detector: lambda picture: TEMPLATE / 2)
    options = ("--model", models / "model", "--controlnet", models / "controlnet", "--steps", 3)
    assert "1 variants drawn" in variants(root, *options, "--count", 1).stdout
    assert "3 variants drawn" in variants(root, *options).stdout
    recipe = real(models)
    expected = Painter(recipe, "cpu").draw(
        read_rgb(root / "images" / "dora.png"), seed_of("dora", seed=0, attempt=0), lambda: None
    )
    np.testing.assert_array_equal(read_rgb(root / "aug_images" / "dora.png"), expected)
    assert read_mark(root / "aug_images" / "dora.png") is not None


@needs_diffusers
@pytest.mark.parametrize(
    "model, told",
    [
        ("empty", "cannot load a diffusion model"),
        ("file.safetensors", "is a file; expected the folder of a diffusion model"),
        ("nobody/has-this", "cannot load a diffusion model"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_with_a_sentence(models, root, tmp_path, model, told, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.safetensors").write_bytes(b"")
    said = error_of(variants(root, "--model", model, "--controlnet", models / "controlnet", check=False))
    assert told in said and model in said
