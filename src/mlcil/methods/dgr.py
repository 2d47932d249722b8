"""DGR: continual learning with deep generative replay (Shin et al., NeurIPS 2017), as in ABD's tables.

A variational auto-encoder learns beside the classifier, from the same images and with the same optimiser;
in the next session its frozen copy makes the old images. Images are used as they are, in [0, 1].

Legend: B real images (and as many replayed ones), C classes seen so far, O old classes, Z latent values.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.classification import class_labels, share_weights, weighted_cross_entropy
from mlcil.losses.distillation import soft_target_kd
from mlcil.methods.base import Batch, Method, SessionContext, as_pixels
from mlcil.methods.data_free import SHEET
from mlcil.models.generators import VAE, draw_latents
from mlcil.models.inversion import SHEET_BATCH, SHEET_BATCHES, first_of_each
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS
from mlcil.schema import AboveZero, Count, Weight


@METHODS.register_module()
class DGR(Method):
    """Weighted cross-entropy on real and replayed images, soft targets on replayed ones, and the VAE's bound.

    Args:
        network: backbone with a linear head; mean 0 and std 1.
        mu: weight of the distillation.
        temperature: T of the soft targets.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: the auto-encoder does not take images of that size.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        mu: Weight = 1.0,
        temperature: AboveZero = 2.0,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.mu, self.temperature = mu, temperature
        self.vae = VAE(network.spec["image_size"])
        self._old_vae: list[VAE] = []  # in a list, so that it is no sub-module

    def begin_session(self, context: SessionContext) -> None:
        super().begin_session(context)
        self._old_vae = [copy.deepcopy(self.vae).eval().requires_grad_(False)] if context.index > 0 else []

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        inputs, labels_B = batch.inputs, class_labels(batch.targets)
        noise_BZ = self.latents(len(inputs) * (2 if self._old_vae else 1))
        if not self._old_vae:
            logits_BC = at_least_float32(self.network(inputs).logits_BC)
            losses = {"loss_ce": weighted_cross_entropy(logits_BC, labels_B)}
            return {**losses, "loss_vae": self.vae_loss(inputs, noise_BZ)}
        with torch.no_grad():
            replayed = self._old_vae[0].decode(self.latents(len(inputs)))
        return self.session_loss(inputs, labels_B, replayed, noise_BZ)

    def session_loss(self, inputs: Tensor, labels_B: Tensor, replayed: Tensor, noise_2BZ: Tensor) -> dict[str, Tensor]:
        """The losses of a later session; ``replayed`` (B, 3, H, W) in [0, 1] get the old network's labels."""
        assert self.context is not None
        old_BO = self.teacher_output(replayed).logits_BC
        labels_2B = torch.cat([labels_B, old_BO.argmax(1)])
        weights_2B = share_weights(labels_2B, self.context.low, self.context.high)
        images = torch.cat([inputs, replayed])
        logits_2BC = at_least_float32(self.network(images).logits_BC)
        losses = self.classifier_loss(logits_2BC, labels_2B, old_BO, weights_2B)
        return {**losses, "loss_vae": self.vae_loss(images, noise_2BZ, weights_2B)}

    def classifier_loss(
        self, logits_2BC: Tensor, labels_2B: Tensor, old_BO: Tensor, weights_2B: Tensor
    ) -> dict[str, Tensor]:
        """Classification of all images, distillation of the last half, whose teacher's logits are ``old_BO``."""
        kept = soft_target_kd(logits_2BC[-len(old_BO) :, : old_BO.shape[1]], old_BO, self.temperature)
        return {"loss_ce": weighted_cross_entropy(logits_2BC, labels_2B, weights_2B), "loss_kd": self.mu * kept}

    def vae_loss(self, images: Tensor, noise_BZ: Tensor, weights_B: Tensor | None = None) -> Tensor:
        """Reconstruction and divergence; its gradient reaches the auto-encoder only."""
        with torch.autocast(images.device.type, enabled=False):
            reconstruction, mean_BZ, log_variance_BZ = self.vae(images, noise_BZ)
            bound = variational_loss(mean_BZ, log_variance_BZ, images[0].numel())
            return reconstruction_loss(reconstruction, images, weights_B) + bound

    def latents(self, count: int) -> Tensor:
        """(count, Z), see :func:`~mlcil.models.generators.draw_latents`."""
        return draw_latents(count, self.vae.latent, next(self.vae.parameters()))

    @torch.inference_mode()
    def made_images(self) -> tuple[np.ndarray, np.ndarray] | None:
        if not self._old_vae:
            return None
        source = torch.Generator().manual_seed(0)
        latents_BZ = torch.randn(SHEET_BATCH * SHEET_BATCHES, self.vae.latent, generator=source)
        images = self._old_vae[0].decode(latents_BZ.to(next(self.vae.parameters())))
        shown, labels_N = first_of_each(images, self.teacher_output(images).logits_BC.argmax(1), SHEET)
        return as_pixels(shown), labels_N.cpu().numpy()

    def method_state(self) -> dict[str, Any]:
        old = self._old_vae[0].state_dict() if self._old_vae else None
        return {"vae": self.vae.state_dict(), "old_vae": old}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.vae.load_state_dict(state["vae"])
        if self._old_vae and state["old_vae"] is not None:
            self._old_vae[0].load_state_dict(state["old_vae"])


def reconstruction_loss(reconstruction: Tensor, images: Tensor, weights_B: Tensor | None = None) -> Tensor:
    """mean_i(w_i BCE_i) with the binary cross-entropy averaged over the values of image i, both in [0, 1]."""
    cost_B = F.binary_cross_entropy(reconstruction, images, reduction="none").flatten(1).mean(1)
    return (cost_B if weights_B is None else cost_B * weights_B).mean()


def variational_loss(mean_BZ: Tensor, log_variance_BZ: Tensor, values: int) -> Tensor:
    """KL to N(0, I), averaged over the images and divided by the ``values`` of an image."""
    kl_B = -0.5 * (1 + log_variance_BZ - mean_BZ.square() - log_variance_BZ.exp()).sum(1)
    return kl_B.mean() / values
