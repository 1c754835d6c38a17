"""What people's folders do to alignment and prediction: nothing of theirs is lost, and one bad file stops nothing.

Pictures are a render of the embedded game on a larger canvas; whatever else is wrong with them is made here.
"""

import csv
import json
import os
import shutil
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import predict
from datasets.alignment_record import Record
from datasets.names import is_listable
from games.game import default_game
from tests.helpers import SMOKE, error_of, plain_picture, run_here, temporaries
from utils.errors import UserError
from utils.files import lock_folder, write_json
from utils.identity import refuse_to_overwrite
from utils.pictures import UnreadablePicture, printable, read_rgb, unique_stems, write_picture
from utils.results import Plan, choose_stems, describe_photos, files_of

#: The files of a result called {}, of a run that learned the embedded game.
RESULT = ("{}.json", "{}.png", "{}_character.png", "{}.mhm", "human.{}.json")

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems refuse such names")


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Three characters, each on a larger canvas."""
    game = default_game()
    found = []
    for index in range(3):
        character = game.character(2, index)
        pictures, _ = game.renderer(128).render(character.parameters[None], [(character.studio,)])
        found.append(np.pad(pictures[0, 0], ((20, 30), (15, 40), (0, 0)), mode="edge"))
    return found


@pytest.fixture
def here(tmp_path, photos) -> Path:
    """A folder with A/me.png and B/me.png, photos of two people."""
    for folder, photo in zip("AB", photos, strict=False):
        write_picture(tmp_path / folder / "me.png", photo)
    return tmp_path


def align(cwd: Path, source: object, *options: object, output: str = "out", check: bool = True) -> str:
    """What face_alignment.py says; its refusal without `check`."""
    command = ("face_alignment.py", "--input", source, "--output", output, "--size", 64, "--workers", 1, *options)
    done = run_here(*command, cwd=cwd, check=check)
    return done.stdout if check else error_of(done)


def refusal_before_any_work(cwd: Path, source: object, monkeypatch: pytest.MonkeyPatch, *options: object) -> str:
    """The refusal of face_alignment.py, which must come before a detector is made; no file may change."""
    with monkeypatch.context() as patch:
        patch.setattr("models.mtcnn.FaceDetector", lambda: pytest.fail("it was computed"))
        before = contents(cwd)
        told = align(cwd, source, *options, check=False)
    assert contents(cwd) == before
    return told


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder but for locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def statuses(output: Path) -> dict[str, str]:
    with open(output / "alignment.csv", encoding="utf-8", newline="") as table:
        return {row["file"]: row["status"] for row in csv.DictReader(table)}


def faces(output: Path) -> list[str]:
    """Aligned faces that training would read."""
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*.png"))


# --- 1: an input is never written over ------------------------------------------------------------


def beside(here: Path) -> Path:
    return here / "A"


def by_a_way_around(here: Path) -> Path:
    return here / "B" / ".." / "A"


def by_a_linked_folder(here: Path) -> Path:
    (here / "link").symlink_to(here / "A", target_is_directory=True)
    return here / "link"


def by_a_link(here: Path) -> Path:
    (here / "C").mkdir()
    (here / "C" / "me.png").symlink_to(here / "A" / "me.png")
    return here / "C"


def by_a_hard_link(here: Path) -> Path:
    (here / "C").mkdir()
    os.link(here / "A" / "me.png", here / "C" / "me.png")
    return here / "C"


WAYS = [beside, by_a_way_around, by_a_linked_folder, by_a_link, by_a_hard_link]


@pytest.mark.parametrize("way", WAYS)
def test_alignment_never_writes_over_its_input(way, here, monkeypatch):
    output = way(here)
    told = refusal_before_any_work(here, here / "A" / "me.png", monkeypatch, "--output", output)
    assert f"{output}/me.png would be written over the input {here}/A/me.png" in told


@pytest.mark.parametrize("way", WAYS)
def test_prediction_never_writes_over_a_photo(way, here):
    output, before = way(here), contents(here)
    for more in ((), ("--aligned",)):
        told = error_of(run_here("predict.py", "A/me.png", *more, "--output", output, cwd=here, check=False))
        assert f"{output}/me.png would be written over the input A/me.png" in told
        assert contents(here) == before


@pytest.mark.parametrize("name", ["me.json", "me.png", "me.mhm", "human.me.json", "unreadable.txt"])
def test_no_file_of_a_result_is_written_over_a_photo(name, here):
    shutil.copy(here / "A" / "me.png", here / name)
    command = ("predict.py", "A/me.png", name, "--output", ".")
    assert f"over the input {name}" in error_of(run_here(*command, cwd=here, check=False))


def test_an_average_is_not_written_over_a_photo(here):
    (here / "A" / "me.png").rename(here / "A" / "average.png")
    command = ("predict.py", "A/average.png", "B/me.png", "--average", "--output", "A")
    assert "over the input A/average.png" in error_of(run_here(*command, cwd=here, check=False))


def test_the_files_of_a_result_are_those_that_games_write(tmp_path):
    game = default_game()
    written = game.character_file(game.average(), tmp_path / "me")
    assert written
    assert set(written) <= set(files_of(tmp_path / "me"))


@pytest.mark.parametrize("name", ["ME.png", "Me.PNG", unicodedata.normalize("NFD", "mé.png")])
def test_names_that_some_file_systems_do_not_tell_apart_are_one(name, tmp_path):
    read = tmp_path / unicodedata.normalize("NFC", "mé.png" if "e\u0301" in name else "me.png")
    with pytest.raises(UserError, match="would be written over"):
        refuse_to_overwrite([read], [tmp_path / name])
    refuse_to_overwrite([read], [tmp_path / "you.png"])


def test_a_lock_that_is_a_photo_is_not_emptied(here, monkeypatch):
    (here / "out").mkdir()
    os.link(here / "A" / "me.png", here / "out" / ".lock")
    assert "over the input" in refusal_before_any_work(here, "A", monkeypatch)


# --- 2: only what this program wrote of this input is replaced ---------------------------------------


def test_a_second_input_does_not_replace_the_faces_of_the_first(here, monkeypatch):
    align(here, "A")
    told = refusal_before_any_work(here, "B", monkeypatch)
    assert f"B/me.png would take the row of {here}/A/me.png" in told
    assert "another --output" in told


def test_a_second_input_does_not_replace_a_face_by_that_of_another_format(here, monkeypatch):
    align(here, "A")
    (here / "B" / "me.png").rename(here / "B" / "me.jpg")
    told = refusal_before_any_work(here, "B", monkeypatch)
    assert f"out/me.png is the aligned face of {here}/A/me.png; that of B/me.jpg would replace it" in told


def test_a_single_picture_does_not_replace_the_face_of_its_neighbour(here, monkeypatch):
    align(here, "A/me.png")
    (here / "B" / "me.png").rename(here / "A" / "me.jpg")
    assert "is the aligned face of" in refusal_before_any_work(here, "A/me.jpg", monkeypatch)


def test_a_second_input_with_other_names_goes_beside_the_first(here):
    align(here, "A")
    (here / "B" / "me.png").rename(here / "B" / "you.png")
    assert "1 ok" in align(here, "B")
    assert statuses(here / "out") == {"me.png": "ok", "you.png": "ok"}
    assert "1 were done before" in align(here, "A")


def test_archives_whose_pictures_agree_in_size_and_time_are_two(here):
    """As pictures without compression in reproducible archives do."""
    for folder in "AB":
        Image.open(here / folder / "me.png").save(here / folder / "me.bmp")
        (here / folder / "me.png").unlink()
        os.utime(here / folder / "me.bmp", (0, 0))
    align(here, "A")
    assert "would take the row of" in align(here, "B", check=False)


def test_a_strangers_picture_is_not_replaced(here, monkeypatch):
    plain_picture(here / "out" / "me.png")
    assert "out/me.png was not written by this program" in refusal_before_any_work(here, "A", monkeypatch)


def test_a_face_that_was_changed_by_hand_is_not_replaced(here, monkeypatch):
    align(here, "A")
    plain_picture(here / "out" / "me.png")
    assert "1 were done before" in align(here, "A")
    told = refusal_before_any_work(here, "A", monkeypatch, "--size", 32)
    assert "out/me.png was changed after it was written" in told


@pytest.mark.parametrize("name", ["alignment.csv", "unreadable.txt", ".lock"])
def test_a_strangers_table_listing_or_lock_is_not_replaced(name, here):
    (here / "out").mkdir()
    (here / "out" / name).write_text("name,email\nme,me@example.org\n")
    told = align(here, "A", check=False)
    assert f"out/{name} " in told
    assert (here / "out" / name).read_text() == "name,email\nme,me@example.org\n"
    assert faces(here / "out") == []


def test_a_strangers_lock_is_left_as_it_is(tmp_path):
    (tmp_path / ".lock").write_text("somebody's")
    with pytest.raises(UserError, match="was not written by this program"), lock_folder(tmp_path, "a test"):
        pass
    assert (tmp_path / ".lock").read_text() == "somebody's"


def killed_before_it_noted_anything(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Align A; what the record would note after the first face is never noted."""
    with monkeypatch.context() as patch:
        patch.setattr(Record, "add", _killed)
        with pytest.raises(_Killed):
            align(here, "A")
    assert faces(here / "out") == ["me.png"]
    assert statuses(here / "out") == {}


