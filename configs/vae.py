"""The fields that experiments with variational autoencoders share; the defaults are the paper's."""

from ml_collections import ConfigDict

from configs.training import data_fields, train_fields

CPU = {
    "data.image_size": 14,
    "data.train_limit": 4000,
    "data.test_limit": 2000,
    "likelihood.levels": 64,
    "likelihood.num_components": 2,
    "model.widths": (128, 128),
    "model.norm": "layer",
    "model.decoder_features": 4,
    "model.head_width": 8,
    "model.num_blocks": 1,
    "kl_warmup": 0.3,
    "train.learning_rate": 2e-3,
    "train.schedule": "cosine",
    "train.epochs": 40,
    "train.checkpoint_every": 20,
    "train.log_every": 200,
    "latent_sizes": (16,),
    "reduction": "4,000 images of 14 px in 64 levels, a head of 16 channels and 1 block, 2 "
    "mixtures; the paper has all images, 28 or 32 px, 256 levels, 256 channels, 5 blocks, 10",
}

PAPER_COLOUR = {
    "model.networks": "residual",
    "model.widths": (400, 400, 400),
    "model.decoder_features": 256,
    "train.epochs": 500,
    "train.checkpoint_every": 10,
    "latent_sizes": (64,),
}


def vae_fields() -> ConfigDict:
    """The paper's setting for grey images of 28 px."""
    config = ConfigDict()
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results
    config.reduction = ""  # how it is less than the paper's, for the table
    config.data = data_fields()

    config.texture = ConfigDict()  # clip(brightness + contrast image + strength field, 0, 1)
    config.texture.strength = 0.0
    config.texture.correlation = 0.85  # of neighbouring pixels
    config.texture.brightness = 0.0
    config.texture.contrast = 1.0

    config.likelihood = ConfigDict()  # see recon_jax.losses.LIKELIHOODS
    config.likelihood.name = "logistic_mixture"
    config.likelihood.levels = 256
    config.likelihood.num_components = 10

    config.model = ConfigDict()  # see recon_jax.models.VAE
    config.model.networks = "mlp"
    config.model.widths = (500, 500)
    config.model.norm = "batch"
    config.model.decoder_features = 16
    config.model.head_width = 128  # of each branch of the PixelCNN
    config.model.num_blocks = 5
    config.model.first_kernel = 7  # of the full decoder, as the next
    config.model.inner_kernel = 3

    config.kl_warmup = 0.0  # part of the run in which the weight of the KL divergence rises to 1
    config.free_bits = 0.0  # nats a latent dimension

    config.train = train_fields(
        batch_size=100,
        learning_rate=3e-4,
        weight_decay=0.0,
        schedule="constant",
        epochs=50,
        checkpoint_every=5,
    )

    config.probe = ConfigDict()  # logistic regression and nearest neighbours on posterior means
    config.probe.regularization = 1e-3
    config.probe.max_iterations = 300
    config.probe.num_neighbors = 20
    config.probe.shots = 10  # labels a class, for the read-outs with few labels
    config.probe.draws = 5  # of these labels, averaged
    return config
