"""The words of docs/differences.md: what each difference means, where it is set, which notes belong to it."""

from dataclasses import dataclass

INTRODUCTION = """# Differences, measured

What PyTorch, MXNet and TensorFlow do otherwise than each other when they are left to themselves, one difference at a
time: what it means, what it does, who does it, and where this project sets it. *Aligned* is what this project
makes every backend do, as far as `CONVENTIONS` in its `probes.py` does not declare otherwise; *native* is what a
framework does by itself.

```sh
python run.py differences                                      # all of it on the arbiter: minutes, no framework needed
python run.py differences --only padding                       # one of them
python run.py differences --backend tensorflow                 # the framework itself, on your machine: seconds
uv run --extra all python run.py differences --backend all --output docs/differences.md
```

The last command writes this page, and what it measured into [differences.json](differences.json). After a change of a
note in the source, `python run.py differences --measured docs/differences.json --output docs/differences.md` makes
the page again.

Each difference is measured twice:

- **On the arbiter** (`common/reference`: NumPy, float64), which computes both ways: ResNet-18 on 16 x 16 crops of the
  embedded shapes, flipped and jittered, 30 batches of 8, with Adam at 3e-4, or where only SGD shows the difference
  with SGD at .02, momentum .9 and decay 5e-4 (the rate falls to a tenth half way).
  *One operation*: the first that the difference touches, on small inputs drawn for it (of colours: tinted noise).
  *First step*: how far the first step ends from the aligned one, as a share of that step's length; where training
  starts from other weights, that distance is in it. *Training loss*: the mean of the last ten of thirty steps. *Held
  out*: the loss on 64 other pictures in evaluation mode after thirty steps. Pairs are aligned, then native.
- **In the framework**, left alone: its own operation, with its own defaults, on an input that the arbiter computes
  with too, both ways. *Its operation* is the nearest of what is known: as aligned, this difference, or another known
  difference of the same operation; the distances say how near. tests/docs/test_differences.py holds that each native
  way is   the framework's own.
"""

GROUPS = {
    "Layers": "What the network computes, and what its layers keep.",
    "Optimizer": "What a step does with a gradient, and what the gradient is of.",
    "Augmentation": """What a factor does to an image. The batched operations of this project mean the same in every
framework; its native pipelines show what the frameworks do.""",
    "Initial values": "What a layer starts from when nobody says.",
    "Data": "How numbers lie in memory, and who draws them.",
}

OTHERS = """## What else differs

The notes in the source that belong to none of the differences above. They are about how a thing is done, or were
measured where they stand.
"""


@dataclass(frozen=True)
class Section:
    """What the page says of one difference.

    ``sources`` are arguments of the page's ``{source}`` directive, with its options; ``notes`` the places of the
    `Differs:` notes that belong to it, as `docs.differences.notes.Note.place` has them.
    """

    name: str
    group: str
    text: str
    sources: tuple[str, ...]
    notes: tuple[str, ...] = ()


RESNET = "resnet.py Residual.__init__"
DECLARED = (
    "backends/pytorch/probes.py",
    "backends/mxnet/probes.py",
    "backends/tensorflow/probes.py",
)
ADAM = tuple(f"backends/{name}/trainer.py adam" for name in ("pytorch", "mxnet", "tensorflow"))
PREDICT = tuple(f"backends/{n}/trainer.py predict" for n in ("pytorch", "mxnet", "tensorflow"))
SGD = "trainer.py sgd\n:mxnet: _sgd.py SGD\n:tensorflow: _sgd.py SGD"
NATIVE_JITTER = "backends/tensorflow/_native.py color_jitter"
NATIVE_MXNET = "backends/mxnet/transforms.py native"

