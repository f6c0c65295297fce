import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import InputError
from pipeline.evaluate.extractor_files import extractor_hash, load_extractor
from pipeline.settings import ExtractorSettings

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
RNG = np.random.default_rng(0)
IMAGES = torch.from_numpy(RNG.uniform(-1, 1, (5, 1, 32, 32)).astype(np.float32))


def onnx_file(path, weights):
    """Mean over positions, then one linear layer (channels, features)."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["features"]),
        ],
        "mean",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", weights.shape[1]])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return ExtractorSettings(name="mean", path=str(path), edge_px=32)


def test_an_onnx_file_gives_the_features_of_its_graph_and_its_hash(tmp_path):
    weights = RNG.normal(size=(3, 7)).astype(np.float32)
    settings = onnx_file(tmp_path / "mean.onnx", weights)
    extractor = load_extractor(settings)
    expected = np.repeat(IMAGES.mean((1, 2, 3)).numpy()[:, None], 3, 1) @ weights  # 0.5 and 0.5 undo the way to [0, 1]
    np.testing.assert_allclose(extractor(IMAGES), expected, atol=1e-5)
    assert extractor_hash(settings) == hashlib.sha256((tmp_path / "mean.onnx").read_bytes()).hexdigest()
    other = load_extractor(settings.model_copy(update={"mean": 0.4}))
    assert other.sha256 != extractor.sha256, "the way images enter belongs to the definition"


@pytest.mark.parametrize("architecture", ["densenet121", "resnet18"])
def test_weights_of_a_named_architecture_give_its_penultimate_features(tmp_path, architecture):
    from monai.networks.nets import DenseNet121, resnet18

    torch.manual_seed(0)
    if architecture == "densenet121":
        network = DenseNet121(2, 1, 4).eval()
    else:
        network = resnet18(spatial_dims=2, n_input_channels=1, num_classes=4, shortcut_type="B").eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    settings = ExtractorSettings(
        name="own", path=str(tmp_path / "w.safetensors"), architecture=architecture, edge_px=32, channels=1
    )
    found = load_extractor(settings)(IMAGES)
    head = network.class_layers.out if architecture == "densenet121" else network.fc
    with torch.no_grad():
        expected = network(IMAGES)
    np.testing.assert_allclose(found @ head.weight.detach().numpy().T + head.bias.detach().numpy(), expected, atol=1e-4)


def test_weights_of_another_architecture_and_absent_files_are_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "w.safetensors")
    path = str(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="architecture that is named"):
        load_extractor(ExtractorSettings(name="own", path=path, architecture="resnet18"))
    with pytest.raises(InputError, match="is a file"):
        extractor_hash(ExtractorSettings(name="own", path=str(tmp_path / "none.onnx")))