class _Killed(BaseException):
    """No handler of the program's sees it."""


def _killed(*_: object) -> None:
    raise _Killed


def test_what_a_killed_run_wrote_and_did_not_note_is_its_own(here, monkeypatch):
    killed_before_it_noted_anything(here, monkeypatch)
    assert "was not written by this program, or of another input" in align(here, "B", check=False)
    assert "1 ok" in align(here, "A")


def test_a_face_that_a_killed_run_left_goes_where_its_picture_has_none_any_more(here, monkeypatch):
    killed_before_it_noted_anything(here, monkeypatch)
    plain_picture(here / "A" / "me.png")
    assert "1 no_face" in align(here, "A")
    assert faces(here / "out") == []


def test_a_face_that_a_killed_run_left_under_another_name_is_removed(here, monkeypatch):
    killed_before_it_noted_anything(here, monkeypatch)
    shutil.copy(here / "B" / "me.png", here / "A" / "me.jpg")
    assert "2 ok" in align(here, "A")
    assert faces(here / "out") == ["me.jpg.png", "me.png.png"]


def test_faces_that_change_places_all_stay(here, photos):
    """One picture's face comes to lie where another's was, and the other's elsewhere."""
    write_picture(here / "C" / "a.jpg", photos[0])
    shutil.copytree(here / "C", here / "D")
    (here / "D" / "a.jpg").rename(here / "D" / "a.jpg.bmp")
    align(here, "D")
    assert faces(here / "out") == ["a.jpg.png"]
    for name, photo in zip(("a.jpg", "a.bmp"), photos[1:], strict=True):
        Image.fromarray(photo).save(here / "D" / name)
    assert "3 ok" in align(here, "D")
    assert faces(here / "out") == ["a.bmp.png", "a.jpg.bmp.png", "a.jpg.png"]


