"""Networks as a configuration describes them."""

from models.regressor import Regressor
from models.vae import VAE
from utils.config import Config


def build_vae(config: Config) -> VAE:
    vae = config.vae
    return VAE(config.data.image_size, vae.encoder_channels, vae.decoder_channels, vae.latent_dim, vae.norm)


def build_regressor(config: Config, latent_dim: int, outputs: int) -> Regressor:
    f2p = config.f2p
    return Regressor(latent_dim, outputs, f2p.layers, f2p.width, f2p.dropout, f2p.use_logvar)
