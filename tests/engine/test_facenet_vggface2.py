import hashlib
import http.server
import threading

import numpy as np
import pytest
import torch
from facenet_pytorch import InceptionResnetV1

from engine.errors import WeightsError
from engine.vision.embed.facenet_vggface2 import WEIGHTS, FacenetVggface2
from engine.vision.weights import WeightsFile

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release file like the real one, of random weights, on a local server."""
    folder = tmp_path_factory.mktemp("release")
    torch.manual_seed(5)
    state = InceptionResnetV1(classify=True, num_classes=10).state_dict()
    torch.save(state, folder / "random.pt")
    content = (folder / "random.pt").read_bytes()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, directory=folder, **named)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield WeightsFile(
        name="random.pt",
        url=f"http://127.0.0.1:{server.server_port}/random.pt",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="none",
    )
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetches_its_weights_and_embeds(release, tmp_path):
    embedder = FacenetVggface2(CPU, tmp_path, release)
    crops = np.random.default_rng(1).integers(0, 256, (3, 160, 160, 3), np.uint8)
    vectors = embedder.embed(crops)
    assert vectors.shape == (3, 512)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert embedder.embed(crops[:0]).shape == (0, 512)
    assert (tmp_path / "random.pt").is_file()


def test_gives_what_the_network_gives(release, tmp_path):
    embedder = FacenetVggface2(CPU, tmp_path, release)
    crop = np.random.default_rng(2).integers(0, 256, (1, 160, 160, 3), np.uint8)
    network = InceptionResnetV1(classify=False).eval()
    state = torch.load(tmp_path / "random.pt", weights_only=True)
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("logits")})
    pixels = (torch.from_numpy(crop).permute(0, 3, 1, 2).float() - 127.5) / 128
    with torch.inference_mode():
        both = network(pixels) + network(pixels.flip(3))
    expected = both / both.norm()
    torch.testing.assert_close(embedder.embed(crop), expected, atol=1e-4, rtol=0)


def test_another_file_in_its_place_is_refused(release, tmp_path):
    broken = WeightsFile("b.pt", "http://127.0.0.1:1/b.pt", 3, "0" * 64, "none")
    (tmp_path / "b.pt").write_bytes(b"abc")
    with pytest.raises(WeightsError):
        FacenetVggface2(CPU, tmp_path, broken)


def test_the_release_file_is_the_one_of_the_design():
    assert WEIGHTS.size_bytes == 111_898_327
    assert WEIGHTS.sha256.startswith("281cebca8662831adb987a874bdcb36e")
