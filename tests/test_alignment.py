"""Alignment geometry, and a picture that was moved by known amounts."""

import csv

import cv2
import numpy as np
import pytest
import torch
from tests.conftest import error_of, run_script
from hypothesis import given, strategies as st
from PIL import Image

from datasets import creator
from datasets.creator import writer
from face_alignment import find_jobs
from models.mtcnn import FaceDetector
from utils.alignment import (FRAME_SPREAD, TEMPLATE, alignment_transform, five_points, frame_transform, random_frames,
                             similarity_transform, transform_points, undo_frame, warp)
from utils.pictures import read_rgb, unique_stems, write_picture
from utils.training import move_pictures


@given(st.floats(0.05, 20), st.floats(-3.1, 3.1), st.floats(-500, 500), st.floats(-500, 500), st.integers(0, 2 ** 31))
def test_similarity_transform_recovers_a_known_one(scale, angle, dx, dy, seed):
    source = np.random.default_rng(seed).uniform(-100, 100, (5, 2))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    known = np.array([[c, -s, dx], [s, c, dy]])
    np.testing.assert_allclose(similarity_transform(source, transform_points(known, source)), known, atol=1e-6 * (1 + scale * 100))


def test_similarity_transform_is_the_least_squares_one():
    rng = np.random.default_rng(3)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    best = similarity_transform(source, target)
    # Normal equations of the four unknowns a, b, x, y of [[a, −b, x], [b, a, y]].
    rows = np.concatenate([np.column_stack([source[:, 0], -source[:, 1], np.ones(5), np.zeros(5)]),
                           np.column_stack([source[:, 1], source[:, 0], np.zeros(5), np.ones(5)])])
    a, b, x, y = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(best, [[a, -b, x], [b, a, y]], atol=1e-10)
    with pytest.raises(ValueError):
        similarity_transform(np.ones((5, 2)), target)


def test_template_in_another_size_keeps_the_frame():
    points = np.random.default_rng(0).uniform(0, 200, (5, 2))
    small, large = alignment_transform(points, 64), alignment_transform(points, 256)
    np.testing.assert_allclose(transform_points(small, points), (transform_points(large, points) + 0.5) / 4 - 0.5, atol=1e-9)
    np.testing.assert_allclose(transform_points(alignment_transform(TEMPLATE, 256), TEMPLATE), TEMPLATE, atol=1e-9)


def test_warp_of_a_large_picture_lands_where_that_of_a_small_one_does():
    rng = np.random.default_rng(0)
    small = cv2.resize(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8), (200, 200), interpolation=cv2.INTER_CUBIC)
    large = cv2.resize(small, (1600, 1600), interpolation=cv2.INTER_LINEAR)
    points = np.array([(70, 80), (130, 82), (100, 110), (75, 140), (125, 141)], float)
    one = warp(small, alignment_transform(points, 128), 128).astype(int)
    other = warp(large, alignment_transform((points + 0.5) * 8 - 0.5, 128), 128).astype(int)
    assert np.abs(one - other).mean() < 2


