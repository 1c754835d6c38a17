"""What networks are fed: names, splits, labels, the sources of an experiment, pictures and their cache."""

import hashlib
import json
import os
import re
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets.labels import find_parts, read_labels, read_splits
from datasets.names import SPLITS, known_name, name_of, split_of
from datasets.pictures import Pictures, epoch_order
from datasets.sources import content_digest, ensure_data, folder_source, labelled_sources, root_sources, vae_sources
from tests.helpers import plain_picture
from utils.config import Config, from_dict
from utils.errors import UserError
from utils.pictures import UnreadablePicture, grid, read_rgb

#: Names at the edges of the splits: the first 8 bytes of their SHA-256, and the split these give.
KNOWN = (
    ("r", 0x454349E422F05297, "test"),
    ("t", 0xE3B98A4DA31A127D, "train"),
    ("dj", 0x9CDE7DD490C4FC16, "val"),
    ("ei", 0x39D633DC9CF015FB, "test"),
    ("hd", 0x52FF0394DDE3F5C2, "val"),
)

CPU = torch.device("cpu")


@pytest.fixture
def layout(tmp_path):
    """Twenty renders and their variants in the HS_FACE layout."""
    root = tmp_path / "game"
    names = [f"n{i:02d}" for i in range(20)]
    for name in names:
        plain_picture(root / "images" / f"{name}.png")
        plain_picture(root / "aug_images" / f"{name}.jpg")
    (root / "labels.json").write_text(json.dumps({name: [i / 20, 0.5] for i, name in enumerate(names)}))
    header = "index,name,group,kind,min,max,description"
    (root / "parameters.csv").write_text(f"{header}\n0,a,g,slider,-1,2,up\n1,b,g,bone,0,4,\n")
    return root


def experiment(**data) -> Config:
    """A configuration that reads pictures of 32 px."""
    small = {"encoder_channels": [4, 4], "decoder_channels": [4, 4]}
    return from_dict({"data": {"image_size": 32, "cache": "", "workers": 0, **data}, "vae": small}, "test")


def opened(sources, cache=None) -> Pictures:
    return Pictures(sources, size=32, cache=cache, workers=0)


# --- names and splits -----------------------------------------------------------------------------


@pytest.mark.parametrize("spelt", ["0007@face.png", "a@b@face.JPG", "face"])
def test_a_name_has_neither_extension_nor_number(spelt):
    assert known_name(name_of(spelt), {"face"}) == "face"


def test_an_at_sign_stays_where_a_label_has_it():
    assert known_name(name_of("face@2x.png"), {"face@2x", "2x"}) == "face@2x"


def test_only_the_extension_of_a_picture_is_taken_off():
    assert name_of("v1.2.webp") == "v1.2"
    assert name_of("v1.2") == "v1.2"


def test_names_are_the_same_however_a_system_spells_them():
    assert name_of(unicodedata.normalize("NFD", "Zoë.png")) == unicodedata.normalize("NFC", "Zoë")


@given(st.text(max_size=30))
def test_names_of_any_text_are_stable(text):
    name = name_of(text)
    assert unicodedata.is_normalized("NFC", name)
    assert split_of(name) in SPLITS


@given(st.text(st.characters(exclude_characters=".@", exclude_categories=["Cs"]), max_size=30))
def test_splits_depend_neither_on_spelling_nor_on_number_and_extension(text):
    name = name_of(text)
    assert split_of(name) == split_of(name_of(unicodedata.normalize("NFD", name)))
    assert known_name(name_of(f"id@{text}.png"), {name}) == name


def test_split_is_90_5_5():
    splits = [split_of(f"face_{i:06d}") for i in range(20_000)]
    found = [splits.count(split) / 20_000 for split in SPLITS]
    assert found == pytest.approx([0.9, 0.05, 0.05], abs=0.01)


@pytest.mark.parametrize("name, first, split", KNOWN)
def test_split_is_the_documented_function_of_the_name(name, first, split):
    assert int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) == first
    assert split_of(name) == split


def test_split_files_are_read_in_both_forms_of_names(layout):
    for split, names in {"train": "n00\n9@n01.png\n\n", "val": "n02", "test": "n03"}.items():
        (layout / f"{split}.txt").write_text(names)
    expected = {"n00": "train", "n01": "train", "n02": "val", "n03": "test"}
    assert read_splits(layout, ["n00", "n01", "n02", "n03", "n04"]) == expected


def test_a_name_in_two_split_files_is_refused(layout):
    for split, names in {"train": "n00", "val": "n02", "test": "n03\nn00"}.items():
        (layout / f"{split}.txt").write_text(names)
    with pytest.raises(UserError, match="'n00' stands in train.txt and in test.txt"):
        read_splits(layout, ["n00"])


