"""What a training is made of: enough for another process to build the same one."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel

from models.ranks import Ranks
from pipeline.prepared_set import read_image_set, read_volume_set
from pipeline.settings import TrainLesionsSettings, TrainMRToCTSettings
from pipeline.train.lesion_training import LesionTraining
from pipeline.train.mr_to_ct_training import MRToCTTraining


class Assignment(BaseModel, frozen=True):
    """One training.

    Attributes:
        track: which of the two.
        settings: its settings, as JSON.
        seed: of every random draw.
        prepared: folder of the prepared set.
        device: kind of device.
        device_turns: see the settings of that name.
    """

    track: Literal["lesions", "mr_to_ct"]
    settings: str
    seed: int
    prepared: Path
    device: str
    device_turns: str

    def build(self, device: torch.device, ranks: Ranks) -> LesionTraining | MRToCTTraining:
        """The networks at their start, and the data.

        Args:
            device: where the networks live.
            ranks: who shares each batch.

        Raises:
            InputError: the training split lacks what the settings need.
        """
        if self.track == "lesions":
            lesions = TrainLesionsSettings.model_validate_json(self.settings)
            return LesionTraining(read_image_set(self.prepared), lesions, self.seed, device, ranks)
        mr_to_ct = TrainMRToCTSettings.model_validate_json(self.settings)
        return MRToCTTraining(read_volume_set(self.prepared), mr_to_ct, self.seed, device, ranks)
