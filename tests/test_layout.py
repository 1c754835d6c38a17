"""Data formats: names, splits, the HS_FACE layout in all its variants, picture folders."""

import hashlib
import json
import os
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image

from datasets.faces import root_sources, vae_pictures
from datasets.hs_face import find_parts, parse_parameters, read_labels, read_parameters, read_splits, BUILT_IN_TABLE
from datasets.names import SPLITS, name_of, split_of
from datasets.pictures import Pictures, folder_source
from utils.config import from_dict
from utils.errors import UserError
from utils.pictures import UnreadablePicture, find_pictures, read_rgb, write_picture


#: Names at the edges of the splits: the first 8 bytes of their SHA-256, and the split these give.
KNOWN = (("r", 0x454349e422f05297, "test"),
         ("t", 0xe3b98a4da31a127d, "train"),
         ("dj", 0x9cde7dd490c4fc16, "val"),
         ("ei", 0x39d633dc9cf015fb, "test"),
         ("hd", 0x52ff0394dde3f5c2, "val"))


def picture(path, colour=(200, 100, 50), side=40):
    write_picture(path, np.full((side, side, 3), colour, np.uint8))


@pytest.fixture
def layout(tmp_path):
    root = tmp_path / "game"
    names = [f"n{i:02d}" for i in range(20)]
    for name in names:
        picture(root / "images" / f"{name}.png")
        picture(root / "aug_images" / f"{name}.jpg")
    (root / "labels.json").write_text(json.dumps({n: [i / 20, 0.5] for i, n in enumerate(names)}))
    (root / "parameters.csv").write_text("index,name,group,kind,min,max,description\n0,a,g,slider,-1,2,up\n1,b,g,bone,0,4,\n")
    return root


def test_names():
    assert name_of("0007@face.png") == name_of("a@b@face.JPG") == name_of("face") == "face"
    assert name_of("v1.2.webp") == "v1.2" and name_of("v1.2") == "v1.2"
    assert name_of(unicodedata.normalize("NFD", "Zoë.png")) == unicodedata.normalize("NFC", "Zoë")


@given(st.text(max_size=30))
def test_names_are_stable_and_splits_do_not_depend_on_spelling(text):
    name = name_of(text)
    assert "@" not in name and unicodedata.is_normalized("NFC", name)
    assert split_of(name) in SPLITS and split_of(name) == split_of(name_of(unicodedata.normalize("NFD", name)) if "." not in name else name)
    if "." not in text:
        assert name_of(f"id@{text}.png") == name


def test_split_is_90_5_5_and_as_documented():
    splits = [split_of(f"face_{i:06d}") for i in range(20_000)]
    assert [abs(splits.count(s) / 20_000 - share) < 0.01 for s, share in zip(SPLITS, (0.9, 0.05, 0.05))] == [True] * 3
    for name, first, split in KNOWN:
        assert first == int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) and split_of(name) == split


def test_labels_cache_is_used_and_thrown_away(layout):
    first = read_labels(layout)
    assert first.values.shape == (20, 2) and first.values[3, 0] == pytest.approx(0.15)
    caches = list(layout.glob("labels.*.npy"))
    assert len(caches) == 1
    again = read_labels(layout)
    assert again.names == first.names and np.array_equal(again.values, first.values)
    (layout / "labels.json").write_text(json.dumps({"7@n00": [0.25, 0.75]}))
    changed = read_labels(layout)
    assert changed.names == ["n00"] and changed.values.tolist() == [[0.25, 0.75]]
    assert len(list(layout.glob("labels.*.npy"))) == 1 and not caches[0].exists()
    next(layout.glob("labels.*.npy")).write_bytes(b"torn")
    assert read_labels(layout).names == ["n00"]


