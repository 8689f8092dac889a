"""The page in a browser."""

import io
import re
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import chromium
from demo_client import ask, upload
from PIL import Image

from groupvit_jax import inference
from groupvit_jax.demo import page as pages
from groupvit_jax.demo.examples import EXAMPLES

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
WORDS = "zebra, sand, night sky; night"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, demo):
    """visit() -> the page, opened by another user each time; `page.asked` has the URLs of its requests."""
    contexts = []

    def go(viewport=DESKTOP, **options):
        contexts.append(browser.new_context(viewport=viewport, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(demo.url)
        page.wait_for_selector("#photo input[type=file]", state="attached")
        return page

    yield go
    for context in contexts:
        context.close()


def photo(seed=0, size=(60, 44)):
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def photo_file(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def give(page, image, name="photo.png"):
    data = image if isinstance(image, bytes) else photo_file(image)
    if page.locator("#photo input[type=file]").count() == 0:
        page.get_by_label("Remove Image").click()
        page.locator("#status").get_by_text(pages.HINT).wait_for()
    page.set_input_files("#photo input[type=file]", {"name": name, "mimeType": "image/png", "buffer": data})


def type_words(page, words, enter=True):
    page.fill("#words textarea, #words input", words)
    if enter:
        page.press("#words textarea, #words input", "Enter")


def answered(page):
    page.wait_for_selector("#segments img")
    return page.get_attribute("#segments img", "src"), page.inner_text("#legend")


def changed(page, before):
    page.wait_for_function("before => document.querySelector('#segments img')?.src !== before", arg=before)
    return answered(page)


def scrolls(page):
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


# ---------------------------------------------------------------- answers


def test_it_answers_as_soon_as_there_are_a_photograph_and_words(visit):
    page = visit()
    assert page.inner_text("#status") == pages.HINT
    give(page, photo())
    page.get_by_text(pages.NO_WORDS).wait_for()
    type_words(page, WORDS)
    _, legend = answered(page)
    assert re.search("zebra|sand|night sky", legend) and "%" in legend and not page.is_visible("#status")
    page = visit()
    type_words(page, WORDS, enter=False)
    give(page, photo())
    assert answered(page)[1] == legend


def test_another_photograph_and_other_words_change_the_answer(visit):
    page = visit()
    type_words(page, WORDS, enter=False)
    give(page, photo())
    first, _ = answered(page)
    give(page, photo(seed=1))
    second, _ = changed(page, first)
    type_words(page, "plum, kite", enter=False)
    page.click("#ask")
    _, legend = changed(page, second)
    assert re.search("plum|kite", legend) and not re.search("zebra|sand|night", legend)


def test_a_question_that_was_overtaken_on_its_way_changes_nothing(visit, demo):
    page, turns = visit(), []
    page.on("request", lambda request: "queue/join" in request.url and turns.append(request.post_data_json["data"][6]))
    give(page, photo())
    page.get_by_text(pages.NO_WORDS).wait_for()
    type_words(page, WORDS)
    answered(page)
    assert len(turns) >= 2 and sorted(turns) == list(range(1, len(turns) + 1))  # a page numbers what it asks
    file = upload(demo.url, photo_file(photo()))
    assert ask(demo.url, file, "zebra", turn=2, session="someone")["status"] == ""
    late = ask(demo.url, file, "", turn=1, session="someone")
    assert all(value["__type__"] == "update" and "value" not in value for value in (late["status"], late["legend"]))
    assert "Now type words" in ask(demo.url, file, "", turn=3, session="someone")["status"]


def test_a_photograph_is_pasted(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    type_words(page, WORDS, enter=False)
    page.evaluate("""async () => {
        const canvas = Object.assign(document.createElement("canvas"), {width: 60, height: 40});
        canvas.getContext("2d").fillRect(10, 10, 20, 20);
        const blob = await new Promise(done => canvas.toBlob(done, "image/png"));
        await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
    }""")
    page.get_by_label("Paste from clipboard").click()
    answered(page)


def test_an_example_brings_its_words(visit):
    page = visit()
    page.locator("#examples button").nth(1).click()
    answered(page)
    assert page.input_value("#words textarea, #words input") == EXAMPLES[1].words
    assert all(example.licence in page.inner_text("body") for example in EXAMPLES)


def test_the_background_is_asked_for_by_words_or_the_protocols_threshold(visit, demo):
    page = visit()
    type_words(page, "zebra, sand", enter=False)
    give(page, photo())
    answered(page)
    assert "0 zebra, 1 sand." in page.inner_text("#numbers")
    page.click("#more button")
    page.get_by_label(pages.THRESHOLD).check()
    page.get_by_text("0 background, 1 zebra").wait_for()
    page.get_by_label("tcl").check()
    page.wait_for_function("Number(document.querySelector('#threshold input').value) === 0.5")
    file = upload(demo.url, photo_file(photo()))
    expected = ask(demo.url, file, "zebra, sand", "by a threshold", 0.5, "", "tcl")["legend"]
    page.wait_for_function("html => document.querySelector('#legend').innerHTML.includes(html)", arg=expected)
    page.get_by_label(pages.WORDS).check()
    page.get_by_text("Type words for the background").wait_for()
    page.fill("#other textarea, #other input", "night")
    page.press("#other textarea, #other input", "Enter")
    page.get_by_text("0 background, 1 zebra").wait_for()
    page.get_by_label(pages.NONE).check()
    page.get_by_text("0 zebra, 1 sand.").wait_for()


def test_both_stages_and_each_groups_words_are_shown(visit):
    page = visit()
    type_words(page, WORDS, enter=False)
    give(page, photo())
    answered(page)
    page.get_by_role("tab", name="Groups").click()
    page.wait_for_selector("#stage1 img")
    page.wait_for_selector("#stage2 img")
    counts = [int(re.search(rf"Stage {s}: (\d+) groups", page.inner_text(f"#stage{s}"))[1]) for s in (1, 2)]
    rows = page.locator("#groups tr").all_inner_texts()
    assert len(rows) == 1 + min(counts[1], 16) and all(re.search(r"zebra 0\.\d\d|sand 0\.\d\d|night sky 0\.\d\d", row)
                                                       for row in rows[1:])


def test_a_click_on_a_point_shows_the_heat_of_its_group(visit):
    page = visit()
    type_words(page, WORDS, enter=False)
    give(page, photo())
    answered(page)
    box = page.locator("#segments img").bounding_box()
    page.locator("#segments img").click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.get_by_text("The point is in group").wait_for()
    page.wait_for_selector("#heat img")
    first = page.get_attribute("#heat img", "src")
    page.locator("#heat img").click(position={"x": box["width"] / 4, "y": box["height"] / 3})
    page.wait_for_function("before => document.querySelector('#heat img').src !== before", arg=first)


def test_two_users_at_once_get_their_own_answers(visit):
    both = [(visit(), "zebra, sand"), (visit(), "plum, kite")]
    for seed, (page, words) in enumerate(both):
        type_words(page, words, enter=False)
        give(page, photo(seed))
    for page, words in both:
        _, legend = answered(page)
        names = words.split(", ")
        assert set(re.findall("zebra|sand|plum|kite", legend)) <= set(names)
        assert f"0 {names[0]}, 1 {names[1]}." in page.inner_text("#numbers")


def test_downloads_are_the_label_map_and_the_picture(visit, run):
    page, image = visit(), photo(seed=2)
    type_words(page, WORDS, enter=False)
    give(page, image)
    answered(page)
    files = {}
    for name in ("labels", "overlay"):
        with page.expect_download() as begun:
            page.click(f"#{name}")
        files[begun.value.suggested_filename] = Image.open(begun.value.path())
    expected = inference.load(str(run)).segment(image, ["zebra", "sand", "night sky; night"]).labels
    assert files["labels.png"].mode == "P"
    np.testing.assert_array_equal(np.asarray(files["labels.png"]), expected)
    assert files["segments.png"].height > files["segments.png"].width * 44 / 60  # with its legend below


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize("data, words, sentence", [
    (b"no picture", WORDS, "cannot be read as a photograph"), (photo(size=(7, 60)), WORDS, "fewer than 8 pixels"),
    (photo(size=(300, 9)), WORDS, "times as long as it is wide"), (photo(), " , ;", "Type one or more words"),
    (photo(), "", "Now type words"), (photo(), ",".join("abcde" * 25), "125 words: give at most 100"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_a_sentence_and_the_page_goes_on(visit, data, words, sentence):
    page = visit()
    type_words(page, words, enter=False)
    give(page, data)
    page.locator("#status").get_by_text(sentence).wait_for()
    assert not page.is_visible("#results")
    give(page, photo(seed=4))
    type_words(page, WORDS)
    assert answered(page)[1] and not page.is_visible("#status")


def test_words_are_shown_as_they_are_typed_whatever_they_hold(visit):
    page = visit()
    type_words(page, "<img src=x onerror=document.title='ran'>, שלום", enter=False)
    give(page, photo())
    answered(page)
    assert "0 <img src=x onerror=document.title='ran'>, 1 שלום." in page.inner_text("#numbers")
    assert page.title() == "Segments by words"


# ---------------------------------------------------------------- the page itself


def test_on_a_phone_it_is_one_column_and_nothing_is_cut_off(visit):
    page = visit(PHONE, has_touch=True, is_mobile=True)
    assert not scrolls(page)
    type_words(page, ", ".join([WORDS, "antidisestablishmentarianism" * 3]), enter=False)
    give(page, photo(size=(200, 150)))
    answered(page)
    for tab in ("Segments", "Groups", "Heat map"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert not scrolls(page)
    boxes = [page.locator(name).bounding_box() for name in ("#photo", "#words", "#ask", "#examples", "#answer")]
    for above, below in zip(boxes, boxes[1:]):
        assert above["y"] + above["height"] <= below["y"]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] and box["width"] > 300 for box in boxes)


def test_nothing_is_asked_of_another_host(visit, demo):
    page = visit(color_scheme="dark")
    page.locator("#examples button").nth(0).click()
    answered(page)
    page.wait_for_timeout(1000)
    hosts = {urlsplit(url).netloc for url in page.asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(demo.url).netloc} and len(page.asked) > 10
    called = re.findall(r"socket\.(?:connect|getaddrinfo) \((.*)\)", demo.log())
    assert called and all(re.search(r"'(127\.0\.0\.1|localhost)'|b'127\.0\.0\.1'", each) for each in called), called


def test_the_page_of_another_site_may_not_upload(visit, demo):
    files = set(demo.tmp.rglob("*.html"))
    page = visit()
    page.goto(f"{demo.url.replace('127.0.0.1', 'localhost')}/config")  # another site's page, for the browser
    sent = """async url => {
        const form = new FormData();
        form.append("files", new Blob(["hostile"]), "hostile.html");
        await fetch(url, {method: "POST", mode: "no-cors", body: form});
    }"""
    page.evaluate(sent, f"{demo.url}/gradio_api/upload")
    assert set(demo.tmp.rglob("*.html")) == files
    page.evaluate(sent, "/gradio_api/upload")
    assert set(demo.tmp.rglob("*.html")) > files
