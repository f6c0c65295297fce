"""A small image classifier and its training with a fixed budget.

The classifier serves as the judge of downstream utility (the same network and the same number of optimizer steps for
every arm) and, trained on real images, as a feature extractor. Four blocks of convolution, batch normalization, ReLU
and pooling, then the mean over positions and one linear layer: a small relative of VGG (Simonyan and Zisserman, 2014)
with about 100,000 weights.

Training: AdamW (Loshchilov and Hutter, 2019) with a cosine schedule, batches balanced over the classes. All randomness
comes from one seed; on a CPU two runs give the same weights bit for bit.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.lesion_gan.backbone import BackboneClassifier
from pipeline.errors import InputError, TrainingError

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""A batch (N, C, H, W) in [-1, 1] and a generator in, a new batch of the same shape out."""

Progress = Callable[[int, int], None]
"""Called after every step with the images seen so far and the images in all."""


class SmallClassifier(nn.Module):
    """Four convolution blocks and a linear layer.

    Args:
        in_channels: channels C of the images.
        num_classes: number of classes.
        width: channels of the first block; the later ones have 2, 4 and 8 times as many. 16 gives 98,000 weights.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.in_channels, self.num_classes, self.width = in_channels, num_classes, width
        widths = [in_channels, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(*(_block(widths[n], widths[n + 1]) for n in range(4)))
        self.head = nn.Linear(widths[-1], num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (N, 8 * width) of images (N, C, H, W) in [-1, 1], H and W at least 16."""
        pooled: Tensor = self.blocks(images).mean(dim=(2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W) in [-1, 1]."""
        logits: Tensor = self.head(self.features(images))
        return logits


class NamedClassifier(nn.Module):
    """A MONAI network with the layer before the classes laid open; 2-D, random weights.

    Args:
        architecture: ``densenet121`` (Huang et al., 2017) or ``resnet18`` (He et al., 2016).
        in_channels: channels C of the images.
        num_classes: number of classes.
    """

    def __init__(self, architecture: str, in_channels: int, num_classes: int) -> None:
        super().__init__()
        from monai.networks.nets import DenseNet121, resnet18  # takes seconds to import, needed only where asked for

        self.in_channels, self.num_classes = in_channels, num_classes
        if architecture == "densenet121":
            self.body = DenseNet121(2, in_channels, num_classes)
            width = self.body.class_layers.out.in_features
            self.body.class_layers.out = nn.Identity()
        else:
            self.body = resnet18(
                spatial_dims=2, n_input_channels=in_channels, num_classes=num_classes, shortcut_type="B"
            )
            width = self.body.fc.in_features
            self.body.fc = nn.Identity()
        self.head = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (N, d) of images (N, C, H, W) in [-1, 1], H and W at least 32."""
        found: Tensor = self.body(images)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W) in [-1, 1]."""
        logits: Tensor = self.head(self.features(images))
        return logits


Classifier = SmallClassifier | NamedClassifier
Judge = Classifier | BackboneClassifier
"""Whatever tells classes apart; a backbone's features are those of a GAN."""


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.AvgPool2d(2),
    )


def train_classifier(
    images: Tensor,
    classes: Tensor,
    num_classes: int,
    *,
    steps: int,
    seed: int,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    width: int = 16,
    augment: Augment | None = None,
    progress: Progress | None = None,
    network: str = "small_cnn",
) -> Classifier:
    """Train a classifier for a fixed number of steps with batches balanced over the classes.

    Args:
        images: (N, C, H, W) in [-1, 1], float32; H and W at least 16.
        classes: (N,) integers in 0 .. num_classes - 1; every class must occur.
        num_classes: number of classes, at least two.
        steps: optimizer steps, at least one.
        seed: seed of weights, sampling and augmentation.
        batch_size: images in a batch.
        learning_rate: highest learning rate; it falls to zero along a cosine.
        weight_decay: decoupled weight decay.
        width: see `SmallClassifier`.
        augment: changes each batch; None trains on the images as they are.
        progress: called after every step.
        network: ``small_cnn``, or an architecture of `NamedClassifier`.

    Returns:
        The trained classifier in evaluation mode, on the device of `images`.

    Raises:
        InputError: shapes, sizes or classes are not as described.
        TrainingError: the loss is not finite.
    """
    _check(images, classes, num_classes, steps, batch_size)
    rng = torch.Generator().manual_seed(seed)
    model: Classifier
    if network == "small_cnn":
        model = _initialized(images.shape[1], num_classes, width, rng)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = NamedClassifier(network, images.shape[1], num_classes)
    fit_classifier(
        model.to(images.device),
        images,
        classes,
        num_classes,
        steps=steps,
        rng=rng,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        augment=augment,
        progress=progress,
    )
    return model


