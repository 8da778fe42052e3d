"""JupyterLab in a headless Chromium, as a user opens it: on copies of the notebooks, without the machine's settings."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LOG = "jupyter-lab.log"
PATIENCE, RUN = 60, 300  # seconds for whatever is waited for, and for a whole notebook, on a machine that is busy
SERVER = ("--no-browser", "--allow-root", "--port=0", "--LabApp.extension_manager=readonly", "--LabApp.news_url=None",
          "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")  # fmt: skip
CHROMIUM = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--window-size=1280,1400")  # fmt: skip


class Page:
    """A notebook in a tab of JupyterLab, run. What is waited for is asked again and again, until it is so."""

    def __init__(self, driver: webdriver.Chrome, address: str, notebook: Path):
        self.driver, self.name = driver, notebook.stem
        driver.switch_to.new_window("tab")
        self.tab = driver.current_window_handle
        driver.get(address.format(stem=notebook.stem))
        self.until(lambda: self.texts(".jp-KernelName") == ["Python 3 (ipykernel)"], "the kernel", RUN)
        self.cells = sum(cell["cell_type"] == "code" for cell in json.loads(notebook.read_text())["cells"])
        self._run_all()

    def _run_all(self) -> None:
        self.driver.find_element(By.XPATH, "//li[@role='menuitem'][div='Run']").click()
        self.until(lambda: self.all("[data-command='runmenu:run-all']"), "the menu")[0].click()

        def done() -> bool:
            assert self.errors() == []
            return f"Executed {self.cells} cells" in self.texts(".jp-Notebook-ExecutionIndicator", "textContent")[0]

        self.until(done, f"the {self.cells} cells", RUN)

    def errors(self) -> list[str]:
        """What cells have raised or written to stderr."""
        kinds = ("error", "stderr")
        outputs = (f"[data-mime-type='application/vnd.jupyter.{kind}']" for kind in kinds)
        return self.texts(", ".join(outputs), "textContent")

    def until(self, condition: Callable, what: object, seconds: int = PATIENCE):
        """Wait until a condition is met, and return what it gives."""
        wait = WebDriverWait(self.driver, seconds, poll_frequency=0.2)
        return wait.until(lambda _: condition(), f"waited {seconds} s in vain for {what} of {self.name}")

    def shows(self, read: Callable, expected) -> None:
        """Wait until the page is read as expected; say what it shows instead if it never is."""
        with suppress(TimeoutException):
            self.until(lambda: read() == expected, expected)
        assert read() == expected

    def all(self, selector: str, within: WebElement | None = None) -> list[WebElement]:
        """The elements of a CSS selector."""
        return (within or self.driver).find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str, within: WebElement | None = None) -> WebElement:
        """The only element of a CSS selector."""
        (element,) = self.all(selector, within)
        return element

    def texts(self, selector: str, what: str = "innerText") -> list[str]:
        """What is to be read in the elements of a CSS selector, at one moment."""
        read = "return [...document.querySelectorAll(arguments[0])].map(element => element[arguments[1]])"
        return self.driver.execute_script(read, selector, what)

    def widget(self) -> WebElement:
        """The only widget of the page, with all that is in it, brought into the window."""
        widget = self.one(".jp-OutputArea-output .jupyter-widgets:not(.jupyter-widgets *)")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", widget)
        self.until(widget.is_displayed, "the widget")
        return widget

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def image(self, selector: str) -> bytes:
        """The file that an <img> shows."""
        load = """fetch(document.querySelector(arguments[0]).src).then(answer => answer.blob()).then(blob => {
                      const reader = new FileReader();
                      reader.onload = () => arguments[1](reader.result.split(",")[1]);
                      reader.readAsDataURL(blob);
                  });"""
        return base64.b64decode(self.driver.execute_async_script(load, selector))

    def enter(self, field: WebElement, text: str) -> None:
        """Type over what stands in a field."""
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text or Keys.DELETE)

    def screenshot(self, folder: Path) -> None:
        """Take a picture of the window, for a folder and for `NANOQ_SCREENSHOTS` if there is such."""
        self.widget()
        for place in {folder, Path(os.environ.get("NANOQ_SCREENSHOTS", folder))}:
            place.mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(place / f"{self.name}.png")


@pytest.fixture(scope="session")
def programs() -> tuple[str, str]:
    """Chromium and its driver: where there are none the tests are skipped."""
    found = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if all(found):
        return found
    pytest.skip("no browser to test with: apt-get install chromium chromium-driver")


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """The folder of a user who has never seen JupyterLab before, except that it asks nobody about news."""
    home = tmp_path_factory.mktemp("home")
    (home / "notebooks").mkdir()
    news = home / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')
    return home


@pytest.fixture(scope="session")
def environment(home) -> dict[str, str]:
    """The variables of that user, with the quick profile that all tests run under."""
    own = ("JUPYTER", "IPYTHON", "XDG_", "MPLCONFIG")
    others = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return others | {"HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}


@pytest.fixture(scope="session")
def address(programs, home, environment) -> Iterator[str]:
    """Where `jupyter lab` shows a notebook, with {stem} to be filled in."""
    command = [sys.executable, "-m", "jupyterlab", *SERVER, f"--ServerApp.root_dir={home / 'notebooks'}"]
    with open(home / LOG, "w") as log:
        server = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
    try:
        info = WebDriverWait(server, PATIENCE).until(lambda _: _listening(home, server))
        yield f"http://127.0.0.1:{info['port']}/lab/workspaces/{{stem}}/tree/{{stem}}.ipynb?token={info['token']}"
    finally:
        server.terminate()  # and it ends its kernels
        server.wait(PATIENCE)


def _listening(home: Path, server: subprocess.Popen) -> dict | None:
    """What the server says about itself, as soon as it does."""
    assert server.poll() is None, (home / LOG).read_text()
    for file in home.glob("runtime/jpserver-*.json"):
        with suppress(json.JSONDecodeError):  # only half of it is there
            return json.loads(file.read_text())


@pytest.fixture(scope="session")
def driver(programs, home, environment) -> Iterator[webdriver.Chrome]:
    """Selenium's hand on the browser. Both programs are named, so that it looks for neither and downloads nothing."""
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in (*CHROMIUM, f"--user-data-dir={home / 'chromium'}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(programs[1], env=environment))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def pages(address, driver, home) -> Callable[[str], Page]:
    """Give the page of a notebook: the same each time, opened and run the first time."""
    opened = {}

    def page(stem: str) -> Page:
        if stem not in opened:
            opened[stem] = None
            copy = Path(shutil.copy(NOTEBOOKS / f"{stem}.ipynb", home / "notebooks"))
            opened[stem] = Page(driver, address, copy)
        assert opened[stem], f"{stem} could not be run: see what failed first"
        driver.switch_to.window(opened[stem].tab)
        return opened[stem]

    return page


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Put the end of the server's log under a failure."""
    report = yield
    if report.failed and "home" in item.funcargs and (log := item.funcargs["home"] / LOG).exists():
        report.sections.append(("jupyter lab", log.read_text()[-3000:]))
    return report