@pytest.mark.parametrize("content, told", [
    ("{", "not JSON"), ("[]", "holds no faces"), ("{}", "holds no faces"), ('{"a": 3}', "list of numbers"),
    ('{"a": [0.1, true]}', "list of numbers"), ('{"a": [0.1, 0.2], "b": [0.1]}', "unequal length: 'a' has 2 values, 'b' has 1"),
    ('{"a": [0.1, NaN]}', "value 1 of 'a' is nan"), ('{"a": [0.1, 1e999]}', "no finite number"),
    ('{"a": [0.1, 0.2], "b": [0.2, 35.0]}', "value 1 of 'b' is 35.0, far outside 0 to 1"),
])
def test_wrong_labels_are_named(layout, content, told):
    (layout / "labels.json").write_text(content)
    with pytest.raises(UserError, match="labels.json") as caught:
        read_labels(layout)
    assert told in str(caught.value)


def test_parameter_tables(layout):
    first, second = read_parameters(layout, 2)
    assert (first.name, first.kind, first.in_game(0.5), first.description) == ("a", "slider", 0.5, "up")
    assert second.kind == "bone" and second.in_game(1) == 4
    with pytest.raises(UserError, match="has 2 rows, the labels of .* have 3 values"):
        read_parameters(layout, 3)
    for wrong in ("index,name\n0,a\n", "index,name,group,kind,min,max\n1,a,g,s,0,1\n", "index,name,group,kind,min,max\n0,a,g,s,2,1\n",
                  "index,name,group,kind,min,max\n0,a,g,s,0,1\n1,a,g,s,0,1\n"):
        (layout / "parameters.csv").write_text(wrong)
        with pytest.raises(UserError):
            read_parameters(layout, 2)
    (layout / "parameters.csv").unlink()
    with pytest.raises(UserError, match="only HS_FACE's 205"):
        read_parameters(layout, 2)
    built_in = read_parameters(layout, 205)
    assert [p.kind for p in built_in].count("slider") == 54 and built_in == parse_parameters(BUILT_IN_TABLE)


def test_parts_in_both_name_forms(layout):
    os.rename(layout / "images" / "n03.png", layout / "images" / "0003@n03.png")
    (layout / "images" / "notes.txt").write_text("no picture")
    parts = find_parts(layout)
    assert list(parts) == ["images", "aug_images"] and list(parts["images"]) == [f"n{i:02d}" for i in range(20)]
    sources, splits = root_sources(layout)
    assert splits[0] == splits[1]  # a render and its variant share their split


def test_split_files(layout):
    for split, names in {"train": "n00\n9@n01.png\n\n", "val": "n02", "test": "n03"}.items():
        (layout / f"{split}.txt").write_text(names)
    assert read_splits(layout, ["n00", "n01", "n02", "n03", "n04"]) == {"n00": "train", "n01": "train", "n02": "val", "n03": "test"}
    (layout / "test.txt").write_text("n03\nn00")
    with pytest.raises(UserError, match="'n00' stands in train.txt and in test.txt"):
        read_splits(layout, ["n00"])
    (layout / "test.txt").unlink()
    with pytest.raises(UserError, match="but not the others"):
        read_splits(layout, ["n00"])


