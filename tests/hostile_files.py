"""Files that nobody should upload, made at test time: {what: (content, name that it is sent under)}."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib

import av
import numpy as np
import PIL.Image

from msddf_jax.faces import video

# Stands in every file that can hold text; must be in no answer.
MARKER = b"HOSTILEMARKER"
SCRIPT = b"<script>alert('" + MARKER + b"')</script>"


def picture(form="PNG", shape=(96, 96, 3), **options):
    data = io.BytesIO()
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    image.save(data, form, **options)
    return data.getvalue()


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, data=bytes(100)):
    """A PNG that claims a size, with `data` for its pixels."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    tail = _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + tail


def clip(folder, num_frames, size=96, suffix=".mp4"):
    """A video of noise."""
    path = folder / f"made{suffix}"
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    video.write_video(path, [image] * num_frames, crf=30)
    data = path.read_bytes()
    path.unlink()
    return data


def _ten_thousand(folder, fps, suffix=".mp4"):
    path, frame = folder / f"long{suffix}", av.VideoFrame.from_ndarray(np.full((16, 16, 3), 128, np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)  # encodes far quicker than H.264
        stream.width = stream.height = 16
        for _ in range(10_000):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def _sound(folder):
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return (folder / "sound.mp4").read_bytes()


def _archives():
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../bomb", bytes(50 * 2**20))
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return zipped.getvalue(), tarred.getvalue()


def _wrong_types():
    zipped, tarred = _archives()
    bombs = b"".join(b'<!ENTITY l%d "%s">' % (i + 1, b"&l%d;" % i * 10) for i in range(9))
    return {
        "nothing": (b"", b"empty.png"),
        "one byte": (b"\x89", b"one.png"),
        "text": (MARKER, b"text.png"),
        "html": (b"<!doctype html>" + SCRIPT, b"page.png"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'>" + SCRIPT + b"</svg>", b"drawing.svg"),
        "xml bomb": (b"<!DOCTYPE x [<!ENTITY l0 'l'>" + bombs + b"]><x>&l9;</x>", b"bomb.svg"),
        "zip bomb": (zipped, b"bomb.mp4"),
        "gzip bomb": (gzip.compress(bytes(50 * 2**20)), b"bomb2.mp4"),
        "tar with a link": (tarred, b"link.mov"),
        "path": (b"/etc/passwd", b"path.jpg"),
        "pdf": (b"%PDF-1.7\n" + MARKER, b"paper.jpg"),
        "program": (b"\x7fELF" + bytes(200), b"program.mp4"),
        "shell script": (b"#!/bin/sh\necho " + MARKER, b"run.mp4"),
        "pickle": (pickle.dumps(MARKER), b"weights.mp4"),
        "random": (np.random.default_rng(1).bytes(2**20), b"random.webm"),
        "gif": (picture("GIF"), b"moving.gif"),
        "gif and script": (b"GIF89a/*" + bytes(30) + b"*/=1;" + SCRIPT, b"x.gif"),
        "tiff of many pages": (
            picture("TIFF", save_all=True, append_images=[PIL.Image.new("L", (8, 8))] * 200),
            b"x.tif",
        ),
        "bmp": (picture("BMP"), b"x.bmp"),
        "icon": (picture("ICO"), b"x.ico"),
        "heic": (b"\0\0\0\x18ftypheic" + bytes(100), b"photo.heic"),
        "playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", b"list.mp4"),
        "concat script": (b"ffconcat version 1.0\nfile /etc/passwd\n", b"list.mkv"),
    }


def _sixteen_bits():
    data = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (64, 64), np.uint16)).save(data, "PNG")
    return data.getvalue()


