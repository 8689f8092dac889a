"""The page in Gradio: its layout, and what calls what. What it shows is made in `answers`, `drawing` and `markup`."""

import io
import pathlib
import tempfile
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from starlette.middleware import Middleware

from groupvit_jax import files
from groupvit_jax.demo import drawing, markup, uploads
from groupvit_jax.demo.answers import Answer, Answers
from groupvit_jax.demo.examples import EXAMPLES, HERE
from groupvit_jax.demo.markup import note, percent, said
from groupvit_jax.demo.visitors import OwnPage
from groupvit_jax.errors import InputError
from groupvit_jax.evals.classes import PROTOCOLS
from groupvit_jax.inference import VOC

HOUR = 3600  # seconds that an uploaded file is kept
WAITING = 32  # people in the queue; more are asked to come again
NONE, THRESHOLD, WORDS = "none", "by a threshold", "by words"
HINT = "Choose a photograph and type words: the segments appear here."
NO_WORDS = "Now type words for what may be in the photograph, with commas between them."
CLICK = "Click on a point: the map shows how much of each patch went to the group that has the point."
THEME = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font_mono=("ui-monospace", "monospace"),
                          font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"))


def upload(**options: Any) -> gr.Image:
    """gr.Image whose file comes as it was uploaded: nothing decodes it before `uploads.read`. Its method is replaced,
    as Gradio would write a stub beside the file of a class made of it."""
    image = gr.Image(type="filepath", **options)
    vars(image).update(preprocess=lambda payload: payload and payload.path)
    return image


def fetch_nothing(block: Any) -> None:
    """Refuses addresses in the place of files: Gradio would fetch them, also those in what is said to be words."""
    move = block.async_move_resource_to_block_cache

    async def move_file(path: Any) -> Any:
        if str(path or "").lower().startswith(("http:", "https:")):
            raise gr.Error("Give the photograph's file, not its address.", print_exception=False)
        return await move(path)

    vars(block).update(async_move_resource_to_block_cache=move_file)


# ---------------------------------------------------------------- layout


def questions() -> SimpleNamespace:
    """What a person gives."""
    q = SimpleNamespace()
    q.photo = upload(label="Photograph", sources=["upload", "clipboard", "webcam"], height=290, buttons=[],
                     elem_id="photo", placeholder="Drop a photograph here, or click to choose one")
    q.words = gr.Textbox(label="Words, separated by commas", placeholder="cat; kitten, sofa, window",
                         info="Synonyms, separated by semicolons", max_lines=4, elem_id="words")
    q.ask = gr.Button("Segment", variant="primary", elem_id="ask")
    gr.HTML(note("Or begin with one of these:"))
    q.examples = gr.Gallery([example.path for example in EXAMPLES], show_label=False, columns=4, height="auto",
                            object_fit="cover", allow_preview=False, interactive=False, buttons=[], container=False,
                            elem_id="examples")
    with gr.Accordion("Background and prompts", open=False, elem_id="more"):
        q.kind = gr.Radio([NONE, THRESHOLD, WORDS], value=NONE, label="Background",
                          info="A label for what looks like none of the words.", elem_id="kind")
        q.threshold = gr.Slider(0, 1, VOC.background[PROTOCOLS[0]], step=0.01, visible=False, elem_id="threshold",
                                label="Threshold: groups with a lower score are background")
        q.other = gr.Textbox(label="Words for the background", placeholder="sky, wall", visible=False, elem_id="other")
        q.protocol = gr.Radio(PROTOCOLS, value=PROTOCOLS[0], label="Protocol",
                              info="groupvit: one prompt for a word; tcl: the mean of nine.", elem_id="protocol")
    q.turn = gr.Number(0, visible=False)
    return q


def results(stages: int) -> SimpleNamespace:
    """What it shows: what is said, or if nothing is, what was found."""
    r = SimpleNamespace()
    r.status, r.turn = gr.HTML(said(HINT), elem_id="status"), gr.State(0)
    with gr.Column(elem_id="results"), gr.Tabs() as r.tabs:
        with gr.Tab("Segments", id="segments"):
            r.segments = picture("Segments", "segments")
            r.legend = gr.HTML(elem_id="legend")
            with gr.Row():
                r.labels = gr.DownloadButton("Download label map", size="sm", min_width=120, elem_id="labels")
                r.overlay = gr.DownloadButton("Download picture", size="sm", min_width=120, elem_id="overlay")
            r.numbers = gr.HTML(elem_id="numbers")
        with gr.Tab("Groups", id="groups"):
            r.stages = [picture(f"Stage {s + 1}", f"stage{s + 1}") for s in range(stages)]
            r.groups = gr.HTML(elem_id="groups")
        with gr.Tab("Heat map", id="heat"):
            r.told = gr.HTML(said(CLICK), elem_id="told")
            r.heat = picture("Share of the point's group", "heat")
            gr.HTML(markup.SCALE)
    return r


def picture(label: str, name: str) -> gr.Image:
    return gr.Image(label=label, format="jpeg", interactive=False, buttons=["fullscreen"], elem_id=name,
                    elem_classes="picture")


