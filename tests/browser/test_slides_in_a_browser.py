"""The slides in a browser without a network: all of them fit, and a key shows an answer."""

import importlib.util
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

specification = importlib.util.spec_from_file_location("slides", Path(__file__).parents[2] / "tools/slides.py")
slides = importlib.util.module_from_spec(specification)
specification.loader.exec_module(slides)

TOO_TALL = """
return Reveal.getSlides().filter(slide => {
    const {h, v} = Reveal.getIndices(slide);
    Reveal.slide(h, v, 999);
    return slide.scrollHeight > Reveal.getConfig().height;
}).map(slide => slide.innerText.slice(0, 80));
"""
FIRST_ANSWER = """
const at = Reveal.getIndices(document.querySelector('.answer').closest('section'));
Reveal.slide(at.h, at.v, -1);
"""


@pytest.fixture(scope="module")
def show(driver, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    slides.write(folder, list(slides.NOTEBOOKS))
    driver.switch_to.new_window("tab")

    def open_deck(number):
        driver.get((folder / f"{slides.NOTEBOOKS[number].slug}.html").as_uri())
        WebDriverWait(driver, 60).until(lambda _: driver.execute_script("return window.Reveal?.isReady()"))
        return driver

    return open_deck


@pytest.mark.parametrize("number", slides.NOTEBOOKS)
def test_no_slide_is_taller_than_the_screen(show, number):
    assert show(number).execute_script(TOO_TALL) == []


def test_an_answer_comes_with_the_next_key(show):
    driver = show("04")
    driver.execute_script(FIRST_ANSWER)
    answer = driver.find_element(By.CSS_SELECTOR, ".present .answer")
    assert "visible" not in answer.get_attribute("class")
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.SPACE)
    assert "visible" in answer.get_attribute("class")