@pytest.mark.parametrize("size", [64, 256])
def test_moved_pictures_are_those_that_a_warp_by_the_frame_gives(size):
    rng = np.random.default_rng(1)
    picture = cv2.resize(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    frames = rng.normal(size=(3, 4)).astype(np.float32)
    moved = move_pictures(torch.from_numpy(picture).permute(2, 0, 1)[None].expand(3, -1, -1, -1).float(), torch.from_numpy(frames))
    for got, frame in zip(moved.permute(0, 2, 3, 1).numpy(), frames):
        matrix = frame_transform(frame)
        matrix[:, 2] = (matrix[:, 2] + 0.5 - matrix[:, :2] @ (0.5, 0.5)) * size / 256 - 0.5 + matrix[:, :2] @ (0.5, 0.5)
        expected = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        assert np.abs(got - expected).mean() < 1.0 and np.abs(got - picture).mean() > 3.0


def test_an_undone_frame_leaves_the_alignment_as_it_was():
    frame = np.array([1.0, -2.0, 0.5, 1.5])
    right = alignment_transform(np.random.default_rng(0).uniform(0, 200, (5, 2)), 256)
    moved = np.vstack([frame_transform(frame), (0, 0, 1)]) @ np.vstack([right, (0, 0, 1)])
    np.testing.assert_allclose(undo_frame(moved[:2], frame), right, atol=1e-9)
    assert np.hypot(*frame_transform(frame)[:, 0]) == pytest.approx(np.exp(FRAME_SPREAD[0]))


def test_a_names_frame_never_changes_and_frames_are_standard_normal():
    frames = random_frames([f"face_{i}" for i in range(4000)])
    np.testing.assert_array_equal(random_frames(["face_7", "face_3"]), frames[[7, 3]])
    np.testing.assert_allclose(frames.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(frames.T), np.eye(4), atol=0.1)


def test_stems_never_clash():
    assert unique_stems(["a.jpg", "b.png", "d/a.png"]) == ["a", "b", "d/a"]
    assert unique_stems(["a.jpg", "A.png", "a.jpg.png"]) == ["a.jpg", "A.png", "a.jpg.png"]


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Creator faces on larger canvases, turned, scaled and shifted by known amounts, in awkward formats."""
    folder = tmp_path_factory.mktemp("album") / "Фото"
    renderer, rng = creator.Renderer(256), np.random.default_rng(5)
    truth = {}
    faces = [writer.face(21, i) for i in range(6)]
    pictures, landmarks = renderer.render(np.array([f[0] for f in faces]), [(f[1],) for f in faces])
    for i, (picture, points) in enumerate(zip(pictures[:, 0], landmarks)):
        angle, scale = np.radians(rng.uniform(-20, 20)), rng.uniform(0.5, 1.6)
        matrix = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]) * scale
        matrix[:, 2] = 300 + rng.uniform(-40, 40, 2) - matrix[:, :2] @ (128, 128)
        canvas = cv2.warpAffine(picture, matrix, (600, 600), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        truth[f"{i}.png"] = transform_points(matrix, five_points(points))
        write_picture(folder / f"{i}.png", canvas)
    first = Image.open(folder / "0.png")
    (folder / "tief" / "unten").mkdir(parents=True)
    first.convert("L").save(folder / "tief" / "grau.jpg", quality=95)
    first.convert("RGBA").save(folder / "tief" / "grau.webp")
    first.rotate(90, expand=True).save(folder / "tief" / "unten" / "liegend.jpg", exif=_orientation(6), quality=95)
    Image.fromarray(np.asarray(first.convert("L")).astype(np.uint16) * 257).save(folder / "tief" / "sechzehn.png")
    first.resize((60, 60), Image.Resampling.BOX).save(folder / "klein.png")
    first.resize((4000, 4000)).save(folder / "gross.jpg")
    Image.new("RGB", (200, 150), "grey").save(folder / "leer.png")
    both = Image.new("RGB", (1200, 600))
    both.paste(first, (0, 0)), both.paste(Image.open(folder / "1.png"), (600, 0))
    both.save(folder / "zwei.jpg", quality=95)
    (folder / "kaputt.jpg").write_bytes((folder / "gross.jpg").read_bytes()[:5000])
    (folder / "text.png").write_text("not a picture")
    return folder, truth


def _orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def test_face_alignment_end_to_end(album, tmp_path):
    folder, truth = album
    output = tmp_path / "aligned"
    result = run_script("face_alignment.py", "--input", folder, "--output", output, "--workers", "1", "--max-unreadable", "0.2", cwd=tmp_path)
    rows = {row["file"]: row for row in csv.DictReader(open(output / "alignment.csv", encoding="utf-8", newline=""))}
    assert list(rows[next(iter(rows))]) == ["file", "status", "score"] + [f"{a}{i}" for i in range(5) for a in "xy"]
    expected = {"leer.png": "no_face", "zwei.jpg": "several_faces", "kaputt.jpg": "unreadable", "text.png": "unreadable"}
    assert {f: r["status"] for f, r in rows.items() if r["status"] != "ok"} == expected
    assert "2 unreadable" in result.stdout and "kaputt.jpg\t" in (output / "unreadable.txt").read_text(encoding="utf-8")
    # Grey, RGBA, 16-bit, EXIF-rotated, small and large versions of the first picture, where their points must be.
    truth = truth | {f"tief/{n}": truth["0.png"] for n in ("grau.jpg", "grau.webp", "sechzehn.png", "unten/liegend.jpg")}
    truth = truth | {"gross.jpg": (truth["0.png"] + 0.5) * 4000 / 600 - 0.5, "klein.png": (truth["0.png"] + 0.5) / 10 - 0.5}
    targets = {job.file: job.target for job in find_jobs(folder, output)}
    for file, points in truth.items():
        found = np.array([[float(rows[file][f"{a}{i}"]) for a in "xy"] for i in range(5)])
        right, used = alignment_transform(points, 256), alignment_transform(found, 256)
        error = np.linalg.norm(transform_points(used, points) - transform_points(right, points), axis=1).mean()
        assert error < (14 if file == "klein.png" else 9), (file, error)
        assert read_rgb(targets[file]).shape == (256, 256, 3)

    before = {p: p.stat().st_mtime_ns for p in output.rglob("*.png")}
    again = run_script("face_alignment.py", "--input", folder, "--output", output, cwd=tmp_path, check=False)
    assert f"{len(rows) - 2} were done before" in again.stdout
    assert f"2 of {len(rows)} pictures cannot be read (" in error_of(again)
    assert before == {p: p.stat().st_mtime_ns for p in output.rglob("*.png")}

    largest = run_script("face_alignment.py", "--input", folder, "--output", output, "--faces", "largest", "--size", "64", "--max-unreadable", "1", cwd=tmp_path)
    assert "0 several_faces" in largest.stdout and read_rgb(output / "zwei.png").shape == (64, 64, 3)


def test_frames_found_together_are_as_found_alone(album):
    folder, _ = album
    pictures = [read_rgb(folder / name) for name in ("0.png", "leer.png", "1.png", "gross.jpg", "klein.png", "2.png")]
    detector = FaceDetector()
    for alone, together in zip(map(detector.find, pictures), detector.find_all(pictures)):
        assert len(alone.scores) == len(together.scores)
        np.testing.assert_allclose(together.points, alone.points, atol=0.02)


@pytest.mark.parametrize("arguments, told", [
    (("--input", "nowhere"), "there is no file or folder nowhere"),
    (("--input", "."), "holds no pictures"),
    (("--input", "notes.txt"), "not a picture"),
    (("--input", ".", "--size", "3"), "expected 16 to 4096"),
    (("--input", ".", "--device", "cuda"), "no CUDA device"),
])
def test_face_alignment_refuses_with_a_sentence(arguments, told, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert told in error_of(run_script("face_alignment.py", *arguments, "--output", "out", cwd=tmp_path, check=False))
