"""A page that scores one image or video at a time: `python -m msddf_jax.app --workdir DIR`.

Open the address that it prints, drop a file, and see the faces, the verdict, the scores over time and the maps. Needs
`pip install msddf_jax[app]`. Uploads lie in a temporary folder under random names, are read by `uploads.Reader` and
removed with the answer; neither an upload nor any other file is served: pictures of the answer are part of it.
"""

import contextlib
import importlib.util
import ipaddress
import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable

from absl import app, flags, logging

from msddf_jax import command
from msddf_jax.faces import fetch

# JAX, Matplotlib and Gradio are imported where they are used: the child process of `uploads.Reader` imports this
# module too, and Gradio reads its environment when it is imported.
from msddf_jax.show import uploads

TITLE = "Is this face manipulated?"
# Of a request that is no upload.
_MAX_BODY = 64 * 2**10
# What the page needs of Gradio's routes, method and path; all others do not exist here, above all those for files.
_ROUTES = re.compile(
    r"(GET|HEAD) (/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json"
    r"|/(assets|static|svelte)/[\w.@+-]+(/[\w.@+-]+)*|/gradio_api/(info|app_id|startup-events|queue/(data|status)"
    r"|heartbeat/\w+))|POST /gradio_api/(queue/join|cancel|reset)/?"
)
_UPLOAD = re.compile(r"POST /gradio_api/upload/?")
# The browser asks no other origin for anything, neither fonts nor scripts.
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

# Those of the reader's system: nothing to load.
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_CSS = """
.gradio-container {max-width: 960px !important; margin: 0 auto !important}
.msddf-block, .msddf-block > *, .msddf-block .html-container {padding-left: 0 !important; padding-right: 0 !important}
.msddf-card {border: 1px solid var(--border-color-primary); border-left: 8px solid #666; border-radius: 8px;
  padding: 16px 20px; background: var(--block-background-fill)}
.msddf-fake {border-left-color: #d62728} .msddf-real {border-left-color: #1f77b4}
.msddf-error {border-left-color: #b07800}
.msddf-big {font-size: 1.4rem; line-height: 1.3} .msddf-figure {font-size: 1.1rem; margin-top: 4px}
.msddf-card p {margin: 8px 0 0}
.msddf-bar {position: relative; height: 14px; border-radius: 7px; margin: 12px 0 4px; background: #8884}
.msddf-fill {height: 100%; border-radius: 7px; background: #1f77b4} .msddf-fake .msddf-fill {background: #d62728}
.msddf-mark {position: absolute; top: -4px; width: 2px; height: 22px; background: var(--body-text-color)}
.msddf-scale, .msddf-legend {display: flex; justify-content: space-between; gap: 8px; font-size: .85rem; opacity: .85}
.msddf-legend {justify-content: flex-start; align-items: center; margin-bottom: 8px}
.msddf-legend span {white-space: nowrap}
.msddf-legend i {flex: 0 1 120px; min-width: 40px; height: 10px; border-radius: 5px;
  background: linear-gradient(90deg, #000004, #420a68, #932667, #dd513a, #fca50a, #fcffa4)}
.msddf-result h3, .msddf-notes h3 {font-size: 1.1rem; font-weight: 600; margin: 20px 0 8px}
.msddf-chart {position: relative; height: 200px; margin: 0 6px; border: 1px solid var(--border-color-primary)}
.msddf-chart i {position: absolute; width: 11px; height: 11px; margin: 0 0 -5px -5px; border-radius: 50%;
  background: #1f77b4} .msddf-chart i.above {background: #d62728}
.msddf-chart i.none {border-radius: 0; width: 3px; margin: 0 0 0 -1px; background: #888}
.msddf-chart b {position: absolute; top: 0; bottom: 0; background: #d627282e}
.msddf-person {display: flex; align-items: center; gap: 10px; margin: 12px 0 4px; font-size: .95rem}
.msddf-person img {width: 56px; height: 56px; border-radius: 6px}
.msddf-warning {color: #b07800; margin: 0 0 8px !important}
.msddf-chart hr {position: absolute; left: 0; right: 0; margin: 0; border: 0; border-top: 2px dashed #888}
.msddf-key {display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: .85rem; margin-top: 6px; opacity: .9}
.msddf-key i {display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 5px}
.msddf-faces {display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 16px}
.msddf-faces figure {margin: 0} .msddf-pair {display: grid; grid-template-columns: 1fr 1fr; gap: 4px}
.msddf-pair img {width: 100%; border-radius: 6px} .msddf-faces figcaption {font-size: .9rem; margin-top: 4px}
.msddf-notes ul {list-style: disc; padding-left: 1.3em; margin: 0} .msddf-notes li {margin: 6px 0}
.msddf-notes p {margin: 10px 0 0; font-size: .85rem; opacity: .85}
.msddf-head h1 {font-size: 1.6rem; font-weight: 700; margin: 8px 0 4px}
"""