def test_a_folder_that_was_moved_is_the_same_input(here):
    align(here, "A")
    (here / "A").rename(here / "moved")
    assert "1 were done before" in align(here, "moved")
    plain_picture(here / "moved" / "me.png")
    assert "1 no_face" in align(here, "moved")


def test_a_copy_of_an_input_is_the_same_whatever_its_times(here):
    align(here, "A")
    shutil.copytree(here / "A", here / "copy", copy_function=shutil.copyfile)
    assert "1 were done before" in align(here, "copy")


def test_the_notes_of_an_older_version_are_understood(here, monkeypatch):
    align(here, "A")
    status = os.stat(here / "A" / "me.png")
    settings = {"size": 64, "faces": "one"}
    old = {"settings": settings, "inputs": {"me.png": [status.st_size, status.st_mtime_ns]}}
    write_json(here / "out" / ".alignment.json", old)
    assert "1 were done before" in align(here, "A")

    write_json(here / "out" / ".alignment.json", old)
    assert "of an earlier input" in refusal_before_any_work(here, "B", monkeypatch)
    shutil.copy(here / "B" / "me.png", here / "A" / "me.jpg")
    align(here, "A")
    assert faces(here / "out") == ["me.jpg.png", "me.png.png"]


def test_rows_whose_notes_are_lost_are_kept(here):
    align(here, "A")
    (here / "out" / ".alignment.json").unlink()
    (here / "B" / "me.png").rename(here / "B" / "you.png")
    align(here, "B")
    assert statuses(here / "out") == {"me.png": "ok", "you.png": "ok"}


