import subprocess
import sys

import pytest
import torch

from engine.vision import mtcnn


@pytest.mark.parametrize(
    ("build", "original", "size_px"),
    [
        (mtcnn.p_net, "PNet", (40, 50)),
        (mtcnn.r_net, "RNet", (24, 24)),
        (mtcnn.o_net, "ONet", (48, 48)),
    ],
)
def test_a_network_is_facenet_pytorchs(build, original, size_px):
    from facenet_pytorch.models import mtcnn as theirs

    crops = torch.randn(5, 3, *size_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        told, expected = build()(crops), getattr(theirs, original)().eval()(crops)
    for own, other in zip(told, expected, strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize(("count", "groups"), [(0, 1), (1, 1), (300, 1), (600, 9), (3000, 40)])
def test_covered_boxes_go_as_with_torchvision(count, groups):
    from torchvision.ops import batched_nms

    lot = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=lot) * 300
    boxes = torch.cat([corner, corner + 12 + torch.rand(count, 2, generator=lot) * 60], dim=1)
    scores = torch.randperm(count, generator=lot) / max(1, count)
    group = torch.randint(0, groups, (count,), generator=lot)
    kept = mtcnn.batched_nms(boxes, scores, group, 0.5)
    assert torch.equal(kept, batched_nms(boxes, scores, group, 0.5))


def test_windows_are_resized_as_by_torchvision():
    from torchvision.ops import roi_align

    pixels = torch.rand(2, 3, 60, 80, generator=torch.Generator().manual_seed(2))
    rois = torch.tensor([[0, 3.5, 4, 40, 44], [1, 0, 0, 80, 60]])
    expected = roi_align(pixels, rois, 24, sampling_ratio=2, aligned=True)
    assert torch.equal(mtcnn.roi_align(pixels, rois, 24), expected)


def test_the_way_of_a_photo_imports_no_package_that_takes_longer_than_torch():
    program = (
        "import sys, engine.pipeline; "
        "print({'torchvision', 'facenet_pytorch', 'torch._dynamo'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("set()\n", "")
