"""The table of latents between the stages: what is wanted, how it is written, what stage 2 reads."""

import json

import numpy as np
import pytest
import torch

from datasets.latents import (
    AS_IT_IS,
    MIRRORED,
    MOVED,
    LatentFolder,
    LatentSet,
    digests_of_labels,
    plan,
    read_table,
    views_of,
)
from datasets.sources import Source, content_digest, labelled_sources
from extract_latentvec import view_of
from tests.helpers import plain_picture
from utils.alignment import move_pictures, random_misalignments
from utils.config import Config, LatentsConfig, from_dict
from utils.errors import UserError

#: Dimensions of the latents.
DIM = 3

FINGERPRINT = "f" * 64

HEADER = "index,name,group,kind,min,max,description\n"


def experiment(folder, *, photos: bool = False, data: dict | None = None, **latents) -> Config:
    """A run in a folder whose data sets lie beside it."""
    read = {"root": str(folder / "game"), "photos": str(folder / "people") if photos else ""}
    run = {"name": "tiny", "folder": str(folder / "runs")}
    latents = {"moved": False, "mirrored": False} | latents
    return from_dict({"run": run, "data": read | (data or {}), "latents": latents}, "test")


def write_data(root, labels: dict[str, list[float]], parameters: str = "0,a,g,slider,0,1,\n1,b,g,bone,0,4,\n") -> None:
    """Labels and a parameter table, without pictures."""
    root.mkdir(exist_ok=True)
    (root / "labels.json").write_text(json.dumps(labels))
    (root / "parameters.csv").write_text(HEADER + parameters)


def rows_of(names, start: float) -> np.ndarray:
    """A row per name, the same number in all columns: `start` and the number in the name."""
    values = [start + int("".join(filter(str.isdigit, name))) for name in names]
    return np.repeat(np.array(values, np.float32)[:, None], 2 * DIM, 1)