# --- 2: results of prediction --------------------------------------------------------------------------


def written(output: Path, stem: Path, photos: list[Path]) -> str:
    """Write the files of a result; its name."""
    write_json(stem.with_name(f"{stem.name}.json"), describe_photos(photos) | {"parameters": {}})
    plain_picture(stem.with_name(f"{stem.name}.png"))
    return stem.relative_to(output).as_posix()


@pytest.fixture
def named(here) -> Callable[..., list[str]]:
    """Writes results of photos, in one call, to out; their names."""

    def name_and_write(*plans: Plan) -> list[str]:
        stems = choose_stems(here / "out", plans)
        return [written(here / "out", stem, plan.photos) for stem, plan in zip(stems, plans, strict=True)]

    return name_and_write


def of(path: Path) -> Plan:
    return Plan("me", [path])


def test_a_result_replaces_that_of_the_same_photo_alone(here, named):
    a, b = of(here / "A" / "me.png"), of(here / "B" / "me.png")
    assert named(a) == ["me"]
    assert named(b) == ["me_2"]
    assert named(a) == ["me"]
    assert named(b, a) == ["me_2", "me"]
    assert named(of(here / "B" / ".." / "A" / "me.png")) == ["me"]


def test_two_photos_of_one_name_are_numbered_in_one_call(here, named):
    assert named(of(here / "A" / "me.png"), of(here / "B" / "me.png")) == ["me", "me_2"]


def test_an_edited_and_a_moved_photo_are_the_same(here, named):
    named(of(here / "A" / "me.png"))
    plain_picture(here / "A" / "me.png")
    assert named(of(here / "A" / "me.png")) == ["me"]
    (here / "A").rename(here / "moved")
    assert named(of(here / "moved" / "me.png")) == ["me"]


def test_one_relative_path_in_two_folders_is_two_photos(here, named, monkeypatch):
    for folder, name in (("A", "me"), ("B", "me_2")):
        monkeypatch.chdir(here / folder)
        assert named(of(Path("me.png"))) == [name]


@pytest.mark.parametrize("name", ["me.json", "me.png", "me.mhm", "human.me.json"])
def test_no_file_of_a_stranger_is_a_result(name, here, named):
    (here / "out").mkdir()
    (here / "out" / name).write_text('{"parameters": {}}')
    assert named(of(here / "A" / "me.png")) == ["me_2"]


def test_a_games_file_and_another_photos_result_never_share_a_name(here, named):
    other = Plan("human.me", [here / "B" / "me.png"])
    assert named(of(here / "A" / "me.png"), other) == ["me", "human.me_2"]
    shutil.rmtree(here / "out")
    assert named(other) == ["human.me"]
    written(here / "out", here / "out" / "me", [here / "A" / "me.png"])
    assert named(of(here / "A" / "me.png")) == ["me_2"]


def test_a_photo_called_as_a_card_or_a_character_keeps_off_those_of_another(here, named):
    a, b, c = here / "A" / "me.png", here / "B" / "me.png", here / "c.png"
    plain_picture(c)
    stems = named(Plan("me", [a]), Plan("me_card", [b]), Plan("me_character", [c]))
    assert stems == ["me", "me_card_2", "me_character_2"]


def test_an_average_of_other_photos_is_another(here, named):
    a, b, c = here / "A" / "me.png", here / "B" / "me.png", here / "c.png"
    plain_picture(c)
    assert named(Plan("average", [a])) == ["average"]
    assert named(Plan("average", [b, a])) == ["average"]  # one more of the same person
    assert named(Plan("average", [a, c])) == ["average_2"]
    assert named(Plan("average", [c])) == ["average_3"]