def test_some_split_files_without_the_others_are_refused(layout):
    (layout / "train.txt").write_text("n00")
    (layout / "val.txt").write_text("n02")
    with pytest.raises(UserError, match="but not the others"):
        read_splits(layout, ["n00"])


# --- labels ---------------------------------------------------------------------------------------


def caches_of(layout):
    return list(layout.glob("labels.*.npy"))


def test_labels_are_read_and_kept_parsed(layout):
    first = read_labels(layout)
    assert first.values.shape == (20, 2)
    assert first.values[3, 0] == pytest.approx(0.15)
    assert len(caches_of(layout)) == 1

    again = read_labels(layout)
    assert again.names == first.names
    assert np.array_equal(again.values, first.values)


def test_the_cache_of_labels_is_what_is_read_the_second_time(layout, monkeypatch):
    read_labels(layout)
    monkeypatch.setattr("datasets.labels._parse_labels", lambda *_: pytest.fail("parsed although cached"))
    assert len(read_labels(layout).names) == 20


def test_the_cache_of_labels_is_thrown_away_when_they_change(layout):
    read_labels(layout)
    before = caches_of(layout)
    (layout / "labels.json").write_text(json.dumps({"n00.png": [0.25, 0.75]}))

    changed = read_labels(layout)
    assert changed.names == ["n00"]
    assert changed.values.tolist() == [[0.25, 0.75]]
    assert len(caches_of(layout)) == 1
    assert not before[0].exists()


def test_a_torn_cache_of_labels_is_no_obstacle(layout):
    first = read_labels(layout)
    caches_of(layout)[0].write_bytes(b"torn")
    assert read_labels(layout).names == first.names


@pytest.mark.parametrize(
    "content, told",
    [
        ("{", "not JSON"),
        ("[]", "holds no faces"),
        ("{}", "holds no faces"),
        ('{"a": 3}', "list of numbers"),
        ('{"a": [0.1, true]}', "list of numbers"),
        ('{"a": [0.1, 0.2], "b": [0.1]}', "unequal length: 'a' has 2 values, 'b' has 1"),
        ('{"a": [0.1, NaN]}', "value 1 of 'a' is nan"),
        ('{"a": [0.1, 1e999]}', "no finite number"),
        ('{"a": [0.1, 0.2], "b": [0.2, 35.0]}', "value 1 of 'b' is 35.0, far outside 0 to 1"),
    ],
)
def test_wrong_labels_are_named(layout, content, told):
    (layout / "labels.json").write_text(content)
    with pytest.raises(UserError, match="labels.json") as caught:
        read_labels(layout)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["../../stray", "/etc/stray", "C:stray", "a\\b", "..", "9@../n00"])
def test_names_cannot_leave_the_data_folder(layout, name):
    (layout / "labels.json").write_text(json.dumps({"n00": [0, 1], name: [0, 1]}))
    with pytest.raises(UserError, match="expected the name of a picture, not a path"):
        read_labels(layout)
    for split in SPLITS:
        (layout / f"{split}.txt").write_text(f"{name}\n")
    with pytest.raises(UserError, match="train.txt names"):
        read_splits(layout, ["n00"])


# --- sources --------------------------------------------------------------------------------------


def test_parts_are_found_in_both_forms_of_names(layout):
    os.rename(layout / "images" / "n03.png", layout / "images" / "0003@n03.png")
    (layout / "images" / "notes.txt").write_text("no picture")
    parts = find_parts(layout)
    assert list(parts) == ["images", "aug_images"]
    assert list(parts["images"]) == [f"n{i:02d}" for i in range(20)]


def test_a_render_and_its_variant_share_their_split(layout):
    sources = root_sources(layout)
    assert sources["images"].splits == sources["aug_images"].splits


def test_photos_are_a_source_beside_the_parts_of_the_root(layout, tmp_path):
    plain_picture(tmp_path / "known" / "images" / "me.png")
    sources = labelled_sources(experiment(root=str(layout), photos=str(tmp_path / "known")).data)
    assert list(sources) == ["images", "aug_images", "photos"]
    assert sources["photos"].names == ["me"]


def test_stage_1_leaves_variants_out_where_they_are_not_wanted(layout, tmp_path):
    plain_picture(tmp_path / "known" / "images" / "me.png")
    for name in ("x.png", "y.png", "z.png"):
        plain_picture(tmp_path / "faces" / name)
    folders, photos = [str(tmp_path / "faces")], str(tmp_path / "known")
    sources = vae_sources(experiment(root=str(layout), folders=folders, photos=photos, use_variants=False))
    assert {name: len(source.paths) for name, source in sources.items()} == {"images": 20, "photos": 1, "folder 1": 3}


