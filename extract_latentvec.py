"""Between the stages: encode the data set's faces with the trained VAE.

    python extract_latentvec.py                                  the default experiment, configs/creator.toml
    python extract_latentvec.py --config configs/hs_face.toml
    torchrun --nproc_per_node 4 extract_latentvec.py --config FILE

Reads runs/NAME/vae/checkpoints/best.pt and the pictures in data.root. Writes, for `images`, where present
`aug_images`, and with data.photos `photos`, runs/NAME/latents/SET.npy (float32, a row [mu | logvar] a face),
SET.txt (the NAME of each row), SET.json (what it was made of) and meta.json. With latents.moved also SET_moved, the same
faces turned, scaled and shifted a little; with latents.mirrored SET_mirrored, the same faces mirrored. Stopped and
started again it goes on; a set that is there already is kept; finished it says so.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from datasets.faces import creator_settings, data_sources, ensure_data
from datasets.latents import MIRRORED, MOVED
from datasets.pictures import Batch, Pictures, Source, source_fingerprint
from models.build import load_encoder
from models.vae import Encoder, fold_batch_norm
from utils.alignment import FRAME_SPREAD, random_frames
from utils.arrays import GrowingArray
from utils.config import Config, LatentsConfig
from utils.errors import Interrupted, UserError, run_script
from utils.files import atomic_write, hold, write_json, write_text
from utils.progress import progress
from utils.training import (Engine, StopRequest, announce, as_input, choose_dtype, decode_workers, move_pictures, parse_arguments, start_engine)
from utils.workers import map_in_threads

_COMMIT_EVERY = 4096

#: What is done to pictures (B, 3, S, S), whose indices (B,) are given too, before they are encoded.
Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def encode(encoder: Encoder, batch: Batch, change: Change | None = None) -> np.ndarray:
    """Latents [mu | logvar] of a batch, (B, 2·latent_dim) float32, of its pictures changed where a change is given."""
    with torch.inference_mode():
        pictures = as_input(batch.pictures)
        if change is not None:
            pictures = change(pictures, batch.indices)
        return torch.cat(encoder(pictures), 1).cpu().numpy()


def encode_batches(encoder: Encoder, pictures: Pictures, chunks: Sequence[Sequence[int]], device: torch.device,
                   change: Change | None = None) -> Iterator[tuple[np.ndarray, Batch]]:
    """Latents of each chunk of pictures, in order, with the batch that they were made of; see `encode`.

    A GPU is fed by decoding processes. On a CPU every core decodes and encodes chunks of its own in one thread:
    cores that share the work of one batch would wait for each other, and for the decoding, at every layer.
    """
    if device.type == "cuda":
        for batch in pictures.batches(chunks, device):
            yield encode(encoder, batch, change), batch
        return

    def work(chunk: Sequence[int]) -> tuple[np.ndarray, Batch]:
        batch = pictures.read(chunk)
        return encode(encoder, batch, change), batch

    yield from map_in_threads(work, chunks, torch.get_num_threads(), torch.set_num_threads, (1,))


def encode_source(encoder: Encoder, pictures: Pictures, share: range, growing: GrowingArray, engine: Engine, batch_size: int,
                  stop: StopRequest, title: str, change: Change | None = None) -> list[str]:
    """Append the latents of a share of pictures to an array, going on where it stands.

    Returns:
        The names of those that could not be read.
    """
    source = pictures.sources[0]
    done, bad = growing.note.get("done", 0), list(growing.note.get("unreadable", []))
    todo = range(share.start + done, share.stop)
    chunks = [range(i, min(i + batch_size, todo.stop)) for i in range(todo.start, todo.stop, batch_size)]
    committed = growing.rows
    with progress(total=len(share), initial=done, desc=f"encoding {title}", unit="face", disable=not engine.is_main) as bar:
        for chunk, (latents, batch) in zip(chunks, encode_batches(encoder, pictures, chunks, engine.device, change)):
            growing.append(latents)
            bad += [source.names[i] for i, _ in batch.unreadable]
            done += len(chunk)
            bar.update(len(chunk))
            if growing.rows - committed >= _COMMIT_EVERY or stop.requested:
                growing.commit({"done": done, "unreadable": bad})
                committed = growing.rows
            if stop.requested and done < len(share):
                raise Interrupted(f"Stopped after {done} of {len(share)} faces of {title}, which are kept. "
                                  "The same command goes on from there.")
    growing.commit({"done": done, "unreadable": bad})
    return bad


def extract(config: Config, engine: Engine, restart: bool) -> None:
    encoder, trained, encoder_fingerprint = load_encoder(config)
    dtype = choose_dtype(config.latents.precision, engine.device)
    encoder = fold_batch_norm(encoder).to(engine.device, dtype, memory_format=torch.channels_last)
    workers = decode_workers(config.data.workers)
    folder, meta = config.run_folder / "latents", config.run_folder / "latents" / "meta.json"
    parts = data_sources(config.data)
    wanted = {"fingerprint": encoder_fingerprint, "image_size": trained.data.image_size, "latent_dim": trained.vae.latent_dim,
              "precision": config.latents.precision, "creator": creator_settings(Path(config.data.root)),
              "moved": list(FRAME_SPREAD) if config.latents.moved else None, "mirrored": config.latents.mirrored or None,
              "sources": {part: source_fingerprint(source) for part, (source, _) in parts.items()}}
    plan = {part: sets_of(part, source, config.latents) for part, (source, _) in parts.items()}
    of_all = [wanted["fingerprint"], wanted["image_size"], wanted["precision"]]
    keys = {name: json.dumps([*of_all, wanted["moved"] if name.endswith(MOVED) else None, wanted["sources"][part]]) for part in plan for name in plan[part]}
    notes = {} if restart else {name: note for name, key in keys.items() if (note := _note_of_whole_set(folder, name, key))}
    todo = {part: {name: change for name, change in sets.items() if name not in notes} for part, sets in plan.items()}
    if not any(todo.values()) and wanted.items() <= _read(meta).items():
        print(f"{folder} is finished: it holds the latents of this encoder and these faces. Use --restart to encode them again.")
        return
    if engine.world > 1:
        dist.barrier()  # nobody changes anything before all have seen what is there
    if engine.is_main:
        announce(config, "extract_latentvec.py")
        meta.unlink(missing_ok=True)  # until all sets are whole, nothing may take these latents for finished
        for sets in todo.values():
            for name in sets:
                (folder / f"{name}.json").unlink(missing_ok=True)
    cache = Path(config.data.cache) if config.data.cache else None
    decoded = {part: Pictures([source], [split], trained.data.image_size, cache, workers) for part, (source, split) in parts.items() if todo[part]}
    stop = StopRequest()
    for part, pictures in decoded.items():
        source, listing = parts[part][0], folder / f"{part}.unreadable.txt"
        pictures.check_unreadable(config.data.max_unreadable, listing)
        share = _share(len(source.paths), engine)
        for name, change in todo[part].items():
            growing = GrowingArray(folder / f"{name}.rank{engine.rank}.npy", len(share), (2 * trained.vae.latent_dim,), "f4", json.dumps(
                [keys[name], share.start, share.stop]))
            bad = encode_source(encoder, pictures, share, growing, engine, config.latents.batch_size, stop, name.replace("_", " "), change)
            growing.finish()
            write_text(folder / f"{name}.rank{engine.rank}.txt", "\n".join(bad))
            pictures.check_unreadable(config.data.max_unreadable, listing)
            if engine.world > 1:
                dist.barrier()
            if engine.is_main:
                notes[name] = _join(folder, name, source, engine.world, keys[name])
    if engine.is_main:
        counts = {name: notes[name]["count"] for name in keys}
        write_json(meta, wanted | {"counts": counts, "unreadable": {name: notes[name]["unreadable"] for name in keys}})
        print(", ".join(f"{count} latents of {name}" for name, count in counts.items()) + f" in {folder}")
        print("next: python f2p_trainer.py")


def sets_of(part: str, source: Source, latents: LatentsConfig) -> dict[str, Change | None]:
    """The sets that are made of a part's pictures, and how the pictures are changed for each; None: not at all."""
    sets: dict[str, Change | None] = {part: None}
    if latents.moved:
        frames = torch.from_numpy(random_frames(source.names))
        sets[part + MOVED] = lambda pictures, indices: move_pictures(pictures, frames[indices].to(pictures.device))
    if latents.mirrored:
        sets[part + MIRRORED] = lambda pictures, indices: pictures.flip(3)
    return sets


