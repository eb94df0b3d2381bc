"""TensorFlow as it comes: a plain Keras `fit`, tf.image one image at a time, and Keras' layers on batches."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from benchmarks.timing import noise, timed

from ._shared import (
    CROP,
    CROP_RATIO,
    CROP_SCALE,
    ENLARGED,
    JITTER,
    KAGGLE_RATIO,
    KAGGLE_SCALE,
    MEAN,
    STD,
    epoch,
)

AUTOTUNE = tf.data.AUTOTUNE


def wait() -> None:
    """Do nothing: the value that was read last is ready only after its step."""


def product(precision: str, size: int) -> Callable[[], None]:
    """Return a function that multiplies two square matrices and waits for the result."""
    dtype = tf.bfloat16 if precision == "bf16" else tf.float32
    A = tf.cast(tf.random.uniform((size, size)), dtype)

    def multiply() -> None:
        float(tf.matmul(A, A)[0, 0])  # waits for the device

    return multiply


def _crop(image: Any, scale: tuple[float, float], ratio: tuple[float, float]) -> Any:
    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
    start, size, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        whole,
        min_object_covered=0.0,
        aspect_ratio_range=ratio,
        area_range=scale,
    )
    box = tf.reshape(tf.slice(image, start, size), (size[0], size[1], 3))
    return tf.ensure_shape(tf.image.resize(box, (CROP, CROP), antialias=True), (CROP, CROP, 3))


def per_image(recipe: str) -> Any:
    """Return the chapters' transforms in tf.image, for an image, uint8 (height, width, 3)."""

    def flip(image: Any) -> Any:
        return tf.image.random_flip_left_right(image) / 255

    def kaggle(image: Any) -> Any:
        image = tf.image.resize(tf.cast(image, tf.float32) / 255, (ENLARGED, ENLARGED))
        image = tf.image.random_flip_left_right(_crop(image, KAGGLE_SCALE, KAGGLE_RATIO))
        return (image - tf.constant(MEAN)) / tf.constant(STD)

    def jitter(image: Any) -> Any:
        image = tf.image.random_flip_left_right(tf.cast(image, tf.float32) / 255)
        image = tf.image.random_brightness(image, JITTER)
        image = tf.image.random_contrast(image, 1 - JITTER, 1 + JITTER)
        image = tf.image.random_saturation(image, 1 - JITTER, 1 + JITTER)
        image = tf.image.random_hue(image, JITTER)
        return _crop(tf.clip_by_value(image, 0, 1), CROP_SCALE, CROP_RATIO)

    return {"flip": flip, "kaggle": kaggle, "jitter": jitter}[recipe]


def keras_layers(recipe: str) -> Any:
    """Return Keras' own layers for batches in 0..1; their crop has a single size."""
    layers = keras.layers
    jitter = layers.RandomColorJitter(
        value_range=(0, 1),
        brightness_factor=JITTER,
        contrast_factor=JITTER,
        saturation_factor=(JITTER, 1 - JITTER),
        hue_factor=JITTER,
    )
    variance = [s**2 for s in STD]
    return keras.Sequential(
        {
            "flip": [layers.RandomFlip("horizontal")],
            "kaggle": [
                layers.Resizing(ENLARGED, ENLARGED),
                layers.RandomCrop(CROP, CROP),
                layers.RandomFlip("horizontal"),
                layers.Normalization(mean=MEAN, variance=variance),
            ],
            "jitter": [
                layers.RandomFlip("horizontal"),
                jitter,
                layers.RandomCrop(CROP, CROP),
            ],
        }[recipe]
    )


def loader(
    pipeline: str, recipe: str, num_images: int, batch_size: int, workers: int | None = None
) -> Any:
    """Measure an epoch of batches: tf.data one image at a time, 'book', or 'Keras layers' on batches."""
    images, labels = noise(num_images)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(num_images)
    parallel = AUTOTUNE if workers is None else workers or None
    if pipeline == "book":
        transform = per_image(recipe)
        data = data.map(lambda X, y: (transform(X), y), parallel).batch(batch_size)
    elif pipeline == "Keras layers":
        layers = keras_layers(recipe)

        def on_batch(X: Any, y: Any) -> Any:
            return layers(tf.cast(X, tf.float32) / 255, training=True), y

        data = data.batch(batch_size).map(on_batch, parallel)
    else:
        raise ValueError(pipeline)
    batches = data.prefetch(AUTOTUNE)
    return epoch(batches, lambda batch: float(batch[0][-1, -1, -1, -1]), num_images)


def book(batch_size: int, batches: int) -> Any:
    """Measure a plain Keras `fit` of the book's network on arrays: Keras' BatchNorm, Keras' flips as a layer.

    tf.data would flip one image at a time, which is too slow beside a training on two cores.
    """
    from . import backend_file

    resnet = backend_file("tensorflow", "resnet")
    vars(resnet)["BatchNorm"] = keras.layers.BatchNormalization  # ours is one operator
    first = [keras.layers.Rescaling(1 / 255), keras.layers.RandomFlip("horizontal")]
    net = keras.Sequential([keras.Input((32, 32, 3)), *first, resnet.resnet18(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(0.001), loss, metrics=["accuracy"])
    images, labels = noise(batch_size * batches)

    def run() -> None:
        net.fit(images, labels, batch_size=batch_size, epochs=1, verbose=0)

    return lambda: timed(run, images=len(labels))