def test_names_of_a_plain_folder_are_paths_below_it_and_loops_are_not_followed(tmp_path):
    plain_picture(tmp_path / "faces" / "a" / "x.png")
    plain_picture(tmp_path / "faces" / "b" / "x.jpg")
    (tmp_path / "faces" / "loop").symlink_to(tmp_path / "faces", target_is_directory=True)
    source = folder_source(tmp_path / "faces")
    assert source.names == ["a/x.png", "b/x.jpg"]
    assert source.splits == [split_of(name) for name in source.names]


def test_the_digest_of_a_source_does_not_depend_on_where_it_lies(layout, tmp_path):
    before = content_digest(root_sources(layout)["images"])
    layout.rename(tmp_path / "moved")
    assert content_digest(root_sources(tmp_path / "moved")["images"]) == before


def test_the_digest_of_a_source_sees_other_pictures_names_and_splits(layout):
    def digest() -> str:
        return content_digest(root_sources(layout)["images"])

    seen = [digest()]
    plain_picture(layout / "images" / "n00.png", (0, 0, 9))
    seen.append(digest())
    (layout / "images" / "n01.png").rename(layout / "images" / "n99.png")
    seen.append(digest())
    for split, names in {"train": "n00", "val": "n02", "test": "n03"}.items():
        (layout / f"{split}.txt").write_text(names)
    seen.append(digest())
    assert len(set(seen)) == 4


def test_a_data_set_of_ones_own_is_not_written_to(layout):
    before = sorted(layout.rglob("*"))
    ensure_data(experiment(root=str(layout), creator_count=5), workers=0)
    assert sorted(layout.rglob("*")) == before


# --- pictures -------------------------------------------------------------------------------------


@pytest.fixture(params=["with cache", "without cache"])
def album(request, layout, tmp_path):
    """The pictures of a root and of a folder, one of whose three is broken, as `Pictures`."""
    faces = tmp_path / "faces"
    plain_picture(faces / "a" / "x.png", (255, 0, 0), 100)
    plain_picture(faces / "b" / "x.jpg", (0, 0, 255), 30)
    (faces / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    sources = vae_sources(experiment(root=str(layout), folders=[str(faces)]))
    cache = {"with cache": tmp_path / "cache", "without cache": None}[request.param]
    return opened(sources, cache)


def test_pictures_of_all_sources_stand_one_after_the_other(album):
    assert len(album.paths) == 43
    assert album.sources["folder 1"].names == ["a/broken.png", "a/x.png", "b/x.jpg"]
    assert album.split[40:].tolist() == [split_of(name) for name in album.sources["folder 1"].names]


def test_a_batch_has_the_pictures_asked_for_but_for_unreadable_ones(album):
    batch = next(album.batches([[41, 40, 42, 0]], CPU))
    assert batch.indices.tolist() == [41, 42, 0]
    assert batch.pictures.shape == (3, 3, 32, 32)
    assert batch.pictures[0, :, 5, 5].tolist() == [255, 0, 0]
    assert batch.pictures[1, 2].min() > 245


def test_unreadable_pictures_are_listed_or_refused(album, tmp_path):
    next(album.batches([[41, 40, 42, 0]], CPU))
    listing = tmp_path / "unreadable.txt"
    album.check_unreadable(0.05, listing)
    assert "broken.png" in listing.read_text()
    with pytest.raises(UserError, match="1 of 43 pictures cannot be read"):
        album.check_unreadable(0.01, listing)


def test_known_unreadable_pictures_belong_to_no_split(album):
    next(album.batches([[40]], CPU))
    assert 40 not in np.concatenate([album.indices(split) for split in SPLITS])
    assert len(np.concatenate([album.indices(split) for split in SPLITS])) == 42


def test_a_source_without_readable_pictures_gives_empty_batches(tmp_path):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "a.png").write_bytes(b"no picture")
    pictures = opened({"faces": folder_source(tmp_path / "faces")})
    batch = next(pictures.batches([[0]], CPU))
    assert batch.pictures.shape == (0, 3, 32, 32)
    assert [index for index, _ in batch.unreadable] == [0]


def test_the_cache_is_built_once_and_follows_its_sources(tmp_path, monkeypatch):
    folder = tmp_path / "faces"
    for i in range(5):
        plain_picture(folder / f"{i}.png", (i * 10, 0, 0))

    def reds() -> list[int]:
        pictures = opened({"faces": folder_source(folder)}, tmp_path / "cache")
        return next(pictures.batches([range(5)], CPU)).pictures[:, 0, 0, 0].tolist()

    assert reds() == [0, 10, 20, 30, 40]
    with monkeypatch.context() as patch:
        patch.setattr("datasets.pictures.decode", lambda *_: pytest.fail("decoded although cached"))
        assert reds() == [0, 10, 20, 30, 40]
    plain_picture(folder / "2.png", (99, 0, 0))
    assert reds() == [0, 10, 99, 30, 40]


