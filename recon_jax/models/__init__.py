"""Networks as Flax Linen modules: classifiers, autoencoders, and what happens inside them."""

from recon_jax.models.alexnet import AlexNet as AlexNet
from recon_jax.models.autoencoding import Autoencoder as Autoencoder
from recon_jax.models.autoencoding import Autoencoding as Autoencoding
from recon_jax.models.catalog import MODELS as MODELS
from recon_jax.models.catalog import make_model as make_model
from recon_jax.models.conv_autoencoder import ConvAutoencoder as ConvAutoencoder
from recon_jax.models.guided import Guided as Guided
from recon_jax.models.guided import GuidedAutoencoder as GuidedAutoencoder
from recon_jax.models.intermediates import apply_with_intermediates as apply_with_intermediates
from recon_jax.models.lenet import LeNet as LeNet
from recon_jax.models.masked_autoencoder import MaskedAutoencoder as MaskedAutoencoder
from recon_jax.models.masked_autoencoder import MaskedAutoencoding as MaskedAutoencoding
from recon_jax.models.mlp import MLP as MLP
from recon_jax.models.mlp_autoencoder import MLPAutoencoder as MLPAutoencoder
from recon_jax.models.resnet import ResNet as ResNet
from recon_jax.models.resnet9 import ResNet9 as ResNet9
from recon_jax.models.resnet_autoencoder import ResNetAutoencoder as ResNetAutoencoder
from recon_jax.models.shapes import layer_shapes as layer_shapes
from recon_jax.models.shapes import parameter_count as parameter_count
from recon_jax.models.shapes import variable_shapes as variable_shapes
from recon_jax.models.vgg import VGG as VGG
from recon_jax.models.vit import patchify as patchify
from recon_jax.models.vit import unpatchify as unpatchify
