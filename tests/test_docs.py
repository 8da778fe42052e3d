"""The rendered course: built once, from what is committed, without running a cell and without the network."""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import nanoq

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "embed": "src", "object": "data"}


def target(url, page):
    """The file that an address on a page leads to, and the place in it."""
    path, _, place = url.partition("#")
    return (page.parent / path.partition("?")[0]).resolve() if path else page, place


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-M", "html", ".", folder, "-c", "docs", "-W", "--keep-going", "-q"]
    offline = os.environ | {"https_proxy": "http://127.0.0.1:9"}  # nobody listens there
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=offline)
    assert build.returncode == 0, build.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site.rglob("*.html")}


def test_each_notebook_has_a_page_in_the_order_of_the_course(site, pages):
    index = site / "index.html"
    links = [target(link["href"], index)[0] for link in pages[index].select(".sidebar-tree a")]
    chapters = [link for link in links if link.parent == site / "notebooks" and link.name[0].isdigit()]
    assert sorted(chapters) == [site / "notebooks" / f"{path.stem}.html" for path in NOTEBOOKS]
    first, second = (pages[chapter] for chapter in chapters[:2])
    assert target(first.select_one("a.next-page")["href"], chapters[0])[0] == chapters[1]
    assert target(second.select_one("a.prev-page")["href"], chapters[1])[0] == chapters[0]


def test_no_page_loads_anything_from_elsewhere(site, pages):
    loaded = [tag[attribute] for page in pages.values() for name, attribute in LOADED.items()
              for tag in page.find_all(name, attrs={attribute: True})]
    loaded += [link["href"] for page in pages.values() for link in page.find_all("link")]
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    styles += [style.text for page in pages.values() for style in page.find_all("style")]
    assert len(loaded) > len(pages)
    assert [url for url in loaded if "//" in url] == []
    assert [found for style in styles for found in re.findall(r"(?:url\(|@import)[^;)]*//[^;)]*", style)
            if "data:" not in found] == []


def test_every_link_inside_leads_somewhere(pages):
    places = {page: {tag["id"] for tag in soup.find_all(id=True)} for page, soup in pages.items()}
    urls = [(page, tag[attribute]) for page, soup in pages.items() for attribute in ("href", "src")
            for tag in soup.find_all(attrs={attribute: True})]
    local = [(page, url) for page, url in urls if not re.match(r"[a-z]+:", url)]
    lost = {url for page, url in local if not target(url, page)[0].exists()}
    lost |= {url for page, url in local if (found := target(url, page))[1] and found[1] not in places.get(found[0], ())}
    assert len(local) > 1000 and lost == set()


def test_the_map_of_notebook_00_leads_to_pages(site, pages):
    page = site / "notebooks/00_start_here.html"
    linked = {target(link["href"], page)[0].stem for link in pages[page].select("article td a")}
    assert linked == {path.stem for path in NOTEBOOKS} | {"README"}  # that of the lecturer's kit


def test_what_is_to_be_predicted_is_folded_and_no_check_says_correct(site, pages):
    page = pages[site / "notebooks/01_data_types.html"]
    assert page.select("details.below-input") and page.select(".cell_output")
    assert "✓" not in page.article.text


def test_each_figure_has_its_words(site, pages):
    for path in NOTEBOOKS:
        solved = json.loads((path.parent / "solutions" / path.name).read_text(encoding="utf-8"))
        student = {cell["id"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]}
        outputs = [output for cell in solved["cells"] if cell["id"] in student
                   for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        images = pages[site / "notebooks" / f"{path.stem}.html"].select("article img")
        assert [image["alt"] for image in images] == [output["metadata"]["image/png"]["alt"] for output in outputs]
    assert all(image["alt"].strip() for page in pages.values() for image in page.find_all("img"))


def test_formulas_are_rendered(site, pages):
    gptq = pages[site / "notebooks/07_gptq.html"].article
    shown = gptq.select_one(".formula math[display=block]")
    assert shown.find("msubsup") and "d_r^\\top H" in shown.find("annotation").text
    for page in (page for path, page in pages.items() if path.parent.name == "notebooks"):
        for tag in page.article.find_all(["pre", "code", "math", "script"]):
            tag.decompose()
        assert not re.search(r"\$[^$]*[\\^_][^$]*\$", page.article.text)


def test_the_search_finds_words_of_notebooks_and_of_the_package(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(index[index.index("{") : index.rindex("}") + 1])

    def found(word):
        pages = [index[table].get(word, []) for table in ("terms", "titleterms")]  # a bare number if there is but one
        return {index["docnames"][page] for some in pages for page in ([some] if isinstance(some, int) else some)}

    assert "notebooks/07_gptq" in found("babai")
    assert {"notebooks/07_gptq", "docs/api/quant"} <= found("calibr")


@pytest.mark.parametrize("folder", [module.name for module in pkgutil.iter_modules(nanoq.__path__) if module.ispkg])
def test_the_reference_has_every_public_name(site, pages, folder):
    page = pages[site / f"docs/api/{folder}.html"]
    names = importlib.import_module(f"nanoq.{folder}").__all__
    assert [name for name in names if not page.find(id=f"nanoq.{folder}.{name}")] == []
