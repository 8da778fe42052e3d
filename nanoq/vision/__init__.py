"""The picture model: data, a small residual network, training, accuracy. Knows nothing of quantisation."""

from nanoq.vision.checkpoint import load_classifier, save_classifier
from nanoq.vision.data import Pictures, load_pictures
from nanoq.vision.evaluate import accuracy, correct
from nanoq.vision.model import ResNet, ResNetConfig
from nanoq.vision.train import PictureTrainConfig, train_pictures

__all__ = [
    "PictureTrainConfig", "Pictures", "ResNet", "ResNetConfig", "accuracy", "correct", "load_classifier",
    "load_pictures", "save_classifier", "train_pictures",
]