@pytest.mark.parametrize("cache", ["cache", ""])
def test_picture_folders_and_the_root_together(layout, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    picture(photos / "a" / "x.png", (255, 0, 0), 100)
    picture(photos / "b" / "x.jpg", (0, 0, 255), 30)
    (photos / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    settings = {"data": {"root": str(layout), "folders": [str(photos)], "image_size": 32, "cache": cache, "workers": 0},
                "vae": {"encoder_channels": [4, 4, 4], "decoder_channels": [4, 4, 4]}}
    config = from_dict(settings, "test")
    pictures = vae_pictures(config, 0)
    assert len(pictures.paths) == 43
    assert pictures.sources[2].names == ["a/broken.png", "a/x.png", "b/x.jpg"]
    assert [split_of(n) for n in pictures.sources[2].names] == pictures.split[40:].tolist()
    batch = next(pictures.batches([[41, 40, 42, 0]], torch.device("cpu")))
    assert batch.indices.tolist() == [41, 42, 0] and batch.pictures.shape == (3, 3, 32, 32)
    assert batch.pictures[0, :, 5, 5].tolist() == [255, 0, 0] and batch.pictures[1, 2].min() > 245
    listing = tmp_path / "unreadable.txt"
    pictures.check_unreadable(0.05, listing)
    assert "broken.png" in listing.read_text()
    with pytest.raises(UserError, match="1 of 43 pictures cannot be read"):
        pictures.check_unreadable(0.01, listing)
    known = tmp_path / "known"
    picture(known / "images" / "me.png", (0, 255, 0), 64)
    both = vae_pictures(from_dict(settings | {"data": settings["data"] | {"photos": str(known), "use_aug": False}}, "test"), 0)
    assert len(both.paths) == 24 and both.sources[1].names == ["me"]  # 20 renders, the photo, 3 of the folder


def test_cache_follows_its_sources_and_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "faces"
    for i in range(5):
        picture(folder / f"{i}.png", (i * 10, 0, 0))
    def read():
        source = folder_source(folder, find_pictures(folder))
        pictures = Pictures([source], [["train"] * len(source.paths)], 32, tmp_path / "cache", 0)
        return next(pictures.batches([range(len(source.paths))], torch.device("cpu"))).pictures[:, 0, 0, 0].tolist()
    assert read() == [0, 10, 20, 30, 40]
    monkeypatch.setattr("datasets.pictures.decode", lambda *_: pytest.fail("decoded although cached"))
    assert read() == [0, 10, 20, 30, 40]
    monkeypatch.undo()
    picture(folder / "2.png", (99, 0, 0))
    assert read() == [0, 10, 99, 30, 40]


def test_every_kind_of_picture_is_read_as_people_see_it(tmp_path):
    base = Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1)))
    saved = {"grey.png": base, "palette.png": base.convert("P"), "rgba.png": base.convert("RGBA"), "cmyk.jpg": base.convert("CMYK"),
             "one.bmp": base.convert("RGB"), "still.webp": base.convert("RGB")}
    for name, image in saved.items():
        image.save(tmp_path / name)
    Image.fromarray(np.asarray(base).astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    frames = [base.convert("RGB"), Image.new("RGB", (64, 64), "red")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    for path in tmp_path.iterdir():
        array = read_rgb(path)
        assert array.shape == (64, 64, 3) and array.dtype == np.uint8
        assert np.abs(array[32, :, 1].astype(int) - np.asarray(base)[32]).mean() < 4, path.name


def test_broken_pictures_are_unreadable_and_nothing_worse(tmp_path):
    good = tmp_path / "good.png"
    picture(good, side=64)
    data = good.read_bytes()
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "noise.jpg")
    jpeg = (tmp_path / "noise.jpg").read_bytes()
    noise.save(tmp_path / "noise.png")
    png = (tmp_path / "noise.png").read_bytes()
    for content in (b"", b"text", png[:len(png) // 2], data[:40], jpeg[:len(jpeg) // 2], jpeg[:10]):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(UnreadablePicture):
            read_rgb(tmp_path / "bad.png")
    bomb = data[:16] + (60_000).to_bytes(4, "big") * 2 + data[24:]
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(UnreadablePicture):
        read_rgb(tmp_path / "bomb.png")
    with pytest.raises(UnreadablePicture):
        read_rgb(tmp_path / "missing.png")
    for _ in range(300):  # bytes changed at random: a picture or an UnreadablePicture, never another error
        broken = bytearray(rng.choice([0, 1]) and data or jpeg)
        for at in rng.integers(0, len(broken), rng.integers(1, 8)):
            broken[at] = rng.integers(256)
        (tmp_path / "mutated.png").write_bytes(broken)
        try:
            read_rgb(tmp_path / "mutated.png")
        except UnreadablePicture:
            pass


@pytest.mark.parametrize("name", ["../../stray", "/etc/stray", "C:stray", "a\\b", "..", "9@../n00"])
def test_names_cannot_leave_the_data_folder(layout, name):
    (layout / "labels.json").write_text(json.dumps({"n00": [0, 1], name: [0, 1]}))
    with pytest.raises(UserError, match="expected the name of a picture, not a path"):
        read_labels(layout)
    for split in SPLITS:
        (layout / f"{split}.txt").write_text(f"{name}\n")
    with pytest.raises(UserError, match="train.txt names"):
        read_splits(layout, ["n00"])