def fit_classifier(
    model: Judge,
    images: Tensor,
    classes: Tensor,
    num_classes: int,
    *,
    steps: int,
    rng: torch.Generator,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    augment: Augment | None = None,
    progress: Progress | None = None,
) -> None:
    """Train a network that is there already, as `train_classifier` does, and leave it in evaluation mode.

    Args:
        model: on the device of `images`; of a frozen backbone the head alone is trained.
        images: as there.
        classes: as there.
        num_classes: as there.
        steps: as there.
        rng: draws batches and augmentation.
        batch_size: as there.
        learning_rate: as there.
        weight_decay: as there.
        augment: as there.
        progress: as there.

    Raises:
        InputError, TrainingError: as `train_classifier`.
    """
    _check(images, classes, num_classes, steps, batch_size)
    own = model.trained_parameters() if isinstance(model, BackboneClassifier) else model.parameters()
    optimizer = torch.optim.AdamW(own, lr=learning_rate, weight_decay=weight_decay)
    model.train()
    members = [torch.nonzero(classes.cpu() == index).flatten() for index in range(num_classes)]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = balanced_batch(members, batch_size, rng).to(images.device)
        batch = images[chosen] if augment is None else augment(images[chosen], rng)
        loss = F.cross_entropy(model(batch), classes[chosen].long())
        if not torch.isfinite(loss):
            raise TrainingError(
                "Training of the classifier must stay finite.",
                found=f"loss {float(loss.detach())} at step {step + 1}",
                allowed="finite losses",
                change="Check the images for NaN, or lower the learning rate.",
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        if progress is not None:
            progress((step + 1) * batch_size, steps * batch_size)
    model.eval()


def balanced_batch(members: list[Tensor], batch_size: int, rng: torch.Generator) -> Tensor:
    """Indices (batch_size,) of images: first a class, every class equally likely, then an image of that class.

    Args:
        members: per class the indices of its images, none empty.
        batch_size: number of indices.
        rng: generator on the CPU.
    """
    drawn_classes = torch.randint(len(members), (batch_size,), generator=rng)
    position = torch.rand(batch_size, generator=rng)
    sizes = torch.tensor([len(indices) for indices in members])
    starts = sizes.cumsum(0) - sizes
    # float32 can round rand * size up to size itself.
    within = torch.minimum((position * sizes[drawn_classes]).long(), sizes[drawn_classes] - 1)
    return torch.cat(members)[starts[drawn_classes] + within]


@torch.no_grad()
def predict(model: Judge, images: Tensor, batch_size: int = 256) -> Tensor:
    """Class probabilities (N, num_classes), float32 on the CPU, of images (N, C, H, W) in [-1, 1].

    The model is run in evaluation mode and left in the mode it was in.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    probabilities = [
        torch.softmax(model(batch.to(device)), dim=1).float().cpu() for batch in torch.split(images, batch_size)
    ]
    model.train(training)
    return torch.cat(probabilities) if len(images) else torch.zeros(0, model.num_classes)


def _initialized(in_channels: int, num_classes: int, width: int, rng: torch.Generator) -> SmallClassifier:
    """A classifier whose weights come from `rng` alone; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        model = SmallClassifier(in_channels, num_classes, width)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
    nn.init.normal_(model.head.weight, std=1 / math.sqrt(model.head.in_features), generator=rng)
    nn.init.zeros_(model.head.bias)
    return model


def _check(images: Tensor, classes: Tensor, num_classes: int, steps: int, batch_size: int) -> None:
    sizes_fit = images.ndim == 4 and classes.shape == images.shape[:1] and min(images.shape[2:], default=0) >= 16
    if not sizes_fit or steps < 1 or batch_size < 2:
        raise InputError(
            "A classifier is trained on images with one class each.",
            found=f"images {tuple(images.shape)}, classes {tuple(classes.shape)}, steps {steps}, batch {batch_size}",
            allowed="images (N, C, H, W) with H, W >= 16, classes (N,), steps >= 1, batch_size >= 2",
            change="Check the prepared images and the evaluation settings.",
        )
    present = torch.unique(classes).tolist()
    if num_classes < 2 or present != list(range(num_classes)):
        raise InputError(
            "Every class needs at least one training image.",
            found=f"{num_classes} classes, images of classes {present}",
            allowed=f"at least two classes, each of 0 .. {num_classes - 1} present",
            change="Drop the empty class from the settings, or add images of it.",
        )
