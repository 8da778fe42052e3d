import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nanoq.vision import load_images


@pytest.fixture(scope="module")
def digits():
    return load_images()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Stands in for `datasets`, with an empty cache: rows by (repository, split), and a list of what was fetched."""
    monkeypatch.delenv("NANOQ_DATA", raising=False)
    monkeypatch.setenv("NANOQ_CACHE", str(tmp_path))
    fake = SimpleNamespace(rows={}, fetched=[])

    def load_dataset(repository, config, split, streaming):
        assert streaming and config is None
        fake.fetched.append((repository, split))
        yield from fake.rows[repository, split]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("nanoq.hub.find_hub", lambda: None)
    return fake


def serve(hub, repository, picture, shape, train=6, test=4):
    """Put random pictures on the fake hub; return the training pixels."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        pixels = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        hub.rows[repository, split] = [{picture: p, "label": i % 2, "fine": 0} for i, p in enumerate(pixels)]
    return np.stack([row[picture] for row in hub.rows[repository, "train"]])


def test_digits_are_4000_and_1000_normalised_pictures(digits):
    assert digits.name == "digits" and "MNIST" in digits.source
    assert digits.train.shape == (4000, 1, 28, 28) and digits.test.shape == (1000, 1, 28, 28)
    assert digits.train.dtype == digits.test.dtype == torch.float32
    assert digits.train_labels.dtype == digits.test_labels.dtype == torch.int64
    assert digits.train.mean().item() == pytest.approx(0, abs=1e-4)
    assert digits.train.std().item() == pytest.approx(1, abs=1e-4)


def test_each_digit_is_as_frequent_as_any_other_in_both_splits(digits):
    assert digits.train_labels.bincount().tolist() == [400] * 10
    assert digits.test_labels.bincount().tolist() == [100] * 10


def test_no_digit_lies_in_both_splits_or_twice_in_one(digits):
    rows = [row.numpy().tobytes() for row in torch.cat((digits.train, digits.test))]
    assert len(set(rows)) == 5000


def test_the_first_digits_of_a_split_are_of_every_class(digits):
    for labels in (digits.train_labels, digits.test_labels):
        assert labels[:70].bincount().tolist() == [7] * 10


def test_digits_belong_to_their_labels(digits):
    """The mean of its class is the nearest one, for most pictures."""
    means = torch.stack([digits.train[digits.train_labels == c].mean(0).flatten() for c in range(10)])
    assert (torch.cdist(digits.test.flatten(1), means).argmin(1) == digits.test_labels).float().mean() > 0.75


def test_digits_are_the_same_in_every_call(digits):
    again = load_images("digits")
    assert torch.equal(again.train, digits.train) and torch.equal(again.test_labels, digits.test_labels)


def test_unknown_pictures_are_an_error_that_lists_the_known_ones():
    with pytest.raises(FileNotFoundError, match="no pictures 'digit': .* digits, fashion-mnist, cifar-10"):
        load_images("digit")


def test_grey_pictures_from_the_hub_are_normalised(hub):
    pixels = serve(hub, "zalando-datasets/fashion_mnist", "image", (28, 28))
    pictures = load_images("fashion-mnist")
    assert pictures.train.shape == (6, 1, 28, 28) and pictures.test.shape == (4, 1, 28, 28)
    assert pictures.test_labels.tolist() == [0, 1, 0, 1]
    expected = (pixels - pixels.mean()) / pixels.std(ddof=1)
    np.testing.assert_allclose(pictures.train[:, 0], expected, atol=1e-5)


def test_coloured_pictures_from_the_hub_are_normalised_by_channel(hub):
    pixels = serve(hub, "uoft-cs/cifar10", "img", (32, 32, 3))
    pictures = load_images("cifar-10")
    assert pictures.train.shape == (6, 3, 32, 32)
    expected = (pixels - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2), ddof=1)
    np.testing.assert_allclose(pictures.train.permute(0, 2, 3, 1), expected, atol=1e-5)


def test_the_hub_is_asked_once_and_then_the_cache(hub):
    serve(hub, "uoft-cs/cifar10", "img", (32, 32, 3))
    first, second = load_images("cifar-10"), load_images("cifar-10")
    assert hub.fetched == [("uoft-cs/cifar10", "train"), ("uoft-cs/cifar10", "test")]
    assert torch.equal(first.test, second.test)


def test_a_local_file_goes_before_the_hub(hub, tmp_path, monkeypatch):
    serve(hub, "uoft-cs/cifar10", "img", (32, 32, 3))
    expected = load_images("cifar-10")
    (tmp_path / "lab").mkdir()
    (tmp_path / "cifar-10.safetensors").rename(tmp_path / "lab" / "cifar-10.safetensors")
    monkeypatch.setenv("NANOQ_DATA", str(tmp_path / "lab"))
    assert torch.equal(load_images("cifar-10").train, expected.train)
    assert len(hub.fetched) == 2


@pytest.mark.parametrize("damage", ["bytes", "keys", "shapes"])
def test_a_damaged_file_is_an_error_that_names_it(hub, tmp_path, damage):
    path, pixels = tmp_path / "cifar-10.safetensors", torch.zeros(2, 3, 4, 4)
    if damage == "bytes":
        path.write_bytes(b"no tensors")
    elif damage == "keys":
        save_file({"train": pixels, "train_labels": torch.zeros(2)}, path)
    else:
        labels = {"train_labels": torch.zeros(1), "test_labels": torch.zeros(2)}
        save_file({"train": pixels, "test": pixels + 1} | labels, path)
    with pytest.raises(ValueError, match=r"cifar-10\.safetensors does not hold the pictures of cifar-10 .*: delete it"):
        load_images("cifar-10")


def test_without_a_network_one_sentence_names_the_three_ways(monkeypatch, hub):
    def unreachable(*_, **__):
        raise ConnectionError("HTTPSConnectionPool(host='huggingface.co'): Max retries exceeded\n" * 9)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(FileNotFoundError) as error:
        load_images("fashion-mnist")
    message = str(error.value)
    assert message.startswith("cannot fetch 'fashion-mnist' (ConnectionError). Three ways to get it: ")
    assert all(way in message for way in ("connect to the internet", "NANOQ_DATA", "`digits`"))
    assert "\n" not in message and "HTTPSConnectionPool" not in message