_NOTES = """
<div class="msddf-notes"><h3>What the score does not mean</h3><ul>
<li><b>It is no proof.</b> A detector errs in both directions. Do not accuse, publish or decide on this score
alone.</li>
<li><b>&ldquo;Real&rdquo; is not &ldquo;genuine&rdquo;.</b> It means that none of the traces was found that the
detector learned. New methods leave others.</li>
<li><b>Only faces are looked at.</b> The voice, the words, the background, the date and the caption are not. A real
video can still mislead.</li>
<li><b>A video is sampled.</b> Some frames are looked at, and the faces that show most; a short manipulation can be
missed.</li>
<li><b>Quality moves the score.</b> Strong compression, small, dark or turned faces, beauty filters, make-up and
filmed screens can make real faces look fake and fake ones real.</li>
<li><b>It is not equally right for everyone.</b> People who are rare in the training data are judged less
reliably.</li>
<li><b>The map is a hint.</b> It shows where the detector saw something, not why, and not what was changed.</li>
<li>%s</li>
</ul><p>%s</p></div>
"""


def make_asgi_app(model, reader, store, limits, calibration, aggregate, fitted=None) -> Callable[..., Awaitable[None]]:
    """The page and what it asks of the server, as an ASGI application.

    Args:
      model: `inference.Inference`. reader: `uploads.Reader`. store: `uploads.Store`; Gradio must have been told of its
        folder before (`prepare_gradio`). limits: `uploads.Limits`. calibration, aggregate, fitted: as
        `show.verdict.judge`.
    """
    import fastapi
    import gradio

    def check(path):
        return None, _answer(model, reader, store, (calibration, aggregate, fitted), path)

    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.HTML(
            f'<div class="msddf-head"><h1>{TITLE}</h1><p>Drop an image or a video with a face. It is checked on the '
            "computer that runs this page, and removed from it with the answer.</p></div>",
            elem_classes="msddf-block",
        )
        file = gradio.File(label=_limits_text(limits), height=180, elem_id="upload")
        result = gradio.HTML(elem_id="result", elem_classes="msddf-block")
        gradio.HTML(_notes(model, calibration), elem_classes="msddf-block")
        file.upload(check, inputs=file, outputs=[file, result], concurrency_limit=1, api_name="check")
    page.queue(max_size=uploads.MAX_WAITING, default_concurrency_limit=1, api_open=False)
    mounted = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page,
        path="/",
        theme=gradio.themes.Default(font=_FONT, font_mono=("ui-monospace", "monospace")),
        css=_CSS,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=limits.max_bytes,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    return _gate(mounted, store, limits)


def _answer(model, reader, store, settings, path):
    """HTML for the upload at `path`, which is removed."""
    from msddf_jax.show import verdict

    token = store.token(path)
    try:
        if token is None:
            raise uploads.UploadError("upload_missing", "The upload is no longer there: please upload the file again.")
        found = reader.read(store.path(token))
        return verdict.render_verdict(verdict.judge(model, found, *settings))
    except uploads.UploadError as error:
        return verdict.render_error(error)
    except Exception:
        logging.exception("an upload was not answered")
        return verdict.render_error(uploads.UploadError("internal", "Something went wrong here, not with your file."))
    finally:
        store.remove(token)


def _limits_text(limits):
    return f"Image or video: {limits.max_bytes / 2**20:g} MB, {limits.max_video_seconds / 60:.3g} min at most"


def _notes(model, calibration):
    if calibration is None:
        line = "<b>It is no probability.</b> This model was not calibrated: scores can be compared, not more."
    else:
        line = (
            "<b>The probability is one for files like those it was calibrated on.</b> Where fakes are rarer, a larger "
            "share of what is called fake is real."
        )
    about = f"Detector {model.config.detector}, step {model.step}, {model.origin} weights."
    return _NOTES % (line, f"{about} What can be checked: {uploads.ALLOWED}.")


