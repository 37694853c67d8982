import sys

import pytest
import torch
from make_data import tiny_method
from torch.utils import _pytree as pytree

from kshot.errors import ModelError
from kshot.models.kernels.openvino import TELEMETRY, OpenVinoEncoder, import_openvino

pytestmark = pytest.mark.openvino


@pytest.mark.parametrize("reads", ["features", "support_features"])
def test_openvino_reads_what_torch_reads(reads):
    method = tiny_method("two-pass")
    read = getattr(method, reads)
    reader = OpenVinoEncoder(read, "fp32")
    with torch.inference_mode():
        for images in torch.rand(2, 1, 3, 65, 65):
            expected, found = read(images), reader(images)
            assert pytree.tree_structure(found) == pytree.tree_structure(expected)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_other_shapes_get_graphs_of_their_own():
    reader = OpenVinoEncoder(lambda images: (images.mean(dim=1), None), "fp32")
    for shape in ((1, 3, 8, 9), (2, 3, 5, 5), (1, 3, 8, 9)):
        images = torch.rand(shape)
        mean, nothing = reader(images)
        torch.testing.assert_close(mean, images.mean(dim=1))
        assert nothing is None
    assert len(reader._graphs) == 2


def test_fine_maps_stay_fp32_under_bf16():
    first, second = torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.Conv2d(8, 8, 3, stride=8)

    def read(images):
        fine = first(images)
        return fine, second(fine * fine.mean(dim=(2, 3), keepdim=True))

    for convolution in (first, second):
        convolution.requires_grad_(False)
    reader, images = OpenVinoEncoder(read, "bf16"), torch.rand(1, 3, 65, 65)
    fine, coarse = reader(images)
    torch.testing.assert_close(fine, read(images)[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(coarse, read(images)[1], rtol=0.02, atol=0.02)
    (graph,) = reader._graphs.values()
    hints = [part.get_property("INFERENCE_PRECISION_HINT").get_type_name() for part in graph.parts]
    # OpenVINO computes in fp32 where the processor has no bf16.
    has_bf16 = "BF16" in import_openvino()[0].Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert hints == ["f32", "bf16" if has_bf16 else "f32"]


def test_what_openvino_cannot_run_is_a_model_error():
    def read(images):
        return torch.linalg.qr(images)[0]

    with pytest.raises(ModelError, match=r"OpenVINO cannot run this model .*Use the engine torch"):
        OpenVinoEncoder(read, "fp32")(torch.rand(1, 3, 4, 4))


def test_openvinos_telemetry_stays_out():
    import_openvino()
    assert not [name for name in sys.modules if name.startswith(TELEMETRY)]
