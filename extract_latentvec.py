"""Between the stages: encode the data set's faces with the trained VAE.

    python extract_latentvec.py                                  the default experiment, configs/creator.toml
    python extract_latentvec.py --config configs/hs_face.toml
    torchrun --nproc_per_node 4 extract_latentvec.py --config FILE

Reads runs/NAME/vae/checkpoints/best.pt and the pictures in data.root and data.photos. Writes runs/NAME/latents: SET.npy
(float32, a row [mu | logvar] per face), SET.txt (the NAME of each row), SET.json (what it was made of) and meta.json.
SET is `images`, where present `aug_images`, and with data.photos `photos`. With latents.moved there is also SET_moved,
the same faces turned, scaled and shifted a little; with latents.mirrored SET_mirrored, the same faces mirrored.
After a stop the same command goes on. Sets that are whole are kept; where all are, it says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.latents import MIRRORED, MOVED, PRECISIONS, LatentFolder, LatentSet, plan
from datasets.pictures import Batch, Pictures
from datasets.sources import Source, content_digest, describe_data, ensure_data, labelled_sources
from games.writer import read_manifest
from models.predictor import load_encoder
from models.vae import Encoder, as_input, fold_batch_norm
from utils.alignment import MISALIGNMENT_SPREAD, move_pictures, random_misalignments
from utils.checkpoint import fingerprint as fingerprint_of
from utils.config import Config, parse_arguments
from utils.device import Engine, choose_dtype, start_engine
from utils.errors import Interrupted, UserError, run_script
from utils.files import read_json, write_json
from utils.progress import progress
from utils.run import Run
from utils.stop import StopRequest
from utils.workers import decode_workers, map_in_threads

#: Rows between two notes of how far a set has got.
_COMMIT_EVERY = 4096

#: How a view shows pictures (B, 3, S, S) in [0, 1], whose indices (B,) are given too, to the encoder.
View = Callable[[Tensor, Tensor], Tensor]


class Extractor:
    """The encoder of a run, ready to encode sets of faces.

    Args:
        config: the experiment.
        engine: device, precision, processes.
    """

    def __init__(self, config: Config, engine: Engine) -> None:
        self.config, self.engine = config, engine
        encoder, self.trained = load_encoder(config)
        self.fingerprint = fingerprint_of(encoder)
        self.encoder = fold_batch_norm(encoder).to(engine.device).to(memory_format=torch.channels_last)

    def compute_in(self, precision: str) -> None:
        """Let the encoder compute in one of `PRECISIONS`."""
        self.encoder.to(choose_dtype(precision, self.engine.device))

    def open(self, name: str, source: Source) -> Pictures:
        """The pictures of a source at the encoder's size. Raises UserError where too many are unreadable."""
        cache = Path(self.config.data.cache) if self.config.data.cache else None
        workers = decode_workers(self.config.data.workers)
        pictures = Pictures({name: source}, size=self.trained.data.image_size, cache=cache, workers=workers)
        self.check(pictures, name)
        return pictures

    def check(self, pictures: Pictures, name: str) -> None:
        """List unreadable pictures. Raises UserError where they are too many."""
        listing = Run.of(self.config).latents / f"{name}.unreadable.txt"
        pictures.check_unreadable(self.config.data.max_unreadable, listing)

    def encode_set(self, latents: LatentSet, pictures: Pictures, folder: LatentFolder, stop: StopRequest) -> None:
        """Encode this process's shard of a set, going on where an earlier attempt stopped.

        Raises:
            Interrupted: asked to stop; what was encoded is kept.
        """
        source, engine = pictures.sources[latents.source], self.engine
        shard = _shard(len(source.names), engine)
        growing = folder.shard(latents, self.trained.vae.latent_dim, rank=engine.rank, faces=shard)
        done, unreadable = growing.progress.get("done", 0), list(growing.progress.get("unreadable", []))

        size, committed = self.config.latents.batch_size, growing.rows
        remaining = range(shard.start + done, shard.stop)
        chunks = [range(i, min(i + size, remaining.stop)) for i in range(remaining.start, remaining.stop, size)]
        title = f"encoding {latents.name.replace('_', ' ')}"
        view = view_of(latents.view, source)
        with progress(total=len(shard), initial=done, desc=title, unit="face", disable=not engine.is_main) as bar:
            encoded = encode_batches(self.encoder, pictures, chunks, device=engine.device, view=view)
            for chunk, (rows, batch) in zip(chunks, encoded, strict=True):
                growing.append(rows)
                unreadable += [source.names[i] for i, _ in batch.unreadable]
                done += len(chunk)
                bar.update(len(chunk))

                # Note how far it has got; leave when asked.
                if growing.rows - committed >= _COMMIT_EVERY or stop.requested:
                    growing.commit({"done": done, "unreadable": unreadable})
                    committed = growing.rows
                if stop.requested and done < len(shard):
                    raise Interrupted(
                        f"Stopped after {done} of {len(shard)} faces of {latents.name}, which are kept. "
                        "The same command goes on from there."
                    )
        growing.commit({"done": done, "unreadable": unreadable})
        folder.finish_shard(growing, unreadable)