def _gate(inner, store, limits):
    """ASGI: lets through what the page needs, takes uploads itself, and adds headers."""

    async def gate(scope, receive, send):
        if scope["type"] == "lifespan":
            return await inner(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})
        send = _with_headers(send)
        line = f"{scope['method']} {scope['path']}"
        try:
            if _UPLOAD.fullmatch(line) and _same_origin(scope):
                path = await _save_upload(scope, receive, store, limits)
                return await _reply(send, 200, json.dumps([path]))
            if not _same_origin(scope):
                return await _reply(send, 403, json.dumps({"detail": "this page answers to itself only"}))
            if line == "GET /gradio_api/upload_progress":  # the page asks for it; there is nothing to tell
                return await _reply(send, 200, 'data: {"msg": "done"}\n\n', "text/event-stream")
            if not _ROUTES.fullmatch(line):
                return await _reply(send, 404, json.dumps({"detail": "there is no such page"}))
            if scope["method"] == "POST":
                receive = await _checked_body(scope, receive, store)
        except uploads.UploadError as error:
            status = {"busy": 503, "file_too_large": 413}.get(error.code, 400)
            return await _reply(send, status, json.dumps({"detail": str(error)}))
        return await inner(scope, receive, send)

    return gate


def _same_origin(scope):
    """False where a browser sends the request for a page of another site, which could fill the queue."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    return origin is None or origin.split(b"//")[-1] == headers.get(b"host")


def _with_headers(send):
    added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def with_headers(message):
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return with_headers


async def _reply(send, status, text, kind="application/json"):
    headers = [(b"content-type", kind.encode()), (b"connection", b"close" if status >= 400 else b"keep-alive")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def _save_upload(scope, receive, store, limits):
    """Writes the one file of a multipart body under a random name; returns its path."""
    import anyio.to_thread
    import starlette.datastructures
    import starlette.exceptions
    import starlette.formparsers
    import starlette.requests

    token, seen, more = store.reserve(), 0, True

    async def counted():
        nonlocal seen, more
        message = await receive()
        more = message.get("more_body", False)
        seen += len(message.get("body", b""))
        if seen > limits.max_bytes + _MAX_BODY:
            raise uploads.too_many_bytes(limits)
        return message

    try:
        request = starlette.requests.Request(scope, counted)
        async with request.form(max_files=1, max_fields=1) as form:
            files = [value for value in form.values() if isinstance(value, starlette.datastructures.UploadFile)]
            if len(files) != 1:
                raise uploads.UploadError("bad_request", "One file is expected.")
            if files[0].size > limits.max_bytes:
                raise uploads.too_many_bytes(limits)
            await anyio.to_thread.run_sync(store.write, token, files[0].file)
    except BaseException as error:
        store.remove(token)
        if isinstance(error, uploads.UploadError):
            # A browser that is still sending reads no answer: what comes is thrown away, within reason.
            while more and seen < 4 * limits.max_bytes:
                message = await receive()
                more, seen = message.get("more_body", False), seen + len(message.get("body", b""))
            raise
        wrong = (starlette.exceptions.HTTPException, starlette.formparsers.MultiPartException, ValueError, LookupError)
        if isinstance(error, wrong):
            raise uploads.UploadError("bad_request", "This is no upload of one file.") from error
        raise
    return str(store.path(token))


async def _checked_body(scope, receive, store):
    """A `receive` that gives the body again. What joins the queue may name an upload that waits, and nothing else."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > _MAX_BODY:
            raise uploads.UploadError("bad_request", "This request is too long.")
    if "queue/join" in scope["path"]:
        try:
            values = json.loads(body)
            [file] = values["data"]
            path = file["path"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise uploads.UploadError("bad_request", "One uploaded file is expected.") from error
        if not store.keep(store.token(path)):
            raise uploads.UploadError("bad_request", "This is no file that waits here to be checked.")
        values["data"] = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
        body = json.dumps(values).encode()
    replayed = False

    async def replay():
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def prepare_gradio(folder) -> None:
    """Tells Gradio, before it is imported, where temporary files lie, and to tell nobody of anything."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "GRADIO_MCP_SERVER", "GRADIO_SSR_MODE"):
        os.environ[name] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def serve(
    model, calibration, fitted=None, *, host, port, limits, num_frames=32, make_models=uploads.make_face_models
) -> None:
    """Runs the page until it is interrupted; prints its address once it can be opened.

    Args:
      model: `inference.Inference`. calibration: of these weights and of config.aggregate, or None. fitted: of these
        weights (`novelty.find`), or None. host, port: to listen on; port 0 takes a free one. limits: `uploads.Limits`.
        num_frames: sampled from a video. make_models: as `uploads.Reader`.

    Raises:
      OSError: host and port cannot be listened on. Whatever `uploads.Reader` raises. ImportError: no Gradio.
    """
    with contextlib.ExitStack() as stack:
        folder = os.path.realpath(stack.enter_context(tempfile.TemporaryDirectory(prefix="msddf_jax_app_")))
        prepare_gradio(folder)
        import uvicorn

        listening = stack.enter_context(_listen(host, port))
        data = model.config.data
        settings = {"size": data.image_size, "preset": data.preset, "num_frames": num_frames}
        reader = stack.enter_context(contextlib.closing(uploads.Reader(limits, make_models, **settings)))
        store = uploads.Store(folder)
        aggregate = model.config.get("aggregate", "mean")
        application = make_asgi_app(model, reader, store, limits, calibration, aggregate, fitted)
        _warm_up(model, num_frames)
        stop = threading.Event()
        stack.callback(stop.set)
        threading.Thread(target=_sweep_often, args=(store, stop), daemon=True).start()
        config = uvicorn.Config(
            application, log_level="warning", server_header=False, limit_concurrency=256, timeout_graceful_shutdown=2
        )
        shown, port = listening.getsockname()[:2]
        print(f"open http://{f'[{shown}]' if ':' in shown else shown}:{port} (Ctrl+C ends it)", flush=True)
        # Uvicorn ends by raising the signal again, which would leave the folder behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _listen(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _warm_up(model, num_frames):
    """Compiles for one face and for a video, so that the first user does not wait for it."""
    import numpy as np

    from msddf_jax import inference

    size = model.config.data.image_size
    for count in (1, num_frames):
        inference.score_crops(model, [np.zeros((size, size, 3), np.uint8)] * count)


def _sweep_often(store, stop):
    while not stop.wait(60):
        store.sweep()


def is_loopback(host) -> bool:
    """Whether only this machine can reach an address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def define_flags(values=flags.FLAGS) -> None:
    """Defines the flags of the command; not at import, where they clash with those of other commands."""
    keys, limits = {"flag_values": values}, uploads.Limits()
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, required=True, **keys)
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; the default is this machine only.", **keys)
    flags.DEFINE_integer("port", 7860, "Port to listen on; 0 for a free one.", lower_bound=0, upper_bound=65535, **keys)
    flags.DEFINE_integer("num_frames", 32, "Frames sampled evenly from a video.", lower_bound=1, **keys)
    flags.DEFINE_integer(
        "max_megabytes", limits.max_bytes // 2**20, "Size of an upload at most.", lower_bound=1, **keys
    )
    flags.DEFINE_float(
        "max_video_seconds", limits.max_video_seconds, "Length of a video at most.", lower_bound=1.0, **keys
    )
    flags.DEFINE_string(
        "compilation_cache",
        "~/.cache/msddf_jax/xla",
        "Folder that keeps compiled code for the next call; '' for none. $JAX_COMPILATION_CACHE_DIR comes first.",
        **keys,
    )