def test_predicting_a_second_photo_of_one_name_keeps_the_result_of_the_first(smoke, here):
    source = sorted((smoke / "data" / "smoke" / "images").iterdir())
    for folder, path in zip("AB", source, strict=False):
        shutil.copy(path, here / folder / "me.png")
    command = ("--aligned", "--run", smoke / "runs" / "smoke", "--output", "out")
    run_here("predict.py", "A/me.png", *command, cwd=here)
    first = (here / "out" / "me.json").read_bytes()
    told = run_here("predict.py", "B/me.png", *command, cwd=here).stderr
    assert "out/me is taken by another photo or another program; the results of B/me.png are called me_2" in told
    run_here("predict.py", "A/me.png", "./A/me.png", *command, cwd=here)
    assert (here / "out" / "me.json").read_bytes() == first
    written = [file.format(name) for name in ("me", "me_2") for file in RESULT]
    assert sorted(contents(here / "out")) == sorted(written)


def test_a_strangers_listing_is_not_replaced_by_prediction(here):
    (here / "unreadable.txt").write_text("my diary\n")
    told = error_of(run_here("predict.py", "A/me.png", "--output", ".", cwd=here, check=False))
    assert "unreadable.txt was not written by this program" in told


# --- 4: what alignment.csv no longer calls ok is not there ------------------------------------------------


def test_the_face_of_a_picture_that_has_none_any_more_is_removed(here):
    align(here, "A")
    plain_picture(here / "A" / "me.png")
    align(here, "A")
    assert statuses(here / "out") == {"me.png": "no_face"}
    assert faces(here / "out") == []


def test_the_face_of_a_picture_that_cannot_be_read_any_more_is_removed(here):
    align(here, "A")
    (here / "A" / "me.png").write_bytes(b"torn")
    align(here, "A", "--max-unreadable", 1)
    assert statuses(here / "out") == {"me.png": "unreadable"}
    assert faces(here / "out") == []


def test_a_face_that_other_settings_do_not_choose_is_removed(here, photos):
    write_picture(here / "A" / "me.png", np.concatenate([photos[0], photos[0]], 1))
    align(here, "A", "--faces", "largest")
    assert faces(here / "out") == ["me.png"]
    align(here, "A")
    assert statuses(here / "out") == {"me.png": "several_faces"}
    assert faces(here / "out") == []


def test_a_picture_beside_one_of_its_name_leaves_no_face_twice(here, photos):
    align(here, "A")
    Image.fromarray(photos[1]).save(here / "A" / "me.jpg", quality=95)
    align(here, "A")
    assert faces(here / "out") == ["me.jpg.png", "me.png.png"]
    (here / "A" / "me.jpg").unlink()
    align(here, "A")
    assert faces(here / "out") == ["me.jpg.png", "me.png"]  # that of the picture that is gone stays
    assert statuses(here / "out") == {"me.jpg": "ok", "me.png": "ok"}


def test_a_picture_in_another_format_takes_the_place_of_the_one_that_is_gone(here):
    align(here, "A")
    Image.open(here / "A" / "me.png").save(here / "A" / "me.bmp")
    (here / "A" / "me.png").unlink()
    align(here, "A")
    assert statuses(here / "out") == {"me.bmp": "ok"}
    assert faces(here / "out") == ["me.png"]


def test_rows_of_inputs_that_are_gone_stay_with_other_settings_too(here, photos):
    write_picture(here / "A" / "gone.png", photos[2])
    align(here, "A")
    (here / "A" / "gone.png").unlink()
    align(here, "A", "--size", 32)
    assert statuses(here / "out") == {"gone.png": "ok", "me.png": "ok"}
    assert faces(here / "out") == ["gone.png", "me.png"]


@pytest.mark.parametrize(
    "files, stems",
    [
        (["a.jpg", "A.jpg"], ["a.jpg", "A.jpg_2"]),
        (["a.jpg", "A.jpg", "A.jpg_2.png"], ["a.jpg", "A.jpg_3", "A.jpg_2"]),
        (["a.jpg", "a.png/b.png"], ["a.jpg", "a.png/b"]),
        (["Zo\u00eb.jpg", "Zoe\u0308.jpg"], ["Zo\u00eb.jpg", "Zoe\u0308.jpg_2"]),
    ],
)
def test_no_two_faces_are_one_file_on_any_file_system(files, stems):
    assert unique_stems(files) == stems


# --- 5: odd names -----------------------------------------------------------------------------------

