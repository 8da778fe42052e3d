"""The website's figures to play with: without a kernel, by keyboard, with the numbers of the package."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from nanoq.numbers import FLOATS, IntFormat

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-M", "html", ".", folder, "-c", "docs", "-q"]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ, capture_output=True)
    return folder / "html"


@pytest.fixture
def page(site, driver):
    driver.switch_to.new_window("tab")
    driver.get((site / "docs/interactive.html").as_uri())
    WebDriverWait(driver, 60).until(lambda _: driver.find_elements(By.CSS_SELECTOR, "[data-figure=rate] table"))
    return driver


def said(page, figure):
    return page.find_element(By.CSS_SELECTOR, f"[data-figure={figure}] output").text


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp32", "e4m3fn", "e5m2", "int8", "int4"])
def test_numbers_get_the_pattern_and_the_value_that_the_package_gives_them(page, name):
    fmt = FLOATS.get(name) or IntFormat(int(name[3:]))
    numbers = [0.0, 1.0, -1.5, 0.1, 3.14159, -0.002, 2.5, 3.5, 6.3, -7.9]
    numbers = [number for number in numbers if name in FLOATS or -8 <= number <= 7]
    patterns = [int(fmt.encode(number if name in FLOATS else round(number))) for number in numbers]
    script = """
        const format = JSON.parse(document.querySelector('[data-figure=bits]').dataset.values)[arguments[0]];
        return JSON.stringify(arguments[1].map(n => [encode(format, n), decode(format, encode(format, n))]));"""
    found = json.loads(page.execute_script(script, name, numbers))
    assert found == [[pattern, float(fmt.decode(pattern))] for pattern in patterns]


@pytest.mark.parametrize("name", ["fp16", "e4m3fn", "e5m2"])
def test_every_pattern_reads_as_in_the_package(page, name):
    script = """
        const format = JSON.parse(document.querySelector('[data-figure=bits]').dataset.values)[arguments[0]];
        return Array.from({length: 2 ** format.bits}, (_, pattern) => String(decode(format, pattern)));"""
    spelled = {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}
    found = [float(spelled.get(text, text)) for text in page.execute_script(script, name)]
    expected = [float(value) for value in FLOATS[name].decode(range(2 ** FLOATS[name].bits))]
    assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(found, expected, strict=True))


def test_a_bit_turns_over_by_keyboard_and_a_format_is_chosen(page):
    assert said(page, "bits") == "0x4248 stands for 3.140625"
    page.find_element(By.CSS_SELECTOR, ".bits button").send_keys(Keys.SPACE)
    assert said(page, "bits") == "0xC248 stands for -3.140625"
    Select(page.find_element(By.CSS_SELECTOR, "[data-figure=bits] select")).select_by_value("int8")
    assert said(page, "bits") == "0xFD stands for -3"


def test_the_threshold_has_its_best_place_where_lloyds_is(page):
    error = "return [0.5, 0.61, 0.7].map(t => ternary(t).error)"
    before, best, after = page.execute_script(error)
    assert best < min(before, after) and best == pytest.approx(0.1902, abs=1e-4)
    words = said(page, "threshold")
    page.find_element(By.CSS_SELECTOR, "[data-figure=threshold] input").send_keys(Keys.ARROW_RIGHT)
    assert said(page, "threshold") != words and said(page, "threshold").startswith("threshold 0.31")


def test_the_limit_is_below_every_quantiser_at_each_number_of_bits(page):
    slider = page.find_element(By.CSS_SELECTOR, "[data-figure=rate] input")
    slider.send_keys(Keys.HOME)
    for bits in (1, 2, 3, 4):
        assert said(page, "rate").startswith(f"{bits} bits per number")
        cells = page.find_elements(By.CSS_SELECTOR, "[data-figure=rate] td:last-child")
        above = [float(cell.text) for cell in cells]
        assert above == sorted(above, reverse=True) and above[-1] == 0 < above[-2] and len(above) >= 7
        slider.send_keys(Keys.ARROW_RIGHT)


def test_the_page_fits_a_telephone_and_a_notebook_has_its_figure(page, site):
    page.set_window_size(420, 900)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    finally:
        page.set_window_size(1280, 1400)
    page.get((site / "notebooks/01_data_types.html").as_uri())
    assert said(page, "bits").startswith("0x4248")
