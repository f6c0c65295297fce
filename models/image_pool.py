"""History of fake images, so that D does not forget what G used to do.

Until it is full, the pool keeps every fake and returns it. Then each fake is, with probability ½, returned as it is,
and otherwise takes the place of a random older fake, which is returned instead (Shrivastava 2017, section 2.3; Zhu
2017, section 4).
"""

import torch
from torch import Tensor

from models.rules import broken_rule


class ImagePool:
    """Up to `size` past fakes.

    Args:
        size: images kept, 50 in Zhu 2017; 0 returns every fake as it is.
    """

    def __init__(self, size: int = 50) -> None:
        if size < 0:
            raise broken_rule(
                "an image pool cannot hold fewer than no images",
                found=size,
                allowed="whole numbers ≥ 0",
                change="set `pool_size`, 50 in the paper",
            )
        self.size = size
        self._images: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._images)

    def query(self, fakes: Tensor, rng: torch.Generator) -> Tensor:
        """Exchange a batch of new fakes for a batch of new and old ones.

        Args:
            fakes: (N, C, H, W), always of one size.
            rng: generator; 2 N numbers are drawn at every call.

        Returns:
            (N, C, H, W) without graph.
        """
        if self.size == 0:
            return fakes.detach()
        swap = (torch.rand(len(fakes), generator=rng, device=rng.device) < 0.5).tolist()
        place = torch.randint(self.size, (len(fakes),), generator=rng, device=rng.device).tolist()
        chosen: list[Tensor] = []
        for i, fake in enumerate(fakes.detach().clone()):
            if len(self._images) < self.size:
                self._images.append(fake)
                chosen.append(fake)
            elif swap[i]:
                chosen.append(self._images[place[i]])
                self._images[place[i]] = fake
            else:
                chosen.append(fake)
        return torch.stack(chosen)

    def state_dict(self) -> dict[str, Tensor]:
        """All images as one tensor (n, C, H, W), in order; shape (0,) while the pool is empty."""
        return {"images": torch.stack(self._images) if self._images else torch.empty(0)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the images in order.

        Raises:
            ValueError: more images than the pool can hold.
        """
        images = state["images"]
        if len(images) > self.size:
            raise broken_rule(
                "a stored image pool must fit into the pool",
                found=f"{len(images)} images",
                allowed=f"at most {self.size}",
                change="resume with the `pool_size` of the first run",
            )
        self._images = list(images.clone())
