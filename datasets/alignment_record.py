"""The record of aligned faces: what face_alignment.py made of which picture.

    OUTPUT/alignment.csv      a row per input picture, for people and programs
    OUTPUT/.alignment.json    for the next run: the input folder and the picture of each row, and the file of its face

Only what stands in the record is ever replaced or removed, and only by what is made of the same input.
"""

import csv
import io
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import UserError
from utils.files import read_json, write_text
from utils.identity import Mark, has_content, is_unchanged, mark_of
from utils.pictures import printable, unique_stems

STATUSES = ("ok", "no_face", "several_faces", "unreadable")
_COLUMNS = ["file", "status", "score", *(f"{axis}{i}" for i in range(5) for axis in "xy")]


class Job(NamedTuple):
    """What is to be done for one picture."""

    file: str  #: path relative to the input folder, with "/"
    source: Path
    target: Path


class Row(NamedTuple):
    """A line of alignment.csv."""

    file: str
    status: str  #: one of `STATUSES`
    score: float | None = None
    points: tuple[float, ...] = ()  #: x0, y0, … x4, y4

    def cells(self) -> list[str]:
        """The text of the columns of alignment.csv; what no line can hold of a file's name is escaped."""
        numbers = [f"{v:.3f}" for v in self.points] or [""] * 10
        score = "" if self.score is None else f"{self.score:.4f}"
        return [printable(self.file), self.status, score, *numbers]


class Outcome(NamedTuple):
    """What was made of one picture."""

    row: Row
    reason: str  #: why it is unreadable, or ""
    picture: Mark  #: of the picture, before it was read
    face: Mark | None  #: of the aligned face


class Made(NamedTuple):
    """What a row was made of."""

    folder: str  #: input folder, resolved; "" where nobody knows
    picture: Mark
    side: int  #: of the aligned face, pixels
    faces: str  #: "one" or "largest"
    target: str  #: the aligned face, relative to the output, with "/"; "" without one
    face: Mark | None


