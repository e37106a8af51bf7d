"""The trained part of a classifier: a few directions per person among the features.

A margin softmax over cosines (CosFace, Wang et al. 2018) with sub-centres (Deng et al. 2020): a
person's similarity is that of the closest of their directions, as in a gallery. Knows nothing
about where features come from.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from engine.people.gallery import best_per_person


class CosineHead(nn.Module):
    """One or a few trained directions per person.

    Args:
        prototypes: (m, d) directions to start from.
        owner: (m,) int64 index of the person of each.
        people: how many people.
        margin: by how much the right person's cosine must win, 0 to 1.
        scale: cosines times it are the logits of the loss.
        anchor: how firmly directions are held where they started; 0 lets them go.
    """

    start: Tensor
    owner: Tensor

    def __init__(
        self,
        prototypes: Tensor,
        owner: Tensor,
        people: int,
        *,
        margin: float,
        scale: float,
        anchor: float,
    ) -> None:
        super().__init__()
        self.people = people
        self.margin = margin
        self.scale = scale
        self.anchor = anchor
        self.weight = nn.Parameter(prototypes.clone())
        self.register_buffer("start", normalize(prototypes, dim=1), persistent=False)
        self.register_buffer("owner", owner.clone(), persistent=False)

    @property
    def directions(self) -> Tensor:
        """(m, d) unit directions."""
        return normalize(self.weight, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """(n, d) unit float32 features to (n, people) cosines."""
        # Whatever a network's precision, cosines in half of it are too coarse to be compared.
        with torch.autocast(features.device.type, enabled=False):
            return best_per_person(features, self.directions, self.owner, self.people)

    def loss(self, features: Tensor, truth: Tensor) -> Tensor:
        """The margin softmax's loss, and the pull towards the start.

        Args:
            features: (n, d) unit.
            truth: (n,) int64 index of the person.
        """
        cosines = self(features)
        margins = torch.zeros_like(cosines).scatter_(1, truth[:, None], self.margin)
        loss = cross_entropy((cosines - margins) * self.scale, truth)
        if self.anchor:
            strayed = 1 - (self.directions * self.start).sum(dim=1).mean()
            loss = loss + self.anchor * self.scale * strayed
        return loss