ODD = [
    os.fsdecode(b"caf\xe9"),
    "\U0001f600" * 60,
    *(f"a{separator}b" for separator in ("\u2028", "\x85", "\x0c", "\r", "\n", "\t", "\x1b")),
    'quote " and, comma',
    "\u3000wide\u202fspaces",
]

#: Names that a folder can hold, and no folder can hold with ".jpg.png" or ".json" after them.
TOO_LONG = "n" * 251


@on_linux
def test_odd_names_are_aligned_and_one_that_is_too_long_is_left_out(tmp_path, photos):
    for name in ["good", *ODD, TOO_LONG]:
        write_picture(tmp_path / "photos" / f"{name}.png", photos[0])
    shutil.copy(tmp_path / "photos" / "good.png", tmp_path / "photos" / f"{TOO_LONG}.jpg")

    # All else is done, and the table is one that everybody can read.
    told = align(tmp_path, "photos", "--max-unreadable", 0.5)
    assert f"{len(ODD) + 1} ok" in told
    assert "2 unreadable" in told
    found = statuses(tmp_path / "out")
    assert found == {f"{printable(name)}.png": "ok" for name in ["good", *ODD]} | {
        f"{TOO_LONG}.png": "unreadable",
        f"{TOO_LONG}.jpg": "unreadable",
    }
    assert len((tmp_path / "out" / "alignment.csv").read_text(encoding="utf-8").splitlines()) == len(found) + 1
    assert "cannot hold a file of its name" in (tmp_path / "out" / "unreadable.txt").read_text(encoding="utf-8")
    assert temporaries(tmp_path / "out") == []
    assert f"{len(ODD) + 1} were done before" in align(tmp_path, "photos", "--max-unreadable", 0.5)


@on_linux
def test_odd_names_are_predicted_and_one_that_is_too_long_is_left_out(smoke, tmp_path):
    face = smoke / "data" / "smoke" / "images" / "face_000000.png"
    names = [*ODD[:4], TOO_LONG]
    for name in names:
        shutil.copy(face, tmp_path / f"{name}.png")
    command = ("--aligned", "--run", smoke / "runs" / "smoke", "--output", "out")
    done = run_here("predict.py", *(f"{name}.png" for name in names), *command, cwd=tmp_path)
    assert "1 of 5 photos gave no prediction" in done.stderr
    for name in ODD[:4]:
        content = json.loads((tmp_path / "out" / f"{name}.json").read_text(encoding="utf-8"))
        assert content["photos"] == [str(tmp_path / f"{name}.png")]

    # The same photo again replaces its result, and nothing is left over.
    run_here("predict.py", f"{ODD[0]}.png", *command, cwd=tmp_path)
    assert len(contents(tmp_path / "out")) == 4 * len(RESULT)


@on_linux
def test_odd_names_are_extracted(copy):
    images = copy / "data" / "smoke" / "images"
    for name in ODD:
        shutil.copy(images / "face_000000.png", images / f"{name}.png")
    told = run_here("extract_latentvec.py", *SMOKE, cwd=copy).stdout
    listable = sum(map(is_listable, ODD))
    assert f"{400 + listable} latents of images," in told
    lines = (copy / "runs" / "smoke" / "latents" / "images.txt").read_bytes().rstrip(b"\n").split(b"\n")
    assert len(lines) == 400 + listable


# --- 6: only the formats that are named are opened -------------------------------------------------------