def _images():
    jpeg, shown = picture("JPEG"), picture("PNG")
    text = b"Comment\0\0" + zlib.compress(bytes(100 * 2**20))
    huge_jpeg = bytearray(jpeg)
    at = jpeg.index(b"\xff\xc0")
    huge_jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    noise = [PIL.Image.fromarray(np.full((96, 96, 3), 3 * i, np.uint8)) for i in range(60)]
    flat = io.BytesIO()
    PIL.Image.new("1", (6000, 6000)).save(flat, "PNG")
    return {
        "png of 60000x60000": (png(60_000, 60_000), b"huge.png"),
        "png of 2^31": (png(2**31 - 1, 2**31 - 1), b"huge2.png"),
        "png of 36 megapixels": (flat.getvalue(), b"large.png"),
        "png that is thin": (png(1, 100_000), b"thin.png"),
        "png of one pixel": (picture(shape=(1, 1, 3)), b"dot.png"),
        "png cut off": (shown[: len(shown) // 2], b"cut.png"),
        "png with a wrong checksum": (shown[:40] + b"\0\0\0\0" + shown[44:], b"broken.png"),
        "png with a text bomb": (png(64, 64, _chunk(b"zTXt", text), data=bytes(64 * 193)), b"text.png"),
        "png of sixteen bits": (_sixteen_bits(), b"grey.png"),
        "jpeg of 65500x65500": (bytes(huge_jpeg), b"huge.jpg"),
        "jpeg cut off": (jpeg[: len(jpeg) // 2], b"cut.jpg"),
        "jpeg of three bytes": (b"\xff\xd8\xff", b"short.jpg"),
        "jpeg and zip": (jpeg + _archives()[0], b"both.jpg"),
        "jpeg and script": (jpeg + SCRIPT, b"both.html"),
        "webp cut off": (picture("WEBP")[:200], b"cut.webp"),
        "webp of 16383x16383": (b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f" + b"\xff" * 4 + bytes(12), b"huge.webp"),
        "webp of many pictures": (picture("WEBP", save_all=True, append_images=noise), b"moving.webp"),
    }


def _videos(folder):
    whole = clip(folder, 20)
    wide = whole.replace(struct.pack(">HH", 96, 96), struct.pack(">HH", 65_535, 65_535), 1)
    return {
        "mp4 of 10,000 frames": (_ten_thousand(folder, 25), b"long.mp4"),
        "mp4 of 10,000 frames, fast": (_ten_thousand(folder, 200), b"fast.mp4"),
        "mkv of 10,000 frames": (_ten_thousand(folder, 25, ".mkv"), b"long.mkv"),
        "mp4 without content": (b"\0\0\0\x18ftypisom" + bytes(100), b"head.mp4"),
        "mp4 and playlist": (b"\0\0\0\x18ftypisom#EXTM3U\nfile:///etc/passwd\n" + MARKER, b"both.mp4"),
        "mp4 cut off": (whole[: len(whole) // 3], b"cut.mp4"),
        "mp4 with noise in it": (whole[:2000] + np.random.default_rng(2).bytes(3000) + whole[5000:], b"noise.mp4"),
        "mp4 that claims 65535x65535": (wide, b"wide.mp4"),
        "mp4 with sound only": (_sound(folder), b"sound.mp4"),
        "mkv cut off": (clip(folder, 20, suffix=".mkv")[:300], b"cut.mkv"),
        "mkv of nothing": (b"\x1a\x45\xdf\xa3" + b"\xff" * 500, b"x.mkv"),
        "avi that claims much": (b"RIFF\xff\xff\xff\x7fAVI LIST\xff\xff\xff\x7fhdrlavih" + b"\xff" * 200, b"x.avi"),
    }


def _names():
    good = picture("PNG")
    return {
        "name that climbs": (good, b"../../../../tmp/" + MARKER),
        "name that is a path": (good, b"/etc/passwd"),
        "name with a null": (good, b"a\0b.png"),
        "name with lines": (good, b"a\r\nContent-Type: text/html\r\n\r\n" + SCRIPT),
        "name from right to left": (good, "\u202egnp.exe".encode()),
        "name that is long": (good, b"n" * 5000 + b".png"),
        "name that is a script": (good, SCRIPT + b".png"),
        "name of wrong bytes": (good, b"\xff\xfe\x80.png"),
        "name of nothing": (good, b""),
        "name of a device": (good, b"CON"),
    }


def hostile_files(folder):
    """At least 50; `folder` is for what is written on the way."""
    return {**_wrong_types(), **_images(), **_videos(folder), **_names()}
