"""The picture model: data, a small residual network, training, accuracy. Knows nothing of quantisation."""

from nanoq.vision.data import Images, load_images
from nanoq.vision.evaluate import accuracy, correct
from nanoq.vision.model import ResNet, ResNetConfig
from nanoq.vision.train import ImageTrainConfig, train_classifier

__all__ = [
    "ImageTrainConfig", "Images", "ResNet", "ResNetConfig", "accuracy", "correct", "load_images", "train_classifier",
]