def test_postscript_is_not_handed_to_ghostscript(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nnosuchoperator showpage\n%%EOF\n"
    (tmp_path / "a.jpg").write_bytes(header)
    with pytest.raises(UnreadablePicture, match="cannot identify"):
        read_rgb(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PPM", "ICO"])
def test_other_formats_are_no_pictures_whatever_their_name(kind, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png", kind)
    with pytest.raises(UnreadablePicture, match="cannot identify"):
        read_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_picture_is_opened_by_its_content(kind, tmp_path):
    Image.new("RGB", (32, 24), (200, 100, 50)).save(tmp_path / "a", kind)
    shutil.copy(tmp_path / "a", tmp_path / "a.jpg")
    assert read_rgb(tmp_path / "a.jpg").shape == (24, 32, 3)


def test_a_folder_with_postscript_in_it_is_aligned(here):
    (here / "A" / "b.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    assert "1 ok" in align(here, "A", "--max-unreadable", 0.5)


# --- 7: pixels count, not metadata -------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


BAD_CRC = struct.pack(">I", 4) + b"tEXta\0bc" + bytes(4)

METADATA = {
    "EXIF without a header": chunk(b"eXIf", b"\x00\x08\x00\x02\x01\x12\x00\x03"),
    "3 MB of compressed text": chunk(b"zTXt", b"Raw profile\0\0" + zlib.compress(bytes(3_000_000))),
    "4 MB of XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" * 1_000_000)),
    "a wrong CRC in a text": BAD_CRC,
    "text that does not decompress": chunk(b"zTXt", b"a\0\0broken"),
    "2 MB of ICC profile": chunk(b"iCCP", b"big\0\0" + zlib.compress(bytes(2_000_000))),
    "an ICC profile that does not decompress": chunk(b"iCCP", b"bad\0\0broken"),
    "a resolution that is too short": chunk(b"pHYs", b"\0\0"),
}

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def png_with(metadata: bytes, path: Path) -> bytes:
    """A PNG file of `PIXELS` with more chunks before its pixels."""
    write_picture(path, PIXELS)
    data = path.read_bytes()
    at = data.index(b"IDAT") - 4
    return data[:at] + metadata + data[at:]


@pytest.mark.parametrize("what", METADATA)
def test_a_png_is_read_whatever_its_metadata(what, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_with(METADATA[what], path))
    np.testing.assert_array_equal(read_rgb(path), PIXELS)


@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
@pytest.mark.parametrize("exif", [b"Exif\0\0\x00\x08\x00\x02", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_turns_no_picture_and_stops_none(kind, exif, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "plain", kind)
    Image.fromarray(PIXELS).save(tmp_path / "a", kind, exif=exif)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a"), read_rgb(tmp_path / "plain"))


def test_broken_pixels_are_not_excused_by_broken_metadata(tmp_path):
    path = tmp_path / "a.png"
    data = png_with(BAD_CRC, path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadablePicture):
        read_rgb(path)


def test_a_bomb_is_refused_whatever_its_metadata(tmp_path):
    path = tmp_path / "a.png"
    data = png_with(BAD_CRC, path)
    header = chunk(b"IHDR", struct.pack(">II", 60_000, 60_000) + data[24:29])
    path.write_bytes(data[:8] + header + data[33:])
    with pytest.raises(UnreadablePicture, match="million pixels"):
        read_rgb(path)


# --- what a path is ------------------------------------------------------------------------------------


def test_a_mistyped_photo_and_a_folder_are_said_to_be_that(here, monkeypatch):
    monkeypatch.setattr(predict.Predictor, "load", lambda _: pytest.fail("networks were loaded"))
    (here / "dangling.png").symlink_to(here / "nowhere.png")
    for argument, told in (
        ("A/mee.png", "there is no file A/mee.png; expected a photo"),
        ("dangling.png", "there is no file dangling.png"),
        ("A", "A is a folder; expected photos"),
    ):
        for more in ((), ("--average",), ("--aligned",)):
            assert told in error_of(run_here("predict.py", "B/me.png", argument, *more, cwd=here, check=False))


def test_an_output_folder_that_is_the_input_is_no_empty_folder(here):
    assert "--input and --output are the same folder, A" in align(here, "A", check=False, output="B/../A")


def test_pictures_that_all_lie_in_the_output_folder_are_said_to_be_there(here):
    align(here, "A", output="A/aligned")
    (here / "A" / "me.png").unlink()
    told = align(here, "A", output="A/aligned", check=False)
    assert "all 1 pictures in A lie in the output folder, A/aligned" in told


def test_an_output_folder_above_the_input_is_written_to(here):
    assert "1 ok" in align(here, "A", output=".")
    assert (here / "me.png").exists()
    assert "1 were done before" in align(here, "A", output=".")


def test_a_missing_file_is_not_called_the_file(tmp_path):
    with pytest.raises(UnreadablePicture, match="^No such file or directory$"):
        read_rgb(tmp_path / "a.png")
