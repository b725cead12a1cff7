"""The app over HTTP: verdicts, polite errors, hostile uploads, files that are not served, and files that go."""

import concurrent.futures
import json
import pathlib
import re
import signal
import socket
import uuid

import numpy as np
import pytest
from ml_collections import ConfigDict

pytest.importorskip("gradio", reason="the app needs Gradio: pip install msddf_jax[app]")
import httpx
from absl import flags
from app_server import fake_face_models, make_workdir, running_app
from hostile_files import MARKER, clip, hostile_files, picture
from test_verdict import make_calibration

from msddf_jax import app, inference
from msddf_jax.faces import extract
from msddf_jax.show import uploads, verdict

CALIBRATION = make_calibration(0.5, 0.25, fitted_on="toy_val")
MEGABYTES = 2
CLIENT = httpx.Client(timeout=120, trust_env=False)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make_workdir(tmp_path_factory.mktemp("app") / "run", CALIBRATION)


@pytest.fixture(scope="module")
def server(workdir):
    """(address, process id, folder of temporary files) of a running app."""
    temporary = workdir.parent / "temporary"
    with running_app(workdir, temporary, max_bytes=MEGABYTES * 2**20, max_work_seconds=60.0) as running:
        yield running
    assert not list(temporary.glob("msddf_jax_app_*")), "the folder of temporary files is still there"


def multipart(data, name=b"face.png", count=1):
    """Content type and body of an upload, with any bytes for a name."""
    boundary = uuid.uuid4().hex
    head = b'Content-Disposition: form-data; name="files"; filename="%s"\r\n\r\n' % name
    parts = [b"--" + boundary.encode() + b"\r\n" + head + data + b"\r\n"] * count
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + b"--" + boundary.encode() + b"--\r\n"


def upload(url, data, name=b"face.png", count=1):
    kind, body = multipart(data, name, count)
    return CLIENT.post(f"{url}/gradio_api/upload", content=body, headers={"content-type": kind})