def test_the_cache_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    folder = tmp_path / "faces"
    for i in range(5):
        plain_picture(folder / f"{i}.png", (i * 10, 0, 0))
    monkeypatch.setattr("datasets.pictures._BLOCK", 1)
    monkeypatch.setattr("datasets.pictures._COMMIT_EVERY", 1)
    decoded: list[str] = []

    def count_and_stop(path, size):
        if len(decoded) == 3:
            raise KeyboardInterrupt
        decoded.append(path.name)
        return np.full((size, size, 3), int(path.stem), np.uint8)

    monkeypatch.setattr("datasets.pictures.decode", count_and_stop)
    with pytest.raises(KeyboardInterrupt):
        opened({"faces": folder_source(folder)}, tmp_path / "cache")
    assert decoded == ["0.png", "1.png", "2.png"]

    decoded.clear()
    pictures = opened({"faces": folder_source(folder)}, tmp_path / "cache")
    assert decoded == ["3.png", "4.png"]
    assert next(pictures.batches([range(5)], CPU)).pictures[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_an_epochs_order_is_a_function_of_seed_and_epoch_and_leaves_out_what_fills_no_batch():
    indices = np.arange(100, 123)
    order = epoch_order(indices, 5, seed=1, epoch=2)
    assert order.shape == (4, 5)
    assert len(set(order.ravel()) & set(indices)) == 20
    assert np.array_equal(order, epoch_order(indices, 5, seed=1, epoch=2))
    assert not np.array_equal(order, epoch_order(indices, 5, seed=1, epoch=3))
    assert not np.array_equal(order, epoch_order(indices, 5, seed=2, epoch=2))


# --- picture files --------------------------------------------------------------------------------


def test_every_kind_of_picture_is_read_as_people_see_it(tmp_path):
    base = Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1)))
    saved = {
        "grey.png": base,
        "palette.png": base.convert("P"),
        "rgba.png": base.convert("RGBA"),
        "cmyk.jpg": base.convert("CMYK"),
        "one.bmp": base.convert("RGB"),
        "still.webp": base.convert("RGB"),
    }
    for name, image in saved.items():
        image.save(tmp_path / name)
    Image.fromarray(np.asarray(base).astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    frames = [base.convert("RGB"), Image.new("RGB", (64, 64), "red")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])

    for path in tmp_path.iterdir():
        array = read_rgb(path)
        assert array.shape == (64, 64, 3), path.name
        assert array.dtype == np.uint8, path.name
        assert np.abs(array[32, :, 1].astype(int) - np.asarray(base)[32]).mean() < 4, path.name


@pytest.fixture
def files(tmp_path):
    """The bytes of a smooth PNG, and of noise as PNG and as JPEG."""
    plain_picture(tmp_path / "smooth.png", side=64)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "noise.png")
    noise.save(tmp_path / "noise.jpg")
    return {name: (tmp_path / name).read_bytes() for name in ("smooth.png", "noise.png", "noise.jpg")}


@pytest.mark.parametrize(
    "broken",
    [
        lambda files: b"",
        lambda files: b"text",
        lambda files: files["noise.png"][: len(files["noise.png"]) // 2],
        lambda files: files["smooth.png"][:40],
        lambda files: files["noise.jpg"][: len(files["noise.jpg"]) // 2],
        lambda files: files["noise.jpg"][:10],
        lambda files: files["smooth.png"][:16] + (60_000).to_bytes(4, "big") * 2 + files["smooth.png"][24:],
    ],
    ids=["empty", "text", "half a PNG", "a PNG's head", "half a JPEG", "a JPEG's head", "decompression bomb"],
)
def test_broken_pictures_are_unreadable(broken, files, tmp_path):
    (tmp_path / "bad.png").write_bytes(broken(files))
    with pytest.raises(UnreadablePicture):
        read_rgb(tmp_path / "bad.png")


def test_a_missing_picture_is_unreadable(tmp_path):
    with pytest.raises(UnreadablePicture):
        read_rgb(tmp_path / "missing.png")


def test_bytes_changed_at_random_give_a_picture_or_unreadable_never_another_error(files, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(files[("noise.jpg", "smooth.png")[rng.integers(2)]])
        for at in rng.integers(0, len(broken), rng.integers(1, 8)):
            broken[at] = rng.integers(256)
        (tmp_path / "mutated.png").write_bytes(broken)
        try:
            picture = read_rgb(tmp_path / "mutated.png")
        except UnreadablePicture as error:
            assert re.fullmatch(".+", str(error))
        else:
            assert picture.dtype == np.uint8


def test_a_grid_shows_pictures_row_by_row_and_is_white_where_none_is_left():
    pictures = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 4, 3), np.uint8)
    sheet = grid(pictures, 2)
    assert sheet.shape == (4, 8, 3)
    assert sheet[::2, ::4, 0].tolist() == [[0, 1], [2, 255]]