def build(answers: Answers) -> gr.Blocks:
    """The page. Its files are in the folder that GRADIO_TEMP_DIR and `tempfile.tempdir` name."""
    gr.set_static_paths([HERE])
    with gr.Blocks(title="Segments by words", analytics_enabled=False, delete_cache=(HOUR // 6, HOUR)) as page:
        gr.HTML(markup.TITLE)
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                q = questions()
            with gr.Column(scale=6, min_width=300, elem_id="answer"):
                r = results(answers.stages)
        gr.HTML(note(f"A photograph with a side of more than {uploads.LONG} pixels is made smaller. It stays on the "
                     "machine that serves this page, and its file is removed after an hour. The four to begin with: "
                     + "; ".join(example.licence for example in EXAMPLES) + "."))
        wire(answers, q, r)
        for block in page.blocks.values():
            fetch_nothing(block)
    return page.queue(max_size=WAITING)


# ---------------------------------------------------------------- what calls what


def wire(answers: Answers, q: SimpleNamespace, r: SimpleNamespace) -> None:
    """Lets the page answer when anything that is asked changes, and to clicks on pictures."""

    def answer(*asked: Any) -> dict:
        *question, turn, answered = asked
        if (turn := turn or 0) < answered:  # it was overtaken on its way
            return {r.turn: answered}
        return {r.turn: turn, **reply(*question)}

    def reply(path: str | None, words: str | None, kind: str, threshold: float, other: str | None,
              protocol: str) -> dict:
        words = words or ""
        if not path or not words.strip():
            return {r.status: said(NO_WORDS if path else HINT)}
        try:
            backgrounds: dict[str, bool | float | str] = {NONE: False, THRESHOLD: threshold, WORDS: other or ""}
            found = answers(uploads.read(path), words, backgrounds[kind], protocol)
        except InputError as error:
            return {r.status: said(str(error), wrong=True)}
        return {r.status: "", **shown(found, r)}

    def heat(path: str | None, event: gr.SelectData) -> dict:
        try:
            if not path:
                raise InputError(HINT)
            pixels = uploads.read(path)
            x, y = event.index
            found = answers.heat(pixels, *drawing.point(x, y, pixels))
        except InputError as error:
            return {r.told: said(str(error), wrong=True), r.tabs: gr.Tabs(selected="heat")}
        beside = " It is dark outside the window in which the group is." if np.isnan(found.values).any() else ""
        text = f"The point is in group {found.rank}, which has {percent(np.nanmean(found.values))} of the patches."
        return {r.heat: drawing.heat(pixels, found), r.told: said(text + beside), r.tabs: gr.Tabs(selected="heat")}

    model = {"concurrency_limit": 1, "concurrency_id": "model", "trigger_mode": "always_last",
             "show_progress": "minimal"}
    outputs = [r.status, r.segments, r.legend, r.labels, r.overlay, r.numbers, r.groups, r.heat, r.told,
               *r.stages, r.turn]
    asked = [q.photo, q.words, q.kind, q.threshold, q.other, q.protocol, q.turn, r.turn]
    gr.on([q.photo.change, q.words.submit, q.ask.click, q.kind.change, q.threshold.release, q.other.submit], answer,
          asked, outputs, js=markup.NEXT_TURN, api_name="answer", **model)
    q.ask.click(None, js=markup.TO_ANSWER)
    for clicked in (r.segments, r.stages[-1], r.heat):
        clicked.select(heat, [q.photo], [r.heat, r.told, r.tabs], api_visibility="private", **model)

    alone = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
    q.kind.change(lambda kind: (gr.Slider(visible=kind == THRESHOLD), gr.Textbox(visible=kind == WORDS)), [q.kind],
                  [q.threshold, q.other], **alone)
    own = q.protocol.change(VOC.background.get, [q.protocol], [q.threshold], **alone)
    own.then(answer, asked, outputs, js=markup.NEXT_TURN, api_visibility="private", **model)
    q.examples.select(example, None, [q.photo, q.words], **alone)


def example(event: gr.SelectData) -> tuple[str, str]:
    return EXAMPLES[event.index].path, EXAMPLES[event.index].words


def shown(answer: Answer, r: SimpleNamespace) -> dict:
    """An answer in the page's places for it."""
    overlay, rows, label_map, with_legend = drawing.segments(answer)
    stages = [drawing.stage(answer.pixels, groups, s == len(r.stages)) for s, groups in
              enumerate(answer.result.stages, 1)]
    places = {r.segments: overlay, r.legend: markup.legend(rows), r.labels: saved("labels.png", label_map),
              r.overlay: saved("segments.png", with_legend), r.numbers: markup.label_list(answer.result.names),
              r.groups: markup.group_table(answer, stages[-1][1]), r.heat: drawing.photograph(answer.pixels),
              r.told: said(CLICK)}
    for s, (place, (drawn, colours)) in enumerate(zip(r.stages, stages), 1):
        places[place] = gr.Image(drawn, label=f"Stage {s}: {len(colours)} groups")
    return places


def saved(name: str, image: Image.Image) -> str:
    """The path of a PNG to download, in a folder of its own inside Gradio's."""
    data = io.BytesIO()
    image.save(data, "PNG")
    path = pathlib.Path(tempfile.mkdtemp(), name)
    files.write(path, data.getvalue())
    return str(path)


# ---------------------------------------------------------------- at the start


def warm_up(answers: Answers) -> None:
    """A first answer, that people need not wait for what is compiled, computed and read with it."""
    side = answers.model.geometry.window
    answer = answers(np.zeros((side, side, 3), np.uint8), "word")
    drawing.segments(answer)
    drawing.stage(answer.pixels, answer.result.groups, numbered=True)


def serve(page: gr.Blocks, host: str, port: int) -> str:
    """Starts to serve, and returns the page's address. Nothing but the page's own host is asked for anything."""
    _, address, _ = page.launch(
        server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
        max_file_size=uploads.BYTES, footer_links=[], run_history=False, ssr_mode=False, pwa=False,
        mcp_server=False, enable_monitoring=False, theme=THEME, css=markup.CSS,
        app_kwargs={"middleware": [Middleware(OwnPage)]})
    return address.rstrip("/")