def write_set(folder: LatentFolder, latents: LatentSet, names: list[str], start: float, world: int = 1) -> None:
    """Write a set as `world` processes would."""
    source = Source("somewhere", [], names, [])
    for rank in range(world):
        faces = range(len(names) * rank // world, len(names) * (rank + 1) // world)
        growing = folder.shard(latents, DIM, rank=rank, faces=faces)
        growing.append(rows_of(names[faces.start : faces.stop], start))
        growing.commit({})
        folder.finish_shard(growing, [])
    folder.join(latents, source, world)


def write_meta(folder: LatentFolder, **changes) -> None:
    meta = {"fingerprint": FINGERPRINT, "latent_dim": DIM, "creator": None, "moved": None, "mirrored": None}
    folder.meta.write_text(json.dumps(meta | {"sources": {"images": "i"}} | changes))


@pytest.fixture
def folder(tmp_path):
    return LatentFolder(tmp_path / "runs" / "tiny" / "latents")


SET = LatentSet("images", AS_IT_IS, "made of this")


# --- what is wanted -------------------------------------------------------------------------------


def test_views_are_those_that_the_settings_ask_for():
    assert views_of(LatentsConfig(moved=False, mirrored=False)) == [AS_IT_IS]
    assert views_of(LatentsConfig(moved=True, mirrored=True)) == [AS_IT_IS, MOVED, MIRRORED]


@pytest.fixture
def pictures(tmp_path):
    """A data set of two renders, one of them with a variant."""
    for path in ("images/n0.png", "images/n1.png", "aug_images/n1.png"):
        plain_picture(tmp_path / "game" / path)
    return tmp_path


def planned(config: Config, fingerprint: str = FINGERPRINT) -> dict[str, str]:
    """Name → what it is made of, of every set that is wanted."""
    digests = {name: content_digest(source) for name, source in labelled_sources(config.data).items()}
    sets = plan(digests, config, config.latents, fingerprint)
    return {latents.name: latents.key for latents in sets}


def test_every_source_is_encoded_in_every_view(pictures):
    names = list(planned(experiment(pictures, moved=True, mirrored=True)))
    views = ["", "_moved", "_mirrored"]
    assert names == [source + view for source in ("images", "aug_images") for view in views]


def test_another_encoder_precision_or_picture_makes_another_set(pictures):
    before = planned(experiment(pictures))
    assert planned(experiment(pictures)) == before
    assert planned(experiment(pictures), "another encoder")["images"] != before["images"]
    assert planned(experiment(pictures, precision="fp32"))["images"] != before["images"]

    plain_picture(pictures / "game" / "images" / "n0.png", (0, 0, 0))
    after = planned(experiment(pictures))
    assert after["images"] != before["images"]
    assert after["aug_images"] == before["aug_images"]


def test_more_views_leave_the_other_sets_as_they_are(pictures):
    fewer, more = planned(experiment(pictures)), planned(experiment(pictures, moved=True, mirrored=True))
    assert fewer.items() <= more.items()


@pytest.mark.parametrize("view", [AS_IT_IS, MOVED, MIRRORED])
def test_a_view_shows_pictures_as_its_name_says(view):
    shown, indices = torch.rand(2, 3, 32, 32), torch.tensor([2, 0])
    names = ["a", "b", "c"]
    change = view_of(view, Source("somewhere", [], names, []))
    expected = {
        AS_IT_IS: shown,
        MOVED: move_pictures(shown, torch.from_numpy(random_misalignments(["c", "a"]))),
        MIRRORED: shown.flip(3),
    }
    seen = shown if change is None else change(shown, indices)
    assert torch.equal(seen, expected[view])


# --- writing --------------------------------------------------------------------------------------


def test_shards_of_several_processes_join_to_what_one_writes(folder, tmp_path):
    names = [f"n{i}" for i in range(7)]
    other = LatentFolder(tmp_path / "other")
    write_set(folder, SET, names, 0, world=1)
    write_set(other, SET, names, 0, world=3)
    for file in ("images.npy", "images.txt"):
        assert (folder.folder / file).read_bytes() == (other.folder / file).read_bytes()
    assert sorted(path.name for path in other.folder.iterdir()) == ["images.json", "images.npy", "images.txt"]


def test_names_that_could_not_be_read_are_left_out_and_noted(folder):
    names = ["n0", "n1", "n2"]
    growing = folder.shard(SET, DIM, rank=0, faces=range(3))
    growing.append(rows_of(["n0", "n2"], 0))
    growing.commit({})
    folder.finish_shard(growing, ["n1"])
    folder.join(SET, Source("somewhere", [], names, []), 1)

    found, latents = folder.read("images", DIM)
    assert found == ["n0", "n2"]
    assert np.array_equal(latents, rows_of(["n0", "n2"], 0))
    assert folder.note_of(SET) == {"key": SET.key, "count": 2, "unreadable": ["n1"]}


def test_a_set_is_there_where_it_is_whole_and_made_of_the_same(folder):
    assert folder.note_of(SET) is None
    write_set(folder, SET, ["n0"], 0)
    assert folder.note_of(SET)["count"] == 1
    assert folder.note_of(SET._replace(key="made of something else")) is None
    (folder.folder / "images.npy").unlink()
    assert folder.note_of(SET) is None


def test_a_set_has_begun_where_it_is_whole_or_some_of_its_faces_are_encoded(folder):
    other = SET._replace(key="made of this and that")
    assert not folder.has_begun(SET)
    folder.shard(SET, DIM, rank=0, faces=range(3)).commit({})
    assert folder.has_begun(SET) and not folder.has_begun(other)
    write_set(folder, other, ["n0"], 0)
    assert folder.has_begun(other) and not folder.has_begun(SET)


def test_until_all_sets_are_whole_nothing_takes_the_latents_for_finished(folder):
    write_set(folder, SET, ["n0"], 0)
    write_meta(folder)
    folder.start([SET])
    assert folder.note_of(SET) is None
    with pytest.raises(UserError, match="not finished; run extract_latentvec.py first"):
        folder.read_meta(FINGERPRINT)


def test_a_shard_goes_on_where_it_was_stopped_unless_it_is_of_other_faces(folder):
    growing = folder.shard(SET, DIM, rank=0, faces=range(3))
    growing.append(rows_of(["n0"], 0))
    growing.commit({"done": 1})
    assert folder.shard(SET, DIM, rank=0, faces=range(3)).progress == {"done": 1}
    assert folder.shard(SET, DIM, rank=0, faces=range(1, 4)).progress == {}


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write, told",
    [
        (lambda path: path.unlink(), "cannot read the latents"),
        (lambda path: path.write_bytes(b"torn"), "cannot read the latents"),
        (lambda path: np.save(path, np.zeros((2, 2 * DIM), "f8")), "float64"),
        (lambda path: np.save(path, np.zeros((3, 2 * DIM), "f4")), r"expected float32 \(2, 6\)"),
        (lambda path: np.save(path, np.array([[0] * 6, [np.nan] * 6], "f4")), r"row 1 \(n1\): not a finite number"),
    ],
    ids=["missing", "torn", "dtype", "shape", "not finite"],
)
def test_damaged_latents_are_named(folder, write, told):
    write_set(folder, SET, ["n0", "n1"], 0)
    write(folder.folder / "images.npy")
    with pytest.raises(UserError, match=told) as caught:
        folder.read("images", DIM)
    assert "extract_latentvec.py --restart" in str(caught.value)