def encode_batches(
    encoder: Encoder,
    pictures: Pictures,
    chunks: Sequence[Sequence[int]],
    *,
    device: torch.device,
    view: View | None = None,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Latents [mu | logvar] (B, 2·latent_dim) float32 of each chunk of pictures, in order, with the batch itself.

    A GPU is fed by decoding processes. On a CPU every core decodes and encodes chunks of its own in one thread:
    cores that share the work of one batch would wait for each other, and for the decoding, at every layer.
    """
    if device.type == "cuda":
        for batch in pictures.batches(chunks, device):
            yield encode(encoder, batch, view), batch
        return

    def work(chunk: Sequence[int]) -> tuple[np.ndarray, Batch]:
        batch = pictures.read(chunk)
        return encode(encoder, batch, view), batch

    threads = torch.get_num_threads()
    yield from map_in_threads(work, chunks, workers=threads, initializer=torch.set_num_threads, arguments=(1,))


@torch.inference_mode()
def encode(encoder: Encoder, batch: Batch, view: View | None = None) -> np.ndarray:
    """Latents [mu | logvar] (B, 2·latent_dim) float32 of a batch, after `view` has been applied to it, if given."""
    pictures = as_input(batch.pictures)
    if view is not None:
        pictures = view(pictures, batch.indices)
    return torch.cat(encoder(pictures), 1).cpu().numpy()


def view_of(view: str, source: Source) -> View | None:
    """How a view shows the pictures of a source; None for pictures as they are."""
    if view == MOVED:
        misalignments = torch.from_numpy(random_misalignments(source.names))
        return lambda pictures, indices: move_pictures(pictures, misalignments[indices].to(pictures.device))
    if view == MIRRORED:
        return lambda pictures, indices: pictures.flip(3)
    return None


def _shard(count: int, engine: Engine) -> range:
    """This process's faces: one run of them, so that the shards in order are the whole."""
    return range(count * engine.rank // engine.world, count * (engine.rank + 1) // engine.world)


def plan_sets(
    extractor: Extractor, digests: dict[str, str], *, folder: LatentFolder, restart: bool
) -> tuple[str, list[LatentSet]]:
    """In which of `PRECISIONS` all latents are made, and the sets that are wanted.

    Args:
        digests: source → `content_digest` of its pictures.
        restart: what is there is made anew.
    """
    settings, plans = extractor.config.latents, {}
    for precision in PRECISIONS:
        in_precision = replace(settings, precision=precision)
        plans[precision] = plan(digests, extractor.trained, in_precision, extractor.fingerprint)
    if settings.precision != "auto":
        return settings.precision, plans[settings.precision]

    # Latents that are there, in whole or in part, decide: a run that moves to another machine goes on as it began.
    chosen = fastest = fastest_precision(extractor.engine)
    begun = [precision for precision, sets in plans.items() if any(map(folder.has_begun, sets))]
    if begun and not restart and fastest not in begun:
        chosen = begun[0]
    if chosen != fastest and extractor.engine.is_main:
        print(
            f"The latents that are there were made in {chosen}, so all are, though {fastest} is faster here. "
            "--restart makes all of them anew."
        )
    return chosen, plans[chosen]


def fastest_precision(engine: Engine) -> str:
    """bf16 where the devices of all processes have it in hardware, else fp32."""
    lacking = torch.tensor(float(choose_dtype("auto", engine.device) != torch.bfloat16), device=engine.device)
    return "fp32" if engine.sum_over_processes(lacking).item() else "bf16"


def describe_latents(extractor: Extractor, digests: dict[str, str], precision: str) -> dict[str, Any]:
    """What meta.json says of the latents that a configuration asks for, but for their counts."""
    config, trained = extractor.config, extractor.trained
    return {
        "fingerprint": extractor.fingerprint,
        "image_size": trained.data.image_size,
        "latent_dim": trained.vae.latent_dim,
        "precision": precision,
        "creator": read_manifest(Path(config.data.root)),
        "moved": list(MISALIGNMENT_SPREAD) if config.latents.moved else None,
        "mirrored": config.latents.mirrored or None,
        "sources": digests,
    }


def extract(config: Config, engine: Engine, restart: bool) -> None:
    """Encode every latent set that is wanted and not there."""
    # Plan.
    extractor = Extractor(config, engine)
    folder, sources = LatentFolder(Run.of(config).latents), labelled_sources(config.data)
    digests = {name: content_digest(source) for name, source in sources.items()}
    precision, wanted = plan_sets(extractor, digests, folder=folder, restart=restart)
    todo = [latents for latents in wanted if restart or folder.note_of(latents) is None]
    meta = describe_latents(extractor, digests, precision)
    if not todo and meta.items() <= (read_json(folder.meta) or {}).items():
        print(
            f"{folder.folder} is finished: it holds the latents of this encoder and these faces. "
            "Use --restart to encode them again."
        )
        return

    # Nobody changes anything before all processes have seen what is there.
    engine.barrier()
    if engine.is_main:
        Run.of(config).describe(config, "extract_latentvec.py")
        print(describe_data(config.data))
        print(f"Encoding on {engine.world} × {engine.device} in {precision}.")
        folder.start(todo)
    extractor.compute_in(precision)
    names = dict.fromkeys(latents.source for latents in todo)
    opened = {name: extractor.open(name, sources[name]) for name in names}

    # Loop.
    stop = StopRequest()
    for latents in todo:
        pictures = opened[latents.source]
        extractor.encode_set(latents, pictures, folder, stop)
        extractor.check(pictures, latents.source)
        engine.barrier()
        if engine.is_main:
            folder.join(latents, sources[latents.source], engine.world)

    # Report.
    if engine.is_main:
        write_meta(folder, wanted, meta)


def write_meta(folder: LatentFolder, sets: list[LatentSet], meta: dict[str, Any]) -> None:
    """Write meta.json, which says that all sets are whole, and print how many latents there are."""
    notes = {latents.name: folder.note_of(latents) or {} for latents in sets}
    counts = {name: note["count"] for name, note in notes.items()}
    unreadable = {name: note["unreadable"] for name, note in notes.items()}
    write_json(folder.meta, meta | {"counts": counts, "unreadable": unreadable})
    print(", ".join(f"{count} latents of {name}" for name, count in counts.items()) + f" in {folder.folder}")
    print("next: python f2p_trainer.py")


def main() -> None:
    config, options = parse_arguments(__doc__)
    if not config.data.root:
        raise UserError("data.root is empty: latents are made of a data set in the HS_FACE layout. Set data.root")
    engine = start_engine(config.run)
    with Run.of(config).lock_latents("extract_latentvec.py", engine.is_main):
        if engine.is_main:
            ensure_data(config, decode_workers(config.data.workers))
        engine.barrier()
        extract(config, engine, options.restart)


if __name__ == "__main__":
    run_script(main)