SECTIONS = (
    Section(
        "padding",
        "Layers",
        """
A 3 x 3 convolution keeps the size of an image if a line of zeros is laid around it. At stride 2 on an even size,
zeros on one side are enough, and here the frameworks part. PyTorch and MXNet are told a number, which goes on both
sides. TensorFlow and Keras are told `'same'`, and put the zeros on the right and at the bottom alone. The results
have the same shape, each kernel sits one pixel further, and nothing complains: weights that were trained with one way
are wrong with the other. On odd sizes, at stride 1 and for 1 x 1 kernels both are the same.

In TensorFlow a layer of zeros before a convolution without padding gives the way of the others.
""",
        ("resnet.py Residual.__init__",),
        ("backends/tensorflow/resnet.py Residual.__init__",),
    ),
    Section(
        "BatchNorm's epsilon",
        "Layers",
        """
What is added to the variance under the root, so that nothing is divided by zero. It counts where a channel varies
little: there Keras' default, a hundred times the others', makes the result smaller. Weights keep no epsilon: a
network that is converted without it gives other logits, and no error.
""",
        (RESNET,),
        ("backends/tensorflow/resnet.py Residual.__init__",),
    ),
    Section(
        "BatchNorm's momentum",
        "Layers",
        """
Evaluation normalises by running statistics. Each training step keeps a share of them and takes the rest from its
batch: after thirty steps at .99 three quarters are still the first value (.99 to the power of 30 is .74), at .9 four
per cent. Training does not see it: parameters and training losses are the same to the last digit. Evaluation does,
most of all after a short training.

Also, not every framework moves the statistics at the same moment; the notes say when.
""",
        (RESNET,),
        ("backends/tensorflow/resnet.py Residual.__init__", *PREDICT),
    ),
    Section(
        "BatchNorm's momentum swapped",
        "Layers",
        """
One name, two meanings. In MXNet and Keras the momentum is the share that is kept, in PyTorch the share that is new:
.9 there is .1 here. Who copies the number gets statistics of the last batch and little else. No framework does this
by itself; what was measured on the arbiter is what a port makes of it.
""",
        (RESNET,),
        ("backends/pytorch/resnet.py Residual.__init__",),
    ),
    Section(
        "biased running variance",
        "Layers",
        """
A batch is normalised by its variance with the divisor n, everywhere; n is the number of images times the number of
positions. What goes into the running variance is that same number in MXNet on the CPU and in Keras' own layer.
PyTorch makes it unbiased first, by n / (n - 1), and so does the fused operator of TensorFlow that this project's
layer calls. In the last layers of a small network on small images n is small, and the two are per cents apart.

This is not aligned in MXNet but declared: the arbiter computes so when it checks that backend.
""",
        ("resnet.py Residual.__init__\n:tensorflow: _layers.py BatchNorm",),
        (
            "backends/pytorch/resnet.py Residual.__init__",
            "backends/mxnet/resnet.py Residual.__init__",
            "backends/tensorflow/_layers.py BatchNorm",
            *DECLARED[:2],
        ),
    ),
    Section(
        "sum of losses",
        "Optimizer",
        """
The book's PyTorch tab backpropagates the sum of the losses of a batch, its MXNet tab divides by the size of the batch
in `trainer.step`. With the sum, gradients grow with the batch, so one learning rate is another one at another batch
size, and the decay of the weights beside it counts for less. Adam divides a gradient by its own size and hides this;
SGD does not.

Left alone, the losses of PyTorch and Keras are means. Gluon's is one value per example: `backward` on it gives the
gradient of the sum, which becomes that of the mean only if `step` is told the size of the batch.
""",
        ("trainer.py train_batch_ch13",),
    ),
    Section(
        "Adam's epsilon",
        "Optimizer",
        """
What is added to the root of the second moment. Where gradients are much larger it does nothing; a weight whose
gradient is of its size makes a smaller step. Keras' default is ten times the others'. It is an argument, so one that
is given is the same everywhere, but for its place: see the next.
""",
        ("trainer.py adam",),
        ("backends/tensorflow/trainer.py adam",),
    ),
    Section(
        "Adam's epsilon inside",
        "Optimizer",
        r"""
Both moments start at zero and are corrected for that. PyTorch adds epsilon to the root of the corrected second
moment, as algorithm 1 of the paper (Kingma and Ba 2015) does: $\hat m / (\sqrt{\hat v} + \epsilon)$. MXNet and Keras
follow the paper's rearranged form, which leaves the second moment as it is and puts the correction into the rate.
Their epsilon then counts for $\epsilon / \sqrt{1 - \beta_2^t}$: 32 times as much in the first step with $\beta_2 =
.999$, and the same in the long run.

This is not aligned but declared: the arbiter computes so when it checks MXNet and TensorFlow.
""",
        ("trainer.py adam",),
        (*ADAM, *DECLARED),
    ),
    Section(
        "learning rate inside the momentum",
        "Optimizer",
        """
PyTorch's buffer sums gradients, and the step multiplies it by the rate. MXNet and Keras sum gradients that are
multiplied already. As long as the rate stays, both are the same. When it falls, as in the Kaggle chapter, the steps
that are in the buffer stay as long as they were, and the new rate takes hold only as fast as the momentum forgets.
""",
        (SGD,),
        ("backends/mxnet/_sgd.py SGD", "backends/tensorflow/_sgd.py SGD"),
    ),
    Section(
        "decoupled weight decay",
        "Optimizer",
        """
The decay of PyTorch's and MXNet's SGD is the gradient of an L2 penalty: it is added to the gradient and goes through
the momentum with it. Keras' `weight_decay=` takes a share of the weight itself in each step, past the momentum. In
the first step both are the same; after that the coupled one works for longer, by 1 / (1 - momentum) in the long run.
One number means two strengths.
""",
        (SGD,),
        ("backends/tensorflow/_sgd.py SGD",),
    ),
    Section(
        "brightness added",
        "Augmentation",
        """
Brightness .5 in the book makes an image half to one and a half times as bright: pixels are multiplied. The functions
of `tf.image` and Keras' layer add a number to each pixel: dark ones turn grey, and contrast stays.
""",
        ("transforms.py adjust_brightness",),
        (NATIVE_JITTER,),
    ),
    Section(
        "contrast by channel",
        "Augmentation",
        """
Less contrast brings an image nearer to its mean. In PyTorch and MXNet that is the mean of its grey, one number; in
TensorFlow each channel has its own mean, so a reddish picture turns towards red and not towards grey.
""",
        ("transforms.py adjust_contrast",),
        (NATIVE_JITTER,),
    ),
    Section(
        "saturation of HSV",
        "Augmentation",
        """
Less saturation brings a pixel nearer to its grey. PyTorch blends with the luma, as a grey photograph has it;
TensorFlow scales the S of HSV, which keeps the largest channel as it is: at 0 a pure blue becomes white where luma
makes it nearly black.
""",
        ("transforms.py adjust_saturation",),
        (NATIVE_JITTER,),
    ),
    Section(
        "saturation with wrong grey",
        "Augmentation",
        """
MXNet 1.9.1 means to blend with the luma too, but assigns where it should add (`gray =` for `gray +=` in
src/operator/image/image_random-inl.h): its grey is .114 of blue alone. Colours turn dark. The operator is inside
`RandomSaturation` and `RandomColorJitter`, so it is in the book's own example. The native pipeline says so when it is
used; the batched one is right.
""",
        ("transforms.py adjust_saturation",),
        (NATIVE_MXNET,),
    ),
    Section(
        "hue in 8 bits",
        "Augmentation",
        """
torchvision turns the hue of a PIL image in Pillow's HSV, which holds hue, saturation and value in 256 levels each.
Each step of the way there and back is rounded. torchvision on tensors, MXNet and TensorFlow compute in fractions.
""",
        ("transforms.py adjust_hue",),
    ),
    Section(
        "no antialiasing",
        "Augmentation",
        """
To shrink an image, each new pixel should be a mean of all that it covers. Pillow, and so torchvision, widens its
kernel with the scale. MXNet, and TensorFlow unless told `antialias=True`, interpolate between four pixels and skip
the others: fine patterns turn into noise. When nothing shrinks, all agree. The crop of the Kaggle recipe, from 32 to
40 pixels a side down to 32, does shrink.
""",
        ("transforms.py crop_resize", "common/augmentation/resampling.py box_weights"),
        (
            NATIVE_MXNET,
            "backends/mxnet/_native.py Resize",
            "backends/mxnet/_native.py RandomResizedCrop",
        ),
    ),
    Section(
        "levels rounded down",
        "Augmentation",
        """
Where images are bytes between two operations, the fraction of a level has to go. In a change of brightness MXNet cuts
it off, and so does Pillow, which torchvision calls: half a level is lost on average, in each operation anew. Rounding
to the nearest level loses nothing on average. TensorFlow's operations are taken here as its native pipeline does, on
floats, where there is nothing to round.
""",
        ("transforms.py _as_levels",),
        (NATIVE_MXNET,),
    ),
    Section(
        "PyTorch's initial weights",
        "Initial values",
        """
PyTorch draws weights and biases uniformly within 1 / sqrt(fan in). The book asks for Xavier, Glorot's uniform draw,
which looks at both sides of a layer, and for zero biases; that is what Keras does by itself. In the book's current
edition the line that asks for it runs while most layers are lazy, and reaches 2 of 21: PyTorch's own weights stay.
""",
        ("resnet.py init_cnn", "common/weights/canonical.py initial_weights _initial"),
        ("backends/pytorch/resnet.py init_cnn",),
    ),
    Section(
        "Gluon's initial weights",
        "Initial values",
        """
`net.initialize()` without an argument draws every weight uniformly within .07, whatever the size of the layer. A
signal grows or fades from layer to layer, until a BatchNorm takes that away again. The book's cells pass
`init.Xavier()`.
""",
        ("resnet.py init_cnn", "common/weights/canonical.py initial_weights _initial"),
        ("backends/mxnet/resnet.py init_cnn",),
    ),
    Section(
        "images in the other layout",
        "Data",
        """
A batch of images is (images, channels, height, width) in PyTorch and MXNet, NCHW for short, and (images, height,
width, channels) in TensorFlow, NHWC; files and NumPy have the latter. To go from one to the other the axes are moved
(`transpose`). `reshape` gives the right shape too, and a wrong image: the three values of a pixel become neighbours,
and each third of the picture becomes a channel. On the arbiter a port that reads all its images so trains all the
same, on worse pictures.

A batch in the other layout is refused, but only by a layer that knows how many channels it takes, and only where the
axis that stands in their place has another length. Layers that learn their inputs from the first batch take anything.
""",
        ("transforms.py from_images",),
        ("backends/tensorflow/devices.py",),
    ),
    Section(
        "kernels in the other layout",
        "Data",
        """
A convolution's weights are (outputs, inputs, height, width) in PyTorch and MXNet, OIHW, and (height, width, inputs,
outputs) in Keras, HWIO; a dense layer's are (outputs, inputs) and (inputs, outputs). The canonical form of this
project, that of its safetensors files, is the first. To go there from Keras' the axes move as (3, 2, 0, 1). Reversing
all four, which is what `.T` does and is right for a dense layer, gives shapes that fit, as kernels are
square, and turns each kernel over its diagonal. A trained network computes something else after that, and says
nothing; one that is yet to be trained does not mind.
""",
        (
            "common/weights/keras.py to_keras from_keras",
            "weights.py get_weights\n:tensorflow: get_weights set_weights",
        ),
        ("backends/tensorflow/weights.py",),
    ),
    Section(
        "workers that draw the same",
        "Data",
        """
Who draws the random numbers when several workers load?

- **PyTorch**: processes. Each has a seed of its own, made of one that the loader draws and the worker's number. So
  draws are independent, and reproducible for one number of workers; with another number every image is drawn anew.
- **MXNet**: forks, which inherit one random state and go on from it side by side. Two workers flip their batches
  alike, image by image; and as the next batch goes to whichever is free, a seed does not give the flips again. Crops
  come from Python's `random`, which each fork seeds anew: those are independent, and cannot be reproduced. (On the
  arbiter crops are alike too.)
- **TensorFlow**: threads of tf.data, which share the state of an operation and draw from it in the order in which
  they happen to come. Draws are independent; that a seed gives them again is a matter of luck, unless
  `enable_op_determinism` gives up the parallelism.

Here the batched pipelines draw nothing: common.augmentation decides for each example, from the seed, the epoch and the
example's number. The native loaders seed what the framework draws for an example (PyTorch, TensorFlow) or for a batch
(MXNet, where seeding takes a millisecond), so the number of workers changes nothing.
""",
        (
            "loaders.py _Examples\n:tensorflow: _NativeBatches",
            "common/augmentation/decisions.py decide",
        ),
        (
            "backends/pytorch/loaders.py _Examples.__getitem__",
            "backends/mxnet/loaders.py load_native",
            "backends/mxnet/loaders.py _Examples.__getitem__",
            "backends/tensorflow/loaders.py get_dataloader_workers",
            "backends/tensorflow/loaders.py _NativeBatches.__iter__",
        ),
    ),
)