@pytest.mark.parametrize(
    "content, told",
    [("{", "is damaged"), ("[]", "is damaged"), ('{"fingerprint": "another"}', "belong to another encoder")],
)
def test_latents_of_another_encoder_are_refused(folder, content, told):
    folder.folder.mkdir(parents=True)
    folder.meta.write_text(content)
    with pytest.raises(UserError, match=told):
        folder.read_meta(FINGERPRINT)


@pytest.fixture
def finished(folder, tmp_path):
    """Latents of four renders, of which n2 has no variant; names of a set in no order; labels of all but none more."""
    write_data(tmp_path / "game", {f"n{i}": [i / 10, 0.5] for i in range(4)})
    for view, start in ((AS_IT_IS, 0), (MOVED, 100), (MIRRORED, 200)):
        write_set(folder, LatentSet("images", view, "k"), ["n3", "n0", "n2", "n1"], start)
        write_set(folder, LatentSet("aug_images", view, "k"), ["n1", "n3", "n0"], start + 1000)
    write_meta(folder, moved=[1, 2, 3, 4], mirrored=True, sources={"images": "i", "aug_images": "a", "photos": "p"})
    return tmp_path


def test_rows_of_all_views_stand_in_the_order_of_the_names(finished):
    table = read_table(experiment(finished, moved=True, mirrored=True), FINGERPRINT)
    assert table.names == ["n3", "n0", "n2", "n1"]
    np.testing.assert_allclose(table.labels[:, 0], [0.3, 0.0, 0.2, 0.1])
    assert table.latent_dim == DIM
    found = {key: rows[:, 0].tolist() for key, rows in table.rows.items()}
    assert found["images", AS_IT_IS] == [3, 0, 2, 1]
    assert found["images", MOVED] == [103, 100, 102, 101]
    assert found["images", MIRRORED] == [203, 200, 202, 201]


def test_where_a_face_has_no_variant_its_own_latent_stands_in(finished):
    table = read_table(experiment(finished, moved=True, mirrored=True), FINGERPRINT)
    found = {key: rows[:, 0].tolist() for key, rows in table.rows.items()}
    assert table.has_variant.tolist() == [True, True, False, True]
    assert found["aug_images", AS_IT_IS] == [1003, 1000, 2, 1001]
    assert found["aug_images", MOVED] == [1103, 1100, 102, 1101]
    assert found["aug_images", MIRRORED] == [1203, 1200, 202, 1201]


def test_only_the_views_asked_for_are_read(finished):
    table = read_table(experiment(finished), FINGERPRINT)
    assert list(table.rows) == [("images", AS_IT_IS), ("aug_images", AS_IT_IS)]


@pytest.mark.parametrize("view", ["moved", "mirrored"])
def test_a_view_that_was_not_encoded_is_named(finished, folder, view):
    write_meta(folder)
    with pytest.raises(UserError, match=f"no latents of {view} faces, which latents.{view} asks for"):
        read_table(experiment(finished, **{view: True}), FINGERPRINT)


def test_faces_without_label_are_left_out_and_listed(finished, capsys):
    write_data(finished / "game", {"n0": [0.0, 0.5], "n3": [0.3, 0.5], "stray": [0.1, 0.1]})
    table = read_table(experiment(finished, data={"max_unreadable": 1.0}), FINGERPRINT)
    assert table.names == ["n3", "n0"]
    listed = (finished / "runs" / "tiny" / "unmatched.txt").read_text().splitlines()
    assert listed == ["n2\tpicture without label", "n1\tpicture without label", "stray\tlabel without readable picture"]
    assert "3 of 5 names have a picture or a label but not both and are left out" in capsys.readouterr().out


