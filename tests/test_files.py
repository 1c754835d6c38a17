"""Files that are whole or absent, folders that one run holds at a time, arrays that grow, workers in threads."""

import json
import math
import threading
import time

import numpy as np
import pytest

from tests.helpers import temporaries
from utils.arrays import GrowingArray
from utils.errors import UserError
from utils.files import archive, atomic_write, lock_folder, read_json, sweep_temporaries, write_json, write_text
from utils.workers import map_in_threads, map_unordered

# --- whole or absent ------------------------------------------------------------------------------


def test_whoever_reads_while_a_file_is_written_sees_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        assert len(temporaries(tmp_path)) == 1
    assert path.read_bytes() == b"new"
    assert temporaries(tmp_path) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_this_programs_temporaries_are_swept_away(tmp_path):
    others = [tmp_path / name for name in (".hidden.tmp", "a.f2p-tmp", "b.part")]
    for path in others:
        path.write_bytes(b"somebody's")
    (tmp_path / ".best.pt.0123.f2p-tmp").write_bytes(b"ours, left by a killed process")
    sweep_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_name_that_is_nearly_too_long_can_be_written(tmp_path):
    path = tmp_path / ("ü" * 120 + ".png")
    write_text(path, "content")
    assert path.read_text() == "content"


def test_nan_becomes_null_and_infinity_is_refused(tmp_path):
    write_json(tmp_path / "a.json", {"r2": math.nan, "all": [1.0, math.nan]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"r2": None, "all": [1.0, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"loss": math.inf})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_as_good_as_none(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None


def test_missing_json_is_none(tmp_path):
    assert read_json(tmp_path / "a.json") is None


def test_an_archived_folder_keeps_what_it_holds_under_another_name(tmp_path):
    write_text(tmp_path / "tensorboard" / "events", "measured")
    archive(tmp_path / "tensorboard")
    kept = list(tmp_path.glob("tensorboard.*.old"))
    assert len(kept) == 1
    assert (kept[0] / "events").read_text() == "measured"
    assert not (tmp_path / "tensorboard").exists()


def test_there_is_nothing_to_archive_in_a_folder_that_is_not_there(tmp_path):
    archive(tmp_path / "tensorboard")
    assert list(tmp_path.iterdir()) == []


# --- locks ----------------------------------------------------------------------------------------


def test_a_lock_says_who_holds_it_and_goes_with_its_holder(tmp_path):
    folder = tmp_path / "run"
    with lock_folder(folder, "a test"):
        assert (folder / ".lock").read_text().startswith("a test (process ")
    assert (folder / ".lock").read_text() == ""
    with lock_folder(folder, "another test"):
        pass


def test_a_dead_processs_line_in_the_lock_file_is_no_lock(tmp_path):
    (tmp_path / ".lock").write_text("somebody (process 1 on nowhere, since long ago)\n")
    with lock_folder(tmp_path, "a test"):
        assert "somebody" not in (tmp_path / ".lock").read_text()


# --- growing arrays -------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).normal(size=(10, 3)).astype("f4")


def growing(folder, key: str = "key") -> GrowingArray:
    return GrowingArray(folder / "a.npy", (12, 3), dtype="f4", key=key)


def test_a_growing_array_goes_on_where_it_was(tmp_path):
    first = growing(tmp_path)
    first.append(ROWS[:4])
    first.commit({"n": 1})
    first.append(ROWS[4:6])
    del first  # killed: two rows were never noted

    again = growing(tmp_path)
    assert again.rows == 4
    assert again.progress == {"n": 1}
    again.append(ROWS[4:])
    again.finish()
    assert np.array_equal(np.load(tmp_path / "a.npy"), ROWS)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_growing_array_made_of_something_else_is_started_over(tmp_path):
    first = growing(tmp_path)
    first.append(ROWS[:4])
    first.commit({"n": 1})
    again = growing(tmp_path, "another key")
    assert again.rows == 0
    assert again.progress == {}


def test_a_growing_array_whose_note_is_damaged_is_started_over(tmp_path):
    first = growing(tmp_path)
    first.append(ROWS[:4])
    first.commit({"n": 1})
    (tmp_path / "a.npy.part.json").write_text("{")
    assert growing(tmp_path).rows == 0


def test_an_array_without_a_single_row_is_an_empty_one(tmp_path):
    """As where no picture of a source could be read."""
    growing(tmp_path).finish()
    found = np.load(tmp_path / "a.npy")
    assert found.shape == (0, 3)
    assert found.dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_an_array_without_a_single_row_is_closed_before_it_is_renamed(tmp_path, monkeypatch):
    """An open file cannot be renamed on Windows."""
    opened = []
    real = np.save

    def noted(file, array):
        opened.append(file)
        real(file, array)

    monkeypatch.setattr(np, "save", noted)
    growing(tmp_path).finish()
    assert [file.closed for file in opened] == [True]


# --- workers --------------------------------------------------------------------------------------


def test_threads_give_results_in_order_and_take_few_tasks_ahead():
    taken = []

    def tasks():
        for i in range(50):
            taken.append(i)
            yield i

    def work(i: int) -> int:
        time.sleep(0.001 * (i % 3))
        return i * i

    results = map_in_threads(work, tasks(), workers=2)
    assert [next(results) for _ in range(10)] == [i * i for i in range(10)]
    assert len(taken) <= 10 + 2 * 2 + 1
    assert list(results) == [i * i for i in range(10, 50)]


def test_an_error_in_a_thread_reaches_whoever_waits():
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda i: 1 // i, [1, 0, 1], workers=2))


def test_every_thread_is_prepared_once():
    prepared = []
    list(map_in_threads(str, range(20), workers=3, initializer=lambda: prepared.append(threading.get_ident())))
    assert 1 <= len(prepared) <= 3
    assert len(set(prepared)) == len(prepared)


def test_without_workers_this_process_works():
    prepared = []
    results = map_unordered(str, [1, 2, 3], workers=0, initializer=prepared.append, arguments=("ready",))
    assert list(results) == ["1", "2", "3"]
    assert prepared == ["ready"]


def test_a_folder_in_use_is_refused_with_the_name_of_its_holder(tmp_path, monkeypatch):
    """The lock is one per process, so another holder is what the operating system says here."""
    (tmp_path / ".lock").write_text("vae_trainer.py (process 7 on host, since today)\n")

    def locked(_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("utils.files._lock", locked)
    with pytest.raises(UserError, match=r"is in use by vae_trainer.py \(process 7 on host"), lock_folder(tmp_path, "x"):
        pass
    assert "vae_trainer.py" in (tmp_path / ".lock").read_text()


def test_a_file_system_without_locks_is_said_and_work_goes_on(tmp_path, monkeypatch, capsys):
    def unknown(_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("utils.files._lock", unknown)
    with lock_folder(tmp_path, "a test"):
        pass
    assert "knows no locks" in capsys.readouterr().err