def ask(url, path):
    """HTML of the answer on an uploaded file."""
    session = uuid.uuid4().hex[:12]
    request = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}], "fn_index": 0, "session_hash": session}
    joined = CLIENT.post(f"{url}/gradio_api/queue/join", json=request)
    assert joined.status_code == 200, joined.text
    with CLIENT.stream("GET", f"{url}/gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                message = json.loads(line[5:])
                if message["msg"] == "process_completed":
                    assert message["success"], message
                    cleared, html = message["output"]["data"]
                    assert cleared is None
                    return html
    raise AssertionError("the stream ended without an answer")


def check(url, data, name=b"face.png"):
    response = upload(url, data, name)
    assert response.status_code == 200, response.text
    return ask(url, response.json()[0])


def code(html):
    """The code of an error, of the page or of a refused upload, or "verdict"."""
    if 'class="msddf-result"' in html:
        return "verdict"
    return re.search(r'role="alert">.*<code>(\w+)</code>|^[^<]* \[(\w+)\]$', html).group(1, 2)[html[0] != "<"]


def peak_memory(pid):
    """Bytes at most resident so far, of a process and its children, each."""
    pids = [pid, *map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    status = [pathlib.Path(f"/proc/{p}/status").read_text() for p in pids]
    return [int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024 for text in status]


def test_an_image_gets_a_verdict(server):
    url, _, folder = server
    path = upload(url, picture()).json()[0]
    html = ask(url, path)
    again = CLIENT.post(
        f"{url}/gradio_api/queue/join", json={"data": [{"path": path}], "fn_index": 0, "session_hash": "x"}
    )
    assert again.status_code == 400 and "waits here" in again.text
    assert code(html) == "verdict" and "probability of fake" in html and "Calibrated on toy_val" in html
    assert "1 face." in html and "Over time" not in html and 'src="http' not in html
    assert html.count("data:image/jpeg;base64,") == 2  # face and map
    assert not list(folder.iterdir())


def test_a_video_gets_a_timeline(server, tmp_path):
    html = check(server[0], clip(tmp_path, 20), b"clip.mp4")
    assert code(html) == "verdict" and "8 of 8 sampled frames" in html
    assert html.count('class="above"') == 8 and html.count("<figure>") == verdict.MAX_SHOWN
    assert not list(server[2].iterdir())


# What becomes of some of the hostile files; of the others, any verdict or error that is polite.
EXPECTED = {
    "nothing": "empty_file",
    "html": "unsupported_type",
    "svg": "unsupported_type",
    "zip bomb": "unsupported_type",
    "playlist": "unsupported_type",
    "png of 60000x60000": "image_too_large",
    "jpeg of 65500x65500": "image_too_large",
    "png of 36 megapixels": "no_face",
    "png cut off": "corrupt_image",
    "jpeg and script": "verdict",
    "mp4 of 10,000 frames": "video_too_long",
    "mp4 of 10,000 frames, fast": "no_face",
    "mp4 with sound only": "unreadable_video",
    "name that climbs": "verdict",
    "name with a null": "verdict",
    "name that is long": "bad_request",
}


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_fifty_hostile_uploads(server, tmp_path):
    url, pid, folder = server
    files = hostile_files(tmp_path)
    assert len(files) >= 50
    check(url, picture())  # what the process has needed before
    before, answers = max(peak_memory(pid)), {}
    for what, (data, name) in files.items():
        response = upload(url, data, name)
        assert response.status_code in (200, 400), (what, response.text)
        if response.status_code == 400:
            answers[what] = json.loads(response.text)["detail"]
            assert answers[what].endswith("[bad_request]"), what
            continue
        [path] = response.json()
        assert re.fullmatch(re.escape(str(folder)) + "/[0-9a-f]{32}/upload", path), what
        assert pathlib.Path(path).read_bytes().endswith(data)
        served = [CLIENT.get(f"{url}/{route}{path}") for route in ("gradio_api/file=", "file=", "gradio_api/file/")]
        assert {answer.status_code for answer in served} == {404}, what
        answers[what] = ask(url, path)
        assert code(answers[what]) and "internal" not in code(answers[what]), (what, answers[what])
        assert not list(folder.iterdir()), what
    for what, answer in answers.items():
        assert MARKER.decode() not in answer and "<script" not in answer and str(folder) not in answer, what
    assert {what: code(answers[what]) for what in EXPECTED} == EXPECTED
    peaks = peak_memory(pid)
    print("codes", {what: code(answer) for what, answer in answers.items()})
    print("peak before", before // 2**20, "after", [peak // 2**20 for peak in peaks], "MB")
    assert max(peaks) < before + 700 * 2**20
    assert code(check(url, picture())) == "verdict"


def test_ten_at_once_are_all_answered(server, tmp_path):
    video = clip(tmp_path, 10)
    files = [video if i % 2 else picture() for i in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda data: code(check(server[0], data)), files))
    assert answers == ["verdict"] * 10
    assert not list(server[2].iterdir())


def test_too_many_bytes(server):
    url, _, folder = server
    response = upload(url, bytes(MEGABYTES * 2**20 + 1))
    assert response.status_code == 413 and "at most 2 MB" in response.text
    assert upload(url, bytes(4 * MEGABYTES * 2**20)).status_code == 413
    assert upload(url, bytes(10), count=2).status_code == 400
    assert CLIENT.post(f"{url}/gradio_api/upload", content=b"x").status_code == 400
    assert not list(folder.iterdir())


SECRETS = ["/etc/passwd", "../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "http://127.0.0.1:1/x"]


@pytest.mark.parametrize("route", ["gradio_api/file=", "file=", "gradio_api/file/", "gradio_api/proxy=", "static/"])
@pytest.mark.parametrize("path", SECRETS)
def test_no_file_is_served(server, route, path):
    # By hand: a client would tidy up the path.
    address = httpx.URL(server[0])
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        connection.sendall(f"GET /{route}{path} HTTP/1.1\r\nHost: {address.host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.match(rb"HTTP/1.1 (404|403|400) ", answer), answer[:200]
    assert b"root:" not in answer


@pytest.mark.parametrize("path", [*SECRETS, "", None, 7, {"path": "/etc/passwd"}])
def test_the_queue_takes_only_what_was_uploaded(server, path):
    for data in ([{"path": path}], [{"path": path, "url": "http://127.0.0.1:1/"}], [], path):
        request = {"data": data, "fn_index": 0, "session_hash": "x"}
        response = CLIENT.post(f"{server[0]}/gradio_api/queue/join", json=request)
        assert response.status_code == 400 and "[bad_request]" in response.text


def test_other_routes_and_other_origins_are_refused(server):
    url = server[0]
    for method, path in [
        ("POST", "/gradio_api/run/check"),
        ("POST", "/gradio_api/api/check"),
        ("POST", "/gradio_api/call/check"),
        ("POST", "/gradio_api/component_server"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("GET", "/gradio_api/runs"),
    ]:
        assert CLIENT.request(method, url + path, json={} if method == "POST" else None).status_code == 404, path
    elsewhere = {"origin": "http://example.org"}
    assert CLIENT.get(url, headers=elsewhere).status_code == 403
    kind, body = multipart(picture())
    asked = CLIENT.post(f"{url}/gradio_api/upload", content=body, headers={"content-type": kind, **elsewhere})
    assert asked.status_code == 403 and not list(server[2].iterdir())


def test_the_page_needs_no_network_and_tells_nobody(server, workdir):
    page, config = CLIENT.get(server[0]), CLIENT.get(f"{server[0]}/config").json()
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    loaded = re.findall(r"<(?:script|link)[^>]+(?:src|href)=[\"'](\w+:)?//", page.text)
    assert not loaded and config["analytics_enabled"] is False
    assert "What the score does not mean" in json.dumps(config)
    assert not (workdir.parent / "temporary" / "network.txt").exists()


# Of a config, what scoring asks it: images, no clips.
IMAGES = ConfigDict({"data": {}})


def test_a_verdict_by_hand(workdir):
    detect, landmark = fake_face_models()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = extract.extract_faces_image(noise, size=64, detector=detect, landmarker=landmark)
    model = inference.Inference(
        IMAGES, lambda params, batch: {"score": np.full(len(batch["image"]), 0.2)}, None, 1, "best"
    )
    plain = verdict.judge(model, found, None)
    assert plain["judged"] == (pytest.approx(0.2), pytest.approx(0.2), "real", 0.5, None)
    html = verdict.render_verdict(plain)
    assert "not calibrated" in html and "score 0.20 of 1" in html and "makes no maps" in html
    assert "says of the forgery" not in html
    # Odds of 1/4 over those of the threshold, 1/9: 9/4; to the power of 1/2, 3/2: three fifths.
    # An image is one frame: the calibration of frames holds for it.
    fitted = make_calibration(1.0, 0.6, frame=(0.5, 0.1))
    calibrated = verdict.judge(model, found, fitted)
    assert calibrated["judged"].probability == pytest.approx(0.6) and calibrated["judged"].label == "fake"
    html = verdict.render_verdict(calibrated)
    assert "probability of fake 60" in html and "<b>fake</b>" in html and "fake above 0.50" in html


def test_what_the_detector_says_of_the_forgery_is_shown():
    out = {"type": np.eye(6)[1], "regions": np.full(5, 0.25), "strength": np.float64(0.4), "score": np.float64(0.8)}
    predict = lambda params, batch: {k: np.broadcast_to(v, (len(batch["image"]), *v.shape)) for k, v in out.items()}
    detect, landmark = fake_face_models()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = extract.extract_faces_image(noise, size=64, detector=detect, landmarker=landmark)
    judged = verdict.judge(inference.Inference(IMAGES, predict, None, 1, "best"), found, None)
    html = verdict.render_verdict(judged)
    # Of what is called real, there is no forgery to speak of.
    out["score"] = np.float64(0.2)
    real = verdict.judge(inference.Inference(IMAGES, predict, None, 1, "best"), found, None)
    assert "says of the forgery" not in verdict.render_verdict(real)
    assert "type poisson (100&thinsp;%); left eye 25&thinsp;%, right eye 25&thinsp;%" in html
    assert "whole face 25&thinsp;%; strength 0.40." in html


def test_a_score_that_is_not_finite_is_an_error():
    model = inference.Inference(IMAGES, lambda params, batch: {"score": np.array([np.nan])}, None, 1, "best")
    detect, landmark = fake_face_models()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = extract.extract_faces_image(noise, size=64, detector=detect, landmarker=landmark)
    with pytest.raises(uploads.UploadError, match="score_not_finite"):
        verdict.judge(model, found, None)


def test_errors_are_escaped():
    html = verdict.render_error(uploads.UploadError("code", "<b>&"))
    assert "&lt;b&gt;&amp; <code>code</code>" in html


@pytest.mark.parametrize("host, alone", [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)])
def test_other_hosts_are_warned_of(host, alone, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(app.logging, "warning", lambda text, *args: lines.append(text % args))
    monkeypatch.setattr(app.logging, "error", lambda text, *args: lines.append(text % args))
    values = flags.FlagValues()
    app.define_flags(values)
    values(["app", f"--workdir={tmp_path}", f"--host={host}"])
    monkeypatch.setattr(app.flags, "FLAGS", values)
    assert app.main([]) == 1 and "no config.json" in lines[-1] and "\n" not in lines[-1]
    assert any("no password" in line for line in lines) is not alone


def test_no_gradio_is_one_line(tmp_path, monkeypatch):
    lines, values = [], flags.FlagValues()
    monkeypatch.setattr(app.logging, "error", lambda text, *args: lines.append(text % args))
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None)
    app.define_flags(values)
    values(["app", f"--workdir={tmp_path}"])
    monkeypatch.setattr(app.flags, "FLAGS", values)
    assert app.main([]) == 1 and lines == ["the page needs Gradio: pip install msddf_jax[app]"]


def test_a_port_that_is_taken_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError):
        app._listen("127.0.0.1", taken.getsockname()[1])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # importing changed nothing