def test_too_many_unmatched_names_are_refused(finished):
    write_data(finished / "game", {"n0": [0.0, 0.5]})
    with pytest.raises(UserError, match=r"3 of 4 names .*images/ and labels.json of one data set\?"):
        read_table(experiment(finished), FINGERPRINT)


def test_a_data_set_of_another_creator_version_is_refused(finished):
    (finished / "game" / "creator.json").write_text(json.dumps({"creator": "0.9", "seed": 7}))
    with pytest.raises(UserError, match="made of other faces than .*: the creator's creator, seed differ"):
        read_table(experiment(finished), FINGERPRINT)


# --- photos ---------------------------------------------------------------------------------------


@pytest.fixture
def with_photos(finished, folder):
    """Beside the renders: latents of three photos, two of them with a label."""
    write_data(finished / "people", {"p7": [0.7, 0.1], "p8": [0.8, 0.2]})
    for view, start in ((AS_IT_IS, 0), (MOVED, 100), (MIRRORED, 200)):
        write_set(folder, LatentSet("photos", view, "k"), ["p9", "p8", "p7"], start)
    return finished


def test_photos_with_parameters_come_after_the_renders_in_a_split_of_their_own(with_photos):
    table = read_table(experiment(with_photos, photos=True), FINGERPRINT)
    assert table.names[4:] == ["p8", "p7"]
    assert table.of("photos").tolist() == [4, 5]
    np.testing.assert_allclose(table.labels[4:], [[0.8, 0.2], [0.7, 0.1]])


def test_a_photo_stands_in_for_its_own_variant(with_photos):
    table = read_table(experiment(with_photos, photos=True, moved=True), FINGERPRINT)
    assert table.has_variant[4:].tolist() == [False, False]
    for source in ("images", "aug_images"):
        assert table.rows[source, AS_IT_IS][4:, 0].tolist() == [8, 7]
        assert table.rows[source, MOVED][4:, 0].tolist() == [108, 107]


def test_photos_that_were_not_encoded_are_named(with_photos, folder):
    write_meta(folder)
    with pytest.raises(UserError, match="no latents of photos, which data.photos asks for"):
        read_table(experiment(with_photos, photos=True), FINGERPRINT)


def test_photos_in_the_parameters_of_another_game_are_refused(with_photos):
    write_data(with_photos / "people", {"p7": [0.7, 0.1]}, "0,x,g,slider,0,1,\n1,y,g,bone,0,4,\n")
    with pytest.raises(UserError, match="is not that of data.root"):
        read_table(experiment(with_photos, photos=True), FINGERPRINT)


def test_photos_none_of_which_has_a_label_are_refused(with_photos):
    write_data(with_photos / "people", {"somebody": [0.5, 0.5]})
    with pytest.raises(UserError, match="no picture in .* has a label in"):
        read_table(experiment(with_photos, photos=True), FINGERPRINT)


# --- digests --------------------------------------------------------------------------------------


def test_digests_name_what_changed(with_photos):
    config = experiment(with_photos, photos=True)
    before = digests_of_labels(config)

    def changed() -> set[str]:
        return {name for name, digest in digests_of_labels(config).items() if digest != before[name]}

    assert changed() == set()
    write_data(with_photos / "game", {f"n{i}": [i / 10, 0.6] for i in range(4)})
    assert changed() == {"labels.json of data.root"}
    write_data(with_photos / "people", {"p7": [0.7, 0.1]}, "0,a,g,slider,0,1,\n1,b,g,bone,0,5,\n")
    assert changed() == {"labels.json of data.root", "labels.json of data.photos", "the parameter table of data.photos"}


def test_digests_do_not_depend_on_where_data_lies(with_photos):
    before = digests_of_labels(experiment(with_photos))
    (with_photos / "game").rename(with_photos / "moved")
    assert digests_of_labels(experiment(with_photos, data={"root": str(with_photos / "moved")})) == before


def test_the_digest_of_the_faces_sees_names_and_splits(finished):
    table = read_table(experiment(finished), FINGERPRINT)
    assert table.digest == table._replace(labels=table.labels + 1).digest
    assert table.digest != table._replace(names=["x", *table.names[1:]]).digest
    assert table.digest != table._replace(split=np.array(["test"] * 4)).digest