def main(argv) -> int:
    """Serve the page. Returns the exit code: 0, or 1 with one line that says why."""
    del argv
    values = flags.FLAGS
    if "verbosity" in values and not values["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    if importlib.util.find_spec("gradio") is None:
        logging.error("the page needs Gradio: pip install msddf_jax[app]")
        return 1
    from msddf_jax import inference
    from msddf_jax.statistics import novelty, verdict

    limits = uploads.Limits(max_bytes=values.max_megabytes * 2**20, max_video_seconds=values.max_video_seconds)
    if not is_loopback(values.host):
        logging.warning(
            "--host=%s: whoever reaches port %d can use this page; it has no password and no encryption",
            values.host,
            values.port,
        )
    try:
        program_cache = inference.use_compilation_cache(values.compilation_cache) or None
        model = inference.load_for_inference(values.workdir, program_cache)
        calibration = verdict.find_calibration(values.workdir, model, model.config.get("aggregate", "mean"))
        serve(
            model,
            calibration,
            novelty.find(values.workdir, model),
            host=values.host,
            port=values.port,
            limits=limits,
            num_frames=values.num_frames,
        )
    except (OSError, ValueError, fetch.ModelFileError, ImportError, RuntimeError) as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s: %s", type(error).__name__, error)
        return 1
    return 0


if __name__ == "__main__":
    define_flags()
    app.run(main)
