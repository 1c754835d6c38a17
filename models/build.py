"""Networks as a configuration describes them, and as a checkpoint holds them."""

from pathlib import Path
from typing import Any

from models.regressor import Regressor
from models.vae import VAE, Encoder
from utils import checkpoint
from utils.config import Config, differences, from_dict
from utils.errors import UserError

#: Settings that the encoder was built with; those of the config must agree.
_NETWORK = ("data.image_size", "vae.encoder_channels", "vae.latent_dim", "vae.norm", "vae.bottleneck", "vae.spatial")


def build_vae(config: Config) -> VAE:
    vae = config.vae
    return VAE(config.data.image_size, vae.encoder_channels, vae.decoder_channels, vae.latent_dim, vae.norm,
               vae.bottleneck, vae.spatial)


def build_regressor(config: Config, latent_dim: int, outputs: int) -> Regressor:
    f2p = config.f2p
    return Regressor(latent_dim, outputs, f2p.layers, f2p.width, f2p.dropout, f2p.use_logvar, f2p.norm, f2p.activation,
                     config.latents.moved, f2p.whitening, config.vae.bottleneck ** 2, f2p.mixer_blocks, f2p.mixer_width)


def load_vae(run: Path) -> tuple[VAE, Config]:
    """The best VAE of a run folder, rebuilt from its checkpoint alone, and the configuration it was trained with.

    Raises:
        UserError: no checkpoint, or one that cannot be used.
    """
    path, content = _best_checkpoint(run, "vae")
    trained = from_dict(content["config"], str(path))
    model = build_vae(trained)
    checkpoint.restore(model, content["model"], path)
    return model.eval(), trained


def _best_checkpoint(run: Path, stage: str) -> tuple[Path, dict[str, Any]]:
    path = run / stage / "checkpoints" / "best.pt"
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}; run {stage}_trainer.py with the same config first")
    return path, checkpoint.load(path, stage)


def load_encoder(config: Config) -> tuple[Encoder, Config, str]:
    """The trained encoder of a configuration's run, the configuration it was trained with, and its fingerprint.

    Raises:
        UserError: as `load_vae`, or the checkpoint is of another network than the configuration's.
    """
    model, trained = load_vae(config.run_folder)
    changed = differences(trained.as_dict(), config, _NETWORK)
    if changed:
        raise UserError(f"the VAE in {config.run_folder} is another network than the config describes ({'; '.join(changed)}). "
                        "Use the config that it was trained with")
    return model.encoder, trained, checkpoint.fingerprint(model.encoder)


def load_regressor(run: Path) -> tuple[Regressor, dict[str, Any]]:
    """The best regressor of a run folder, rebuilt from its checkpoint alone, and the checkpoint's content.

    Raises:
        UserError: no checkpoint, or one that cannot be used.
    """
    path, content = _best_checkpoint(run, "f2p")
    try:
        model = build_regressor(from_dict(content["config"], str(path)), content["latent_dim"], len(content["parameters"]))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    checkpoint.restore(model, content["model"], path)
    return model.eval(), content
