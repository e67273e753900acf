"""The losses of the default objective: on [Ret], with the teacher's features, and on relation logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.papers.zse.teacher import Teacher


def bank_loss(ret: torch.Tensor, labels: torch.Tensor, teacher: Teacher, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding an image's class among the teacher's photos.

    A class's logit is the log of the mean of exp(cosine / temperature) over its photos, so that large classes
    weigh no more than small ones. ret: (b, d); labels: (b,) int64 training classes.
    """
    cosines = F.normalize(ret, dim=1) @ teacher.features.T / temperature
    # Cosines are at most 1, so this shift keeps the exponentials finite.
    mass = torch.exp(cosines - 1 / temperature)
    labelled = teacher.labelled
    known = teacher.labels[labelled]
    sums = torch.zeros(len(ret), teacher.classes, dtype=mass.dtype).index_add(1, known, mass[:, labelled])
    means = sums / torch.bincount(known, minlength=teacher.classes)
    return F.cross_entropy(means.clamp(min=1e-30).log(), labels)


def contrast_loss(sketches: torch.Tensor, photos: torch.Tensor, temperature: float) -> torch.Tensor:
    """The list-wise loss of the cosines of [Ret], over a batch's own photos.

    sketches: (k * c, d), the k sketches of each class together; photos: (c, d), one of each class.
    """
    cosines = F.normalize(sketches, dim=1) @ F.normalize(photos, dim=1).T / temperature
    matrices = cosines.view(len(photos), -1, len(photos)).unbind(dim=1)
    return torch.stack([listwise_loss(logits) for logits in matrices]).mean()


def instance_loss(ret: torch.Tensor, photos: torch.Tensor, teacher: Teacher, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding, among the teacher's photos, the one that an image was drawn from.

    ret: (b, d); photos: (b,) int64 rows of the teacher's photos. 0 where b is 0.
    """
    if not len(ret):
        return ret.sum()
    return F.cross_entropy(F.normalize(ret, dim=1) @ teacher.features.T / temperature, photos)


def mates_loss(ret: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding, among the other images of a batch, those of the same class.

    It pulls the sketches of a class together without any photo of it. ret: (b, d); labels: (b,) int64; a class with one
    image is only among the others.
    """
    features = F.normalize(ret, dim=1)
    itself = torch.eye(len(ret), dtype=torch.bool)
    logits = (features @ features.T / temperature).masked_fill(itself, -torch.inf)
    same = (labels[:, None] == labels[None]) & ~itself
    log_probabilities = logits.log_softmax(dim=1).masked_fill(~same, 0.0)
    having = same.any(dim=1)
    return -(log_probabilities.sum(dim=1)[having] / same.sum(dim=1)[having]).mean()


def label_loss(ret: torch.Tensor, targets: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    """Cross-entropy between the teacher's classifier, applied to ``ret`` (b, d), and class probabilities (b, k)."""
    log_probabilities = F.linear(ret, teacher.head_weight, teacher.head_bias).log_softmax(dim=1)
    return -(targets * log_probabilities).sum(dim=1).mean()


def teacher_loss(ret: torch.Tensor, photos: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    """One minus the cosine between [Ret] (b, d) and the teacher's feature of the same photos (b,)."""
    return (1 - F.cosine_similarity(ret, teacher.features[photos], dim=1)).mean()


def listwise_loss(logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the rows and over the columns of a pair matrix (c, c) whose diagonal matches."""
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def calibration_loss(logits: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the pair matrix (c, c); matching pairs together weigh as much as all others.

    It trains only the bias, which does not change the list-wise loss, so that relation scores become probabilities.
    """
    target = torch.eye(len(logits))
    weight = torch.where(target > 0, 0.5 / len(logits), 0.5 / max(1, target.numel() - len(logits)))
    level = logits.detach() - bias.detach() + bias
    return F.binary_cross_entropy_with_logits(level, target, weight=weight, reduction="sum")
