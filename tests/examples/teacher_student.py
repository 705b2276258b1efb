"""A student learns to predict a frozen teacher's features; on defects, unseen, the two differ."""

from __future__ import annotations

from torch import Tensor, nn

from meds_plugin.encoders.build import build_encoder


class TeacherStudent(nn.Module):
    """Its map is the cosine distance between the teacher's and the student's features."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.teacher = build_encoder(
            model="tf_efficientnet_lite0", image_size=128, layers=[1, 2], pyramid={"stride": 8}
        )
        self.student = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * width, sum(self.teacher.channels), 1),
        )

    def features(self, images: Tensor) -> Tensor:
        return self.teacher.features(images)  # [B, P, D]; for the memory too

    def forward(self, images: Tensor) -> Tensor:
        predicted = self.student(images)
        expected = self.features(images).transpose(1, 2).unflatten(2, self.teacher.grid)
        return 1 - nn.functional.cosine_similarity(predicted, expected)
