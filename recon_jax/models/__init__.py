"""Networks as Flax Linen modules, and what happens inside them.

Classifiers, autoencoders, and encoders with a projector.
"""

from recon_jax.models.alexnet import AlexNet as AlexNet
from recon_jax.models.autoencoding import Autoencoder as Autoencoder
from recon_jax.models.autoencoding import Autoencoding as Autoencoding
from recon_jax.models.catalog import MODELS as MODELS
from recon_jax.models.catalog import make_model as make_model
from recon_jax.models.circular_cnn import CircularCNN as CircularCNN
from recon_jax.models.conv_autoencoder import ConvAutoencoder as ConvAutoencoder
from recon_jax.models.efficientnet import EfficientNetB0 as EfficientNetB0
from recon_jax.models.feature_encoders import ConvEncoder as ConvEncoder
from recon_jax.models.feature_encoders import MLPEncoder as MLPEncoder
from recon_jax.models.feature_encoders import ResNetEncoder as ResNetEncoder
from recon_jax.models.feature_encoders import ViTFeatureEncoder as ViTFeatureEncoder
from recon_jax.models.guided import Guided as Guided
from recon_jax.models.guided import GuidedAutoencoder as GuidedAutoencoder
from recon_jax.models.huggingface import huggingface_config as huggingface_config
from recon_jax.models.huggingface import load_published as load_published
from recon_jax.models.huggingface import to_huggingface as to_huggingface
from recon_jax.models.intermediates import apply_with_intermediates as apply_with_intermediates
from recon_jax.models.lenet import LeNet as LeNet
from recon_jax.models.masked_autoencoder import MaskedAutoencoder as MaskedAutoencoder
from recon_jax.models.masked_autoencoder import MaskedAutoencoding as MaskedAutoencoding
from recon_jax.models.masked_convolution import MaskedConv as MaskedConv
from recon_jax.models.mlp import MLP as MLP
from recon_jax.models.mlp_autoencoder import MLPAutoencoder as MLPAutoencoder
from recon_jax.models.pixel_sampling import ancestral_sample as ancestral_sample
from recon_jax.models.pixel_sampling import wavefront_sample as wavefront_sample
from recon_jax.models.pixelcnn import PixelCNN as PixelCNN
from recon_jax.models.positions import resize_positions as resize_positions
from recon_jax.models.projection import Projected as Projected
from recon_jax.models.projection import Projection as Projection
from recon_jax.models.projection import ProjectionHead as ProjectionHead
from recon_jax.models.published import Published as Published
from recon_jax.models.published import published_autoencoder as published_autoencoder
from recon_jax.models.published_encoders import IMAGENET_MEAN as IMAGENET_MEAN
from recon_jax.models.published_encoders import IMAGENET_STD as IMAGENET_STD
from recon_jax.models.published_encoders import LinearHead as LinearHead
from recon_jax.models.published_encoders import PublishedEncoder as PublishedEncoder
from recon_jax.models.published_encoders import load_encoder as load_encoder
from recon_jax.models.resnet import ResNet as ResNet
from recon_jax.models.resnet9 import ResNet9 as ResNet9
from recon_jax.models.resnet_autoencoder import ResNetAutoencoder as ResNetAutoencoder
from recon_jax.models.semi_supervised import SemiSupervisedVAE as SemiSupervisedVAE
from recon_jax.models.shapes import layer_shapes as layer_shapes
from recon_jax.models.shapes import parameter_count as parameter_count
from recon_jax.models.shapes import variable_shapes as variable_shapes
from recon_jax.models.vae import VAE as VAE
from recon_jax.models.vae import VAEOutput as VAEOutput
from recon_jax.models.vgg import VGG as VGG
from recon_jax.models.vit import patchify as patchify
from recon_jax.models.vit import unpatchify as unpatchify
from recon_jax.models.vit_classifier import ViTClassifier as ViTClassifier
from recon_jax.models.weight_files import read_weights as read_weights
