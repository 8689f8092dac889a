"""What a program says to the demo's server, over plain HTTP; and a hostile picture."""

import io
import json
import urllib.request
import uuid
import zlib

from PIL import Image

OUTPUTS = "status", "segments", "legend", "labels", "overlay", "numbers", "groups", "heat", "told"


def upload(url: str, data: bytes, name: str = "photo.jpg") -> dict:
    """Uploads a file -> what stands for it in a question. Raises HTTPError if it is refused."""
    edge = uuid.uuid4().hex
    body = (f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n").encode() + data + f"\r\n--{edge}--\r\n".encode()
    (path,) = post(f"{url}/gradio_api/upload", body, f"multipart/form-data; boundary={edge}")
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def ask(url: str, file: dict | None, words, kind="none", threshold=0.5, other="", protocol="groupvit", turn=0,
        session=None) -> dict | str:
    """The values of OUTPUTS and after these the stages' pictures in `stages`; or what kind of error the server says."""
    asked = [file, words, kind, threshold, other, protocol, turn]
    body = json.dumps({"data": asked, "session_hash": session}).encode()
    event = post(f"{url}/gradio_api/call/answer", body, "application/json")["event_id"]
    with urllib.request.urlopen(f"{url}/gradio_api/call/answer/{event}", timeout=120) as stream:
        said = stream.read().decode()
    kind, data = [line.partition(": ")[2] for line in said.strip().splitlines()[-2:]]
    if kind != "complete":
        return f"{kind}: {data}"
    values = json.loads(data)
    return dict(zip(OUTPUTS, values)) | {"stages": values[len(OUTPUTS) : -1]}


def post(url: str, body: bytes, kind: str):
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def download(file: dict) -> bytes:
    with urllib.request.urlopen(file["url"], timeout=60) as answer:
        return answer.read()


def png_bomb(side: int = 9461) -> bytes:
    """A PNG of a few bytes that says it has side * side pixels, just more than are read."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    data = bytearray(data.getvalue())
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)