def _share(count: int, engine: Engine) -> range:
    """This process's faces: a run of them, so that the shares in order are the whole."""
    return range(count * engine.rank // engine.world, count * (engine.rank + 1) // engine.world)


def _read(path: Path) -> dict:
    """A JSON file's object; {} where it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note_of_whole_set(folder: Path, name: str, key: str) -> dict | None:
    """SET.json of a set that is all there and was made of what `key` says; None where it is not."""
    note = _read(folder / f"{name}.json")
    whole = note.get("key") == key and all((folder / f"{name}.{suffix}").exists() for suffix in ("npy", "txt"))
    return note if whole and {"count", "unreadable"} <= note.keys() else None


def _join(folder: Path, name: str, source: Source, world: int, key: str) -> dict:
    """Put the shares of all processes together as SET.npy and SET.txt, and note in SET.json, which is returned, what they are."""
    shares = [folder / f"{name}.rank{rank}.npy" for rank in range(world)]
    missing = [line for share in shares for line in share.with_suffix(".txt").read_text(encoding="utf-8").split("\n") if line]
    absent = set(missing)
    names = [n for n in source.names if n not in absent]
    if world == 1:
        shares[0].replace(folder / f"{name}.npy")
    else:
        with atomic_write(folder / f"{name}.npy") as file:
            np.save(file, np.concatenate([np.load(share) for share in shares]), allow_pickle=False)
    write_text(folder / f"{name}.txt", "\n".join(names) + "\n")
    note = {"key": key, "count": len(names), "unreadable": missing}
    write_json(folder / f"{name}.json", note)
    for share in shares:
        share.unlink(missing_ok=True)
        share.with_suffix(".txt").unlink(missing_ok=True)
    return note


def main() -> None:
    config, options = parse_arguments(__doc__)
    if not config.data.root:
        raise UserError("data.root is empty: latents are made of a data set in the HS_FACE layout. Set data.root")
    engine = start_engine(config.run)
    with hold(config.run_folder / "latents", "extract_latentvec.py") if engine.is_main else nullcontext():
        if engine.is_main:
            ensure_data(config, decode_workers(config.data.workers))
        if engine.world > 1:
            dist.barrier()
        extract(config, engine, options.restart)


if __name__ == "__main__":
    run_script(main)