class Record:
    """What an output folder holds, for a run with one input.

    Args:
        output: folder of the aligned faces; it need not exist.
        folder: the input folder.
        side: side of the aligned faces, in pixels.
        faces: which of several faces is meant, "one" or "largest".

    Raises:
        UserError: alignment.csv is there, and somebody else's.
    """

    def __init__(self, output: Path, folder: Path, *, side: int, faces: str) -> None:
        self.output, self.folder, self.side, self.faces = output, os.path.realpath(folder), side, faces
        self.table, self.state = files_of(output)
        self.rows: dict[str, Row] = {}  #: by file
        self._made: dict[str, Made] = {}  #: by file
        self._owner: dict[str, str] = {}  #: aligned face → its file
        self._begun: dict[str, str] = {}  #: aligned face that a run was to write → that run's input folder
        self._pending: set[str] = set()  #: aligned faces that this run may still write
        self._is_here: dict[str, bool] = {"": False}  #: input folder → whether it is this run's
        self._load()

    # --- what was done ------------------------------------------------------------------------

    def adopt(self, jobs: Iterable[Job]) -> None:
        """Take the rows of an input folder that is gone for this one's, where the pictures are those that are here.

        So a folder may be moved. Size and time of the last change tell, or else the content.
        """
        for job in jobs:
            made = self._made.get(job.file)
            if made is None or self._is_of_this_folder(made) or os.path.isdir(made.folder):
                continue
            if is_unchanged(job.source, made.picture):
                self._made[job.file] = made._replace(folder=self.folder)

    def is_done(self, job: Job) -> bool:
        """Whether a picture was aligned before, with these settings, and has not changed since.

        A picture that could not be read may be readable now: a missing permission changes neither size nor time.
        """
        row, made = self.rows.get(job.file), self._made.get(job.file)
        if row is None or made is None or row.status == "unreadable" or made.side != self.side:
            return False
        # Which face is meant matters only where there were several, or none was asked for.
        if row.status != "no_face" and made.faces != self.faces:
            return False
        if row.status == "ok" and not (made.target == self._name(job) and job.target.exists()):
            return False
        return self._is_same_picture(made, job)

    def add(self, job: Job, outcome: Outcome) -> None:
        """Note what was made of a picture, and remove the face that an earlier run made of it elsewhere."""
        name, before, is_ok = self._name(job), self._made.get(job.file), outcome.row.status == "ok"
        self._pending.discard(name)
        stale = {before.target} if before is not None else set()
        if is_ok:
            self._take(name, job.file)
        else:
            stale.add(name)
        for face in stale - {name if is_ok else "", ""}:
            self._remove(face, job.file)

        self.rows[job.file] = outcome.row
        target = name if is_ok else ""
        self._made[job.file] = Made(self.folder, outcome.picture, self.side, self.faces, target, outcome.face)
        self._begun.pop(name, None)

    def _take(self, face: str, file: str) -> None:
        """Let a face be the one of a file; where it was that of a picture that is gone, so is that row."""
        other = self._owner.get(face)
        if other is not None and other != file:
            self._made[other] = self._made[other]._replace(target="", face=None)
            self.rows.pop(other, None)
        self._owner[face] = file

    def _remove(self, face: str, file: str) -> None:
        """Remove a face that is no longer one of a file, unless it is another's by now or was changed."""
        owner = self._owner.get(face)
        if owner not in (None, file):
            return
        self._owner.pop(face, None)
        if face in self._pending:
            return
        path, mark = self.output / face, self._made[file].face if owner == file else None
        is_ours = self._begun.get(face) == self.folder or (mark is not None and is_unchanged(path, mark))
        if is_ours and os.path.lexists(path):
            path.unlink()

    # --- what may not be done -----------------------------------------------------------------

    def refuse_conflicts(self, todo: Iterable[Job], jobs: Iterable[Job]) -> None:
        """See that no job replaces a row or a file but those that were made of the same input.

        Args:
            todo: jobs that will be done.
            jobs: all of this run.

        Raises:
            UserError: one would; the message names the file and the input that it was made of.
        """
        current = {job.file for job in jobs}
        for job in todo:
            made = self._made.get(job.file)
            if made is not None and not self._is_of_this_folder(made) and not self._is_same_picture(made, job):
                raise UserError(
                    f"{printable(str(job.source))} would take the row of {self._told(job.file)} in {self.table}. "
                    "Choose another --output, one per input folder"
                )
            faces = {self._name(job)} | ({made.target} if made is not None and made.target else set())
            for face in faces:
                if os.path.lexists(self.output / face):
                    self._refuse_face(face, job, current)

    def _refuse_face(self, face: str, job: Job, current: set[str]) -> None:
        """Raise UserError unless a face that is there may be replaced or removed by what a job makes."""
        if self._begun.get(face) == self.folder:
            return
        owner, shown = self._owner.get(face), printable(str(self.output / face))
        if owner is None:
            raise UserError(
                f"{shown} was not written by this program, or of another input; the aligned face of "
                f"{printable(str(job.source))} would replace it. Choose another --output, or move that file away"
            )

        made = self._made[owner]
        is_gone = owner not in current and not os.path.lexists(os.path.join(made.folder, owner))
        if owner != job.file and not (self._is_of_this_folder(made) and (owner in current or is_gone)):
            raise UserError(
                f"{shown} is the aligned face of {self._told(owner)}; that of {printable(str(job.source))} would "
                "replace it. Choose another --output, one per input folder"
            )
        if made.face is None or not is_unchanged(self.output / face, made.face):
            raise UserError(
                f"{shown} was changed after it was written; a new face of {printable(str(job.source))} would replace "
                "it. Choose another --output, or move that file away"
            )

    def _told(self, file: str) -> str:
        folder = self._made[file].folder
        return printable(os.path.join(folder, file)) if folder else f"{printable(file)} of an earlier input"

    # --- whose a row is -----------------------------------------------------------------------

    def _is_of_this_folder(self, made: Made) -> bool:
        if made.folder not in self._is_here:
            is_same = made.folder == self.folder
            if not is_same and os.path.isdir(made.folder) and os.path.isdir(self.folder):
                is_same = os.path.samefile(made.folder, self.folder)
            self._is_here[made.folder] = is_same
        return self._is_here[made.folder]

    def _is_same_picture(self, made: Made, job: Job) -> bool:
        """Whether a row was made of a job's picture as it is now.

        Of a picture of another folder its size and time do not tell: those of two archives may agree in both.
        """
        if self._is_of_this_folder(made):
            return is_unchanged(job.source, made.picture)
        return has_content(job.source, made.picture)

    def _name(self, job: Job) -> str:
        """A job's aligned face, relative to the output."""
        return job.target.relative_to(self.output).as_posix()

    # --- files --------------------------------------------------------------------------------

    def begin(self, todo: Iterable[Job]) -> None:
        """Note, on disk, which faces will be written: were this run killed, they would be this program's all the same.

        What a killed run of this input wrote, did not note, and will not be written now is removed. To be called after
        `refuse_conflicts`.
        """
        self._pending = {self._name(job) for job in todo}
        for face, folder in list(self._begun.items()):
            if folder == self.folder and face not in self._pending:
                if face not in self._owner and os.path.lexists(self.output / face):
                    (self.output / face).unlink()
                del self._begun[face]
        self._begun |= dict.fromkeys(self._pending, self.folder)
        self.save()

    def finish(self) -> None:
        """Save; faces that were to be written and are not there are forgotten."""
        self._begun = {face: folder for face, folder in self._begun.items() if os.path.lexists(self.output / face)}
        self.save()

    def save(self) -> None:
        """Write both files; the table first, as a row without a note is made again."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(self.rows[file].cells() for file in sorted(self.rows))
        write_text(self.table, text.getvalue())
        state = {"format": 2, "made": self._made, "begun": self._begun}
        write_text(self.state, json.dumps(state, ensure_ascii=False) + "\n")

    def _load(self) -> None:
        self._refuse_other_table()
        known = read_json(self.state) if self.state.exists() else {"made": {}, "begun": {}}
        try:
            self._made, self._begun = _read_notes(known or {}, self.output)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            print(f"{self.state} is damaged; all pictures are looked at again.")
        if self.table.exists():
            self.rows = _read_rows(self.table, self._made)

        # Notes of an older version do not say which pictures have a face; the table does.
        for file, made in self._made.items():
            row = self.rows.get(file)
            if not made.folder and (row is None or row.status != "ok"):
                self._made[file] = made._replace(target="", face=None)
        self._owner = {made.target: file for file, made in self._made.items() if made.target}

    def _refuse_other_table(self) -> None:
        try:
            with open(self.table, "rb") as file:
                header = file.readline(1000).rstrip(b"\r\n").decode("utf-8", "replace")
        except FileNotFoundError:
            return
        if header != ",".join(_COLUMNS):
            raise UserError(
                f"{self.table} is not as this program writes it: its first line is {printable(header[:60])!r}. Move it "
                "away, or choose another --output"
            )


def files_of(output: Path) -> tuple[Path, Path]:
    """The two files of a record: the table, and the hidden notes."""
    return output / "alignment.csv", output / ".alignment.json"


def _read_rows(table: Path, made: dict[str, Made]) -> dict[str, Row]:
    """The rows of alignment.csv by file; those that are damaged are left out."""
    files, rows = {printable(file): file for file in made}, {}
    with open(table, newline="", encoding="utf-8", errors="surrogateescape") as lines, suppress(csv.Error):
        for line in csv.DictReader(lines):
            with suppress(ValueError, KeyError, TypeError):
                file = files.get(printable(line["file"]), line["file"])
                points = tuple(float(line[column]) for column in _COLUMNS[3:] if line[column])
                score = float(line["score"]) if line["score"] else None
                if line["status"] in STATUSES:
                    rows[file] = Row(file, line["status"], score, points)
    return rows


def _read_notes(known: dict[str, Any], output: Path) -> tuple[dict[str, Made], dict[str, str]]:
    """What rows were made of, by file, and which faces a run was to write, of the hidden notes."""
    if "made" not in known:
        return _made_in_format_1(known, output), {}
    made = {}
    for file, (folder, picture, side, faces, target, face) in known["made"].items():
        mark = None if face is None else Mark(*face)
        made[file] = Made(folder, Mark(*picture), side, faces, target, mark)
    return made, dict(known["begun"])


def _made_in_format_1(known: dict[str, Any], output: Path) -> dict[str, Made]:
    """The same of an older version, which noted a picture's size and time, and no folder and no face."""
    made, settings = {}, known["settings"]
    stems = unique_stems(list(known["inputs"]))
    for (file, picture), stem in zip(known["inputs"].items(), stems, strict=True):
        (size, changed), target = picture, f"{stem}.png"
        face = mark_of(output / target)
        made[file] = Made("", Mark(size, changed, ""), settings["size"], settings["faces"], target, face)
    return made
