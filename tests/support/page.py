"""Looks at the service's page in a headless Chromium, as people do: reads, sorts, filters, goes by keyboard; and keeps pictures.

Usage: page.py WEIR SERVICES OUT

WEIR is the program, SERVICES scripts/services.sh, OUT the folder for the pictures. Starts a MySQL and a weir of its own in a
temporary folder. Exit 0 if everything holds. Speaks the DevTools protocol over a pipe, so it needs nothing but Python and pymysql.
"""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import pymysql

# A name that would do harm if it ever became markup.
EVIL = '<img src=x onerror="document.title=\'taken\'">'


class Browser:
    """A Chromium, and one page in it."""

    def __init__(self, program, folder):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        # The protocol reads descriptor 3 and writes descriptor 4.
        launch = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        flags = ["--no-sandbox", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", launch, program, *flags], pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self.number, self.buffer, self.troubles, self.session = 0, b"", [], None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.hear(answer)

    def next(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.read, 1 << 16)
            assert piece, "the browser has ended"
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def hear(self, event):
        """Whatever the browser complains of, or asks of anybody else."""
        method, of = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.troubles.append(of["exceptionDetails"]["text"] + str(of["exceptionDetails"].get("exception")))
        if method == "Log.entryAdded" and of["entry"]["level"] == "error":
            self.troubles.append(of["entry"]["text"] + " " + of["entry"].get("url", ""))
        if method == "Network.requestWillBeSent":
            url = of["request"]["url"]
            if not url.startswith(self.home) and not url.startswith("about:"):
                self.troubles.append(f"asks {url}")

    def open(self, url, width, height, dark):
        self.home = url
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.go("Page.navigate", url=url)

    def go(self, method, **parameters):
        """Loads, and waits until what was there before is gone and the page is there."""
        self.value("window.isOld = true")
        self.call(method, **parameters)
        loaded = "!window.isOld && document.readyState === 'complete' && document.getElementById('state') !== null"
        self.until("the page is loaded", loaded)

    def value(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def until(self, what, script, limit=30):
        end = time.monotonic() + limit
        while not self.value(script):
            assert time.monotonic() < end, f"not within {limit} s: {what}\n{self.value('document.body.innerText')}"
            time.sleep(0.2)

    def press(self, key, code=0, text=None):
        for kind in ["keyDown", "keyUp"]:
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def picture(self, file):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 3000), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))
        print(f"page: {file}")

    def close(self):
        self.process.terminate()
        self.process.wait()


# Contrast of every text with what lies behind it (WCAG 2.2, 1.4.3): 4.5, or 3 for large ones.
CONTRAST = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a === 1 && r !== undefined) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(style.color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) weak.push(`${node.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return weak;
})()
"""


def source(url):
    """A shop of three tables, and one that cannot be mirrored."""
    at = urlparse(url)
    connection = pymysql.connect(host=at.hostname, port=at.port, user=at.username, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
        for table in ["orders", "items", "customers"]:
            cursor.execute(f"CREATE TABLE shop.{table} (id INT PRIMARY KEY AUTO_INCREMENT, v INT)")
            rows = {"orders": 900, "items": 400, "customers": 50}[table]
            cursor.executemany(f"INSERT INTO shop.{table} (v) VALUES (%s)", [(n,) for n in range(rows)])
        cursor.execute(f"CREATE TABLE shop.`{EVIL[:60]}` (v INT)")
    return connection


def look(browser, url, connection, out):
    browser.open(url, 1200, 900, dark=False)
    browser.until("it streams", "document.getElementById('state').textContent.startsWith('streaming')")
    names = "[...document.querySelectorAll('#tables tbody th')].map((cell) => cell.firstChild.data)"
    browser.until("every table is shown", f"{names}.length === 4")
    assert browser.value(names)[1:] == ["shop.customers", "shop.items", "shop.orders"], browser.value(names)

    # What comes from the source is text.
    assert browser.value("document.images.length") == 0
    assert browser.value("document.title") == "weir · shop"
    assert browser.value(f"document.body.innerText.includes({json.dumps('shop.' + EVIL[:60])})")
    assert browser.value("document.getElementById('errors').textContent.includes('Way out: ')")

    # Live: rows that come are counted, and their rate is shown.
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO shop.orders (v) VALUES (%s)", [(n,) for n in range(300)])
    cells = "[...document.querySelectorAll('#tables tbody tr')].find((row) => row.innerText.includes('shop.orders')).cells"
    browser.until("the rows are counted", f"{cells}[4].textContent === '1,200'")
    browser.until("the rate was seen", "/[1-9].* at most/.test(document.getElementById('rate-said').textContent)")

    # What the service proves by itself is shown.
    browser.until("the rows are proven", f"{cells}[8].querySelector('time') !== null", 120)
    accounts = "[...document.querySelectorAll('#accounts tbody tr')].find((row) => row.innerText.includes('shop.orders')).cells"
    browser.until("the counts add up", f"{accounts}[9].querySelector('time') !== null", 120)

    # By mouse: sorted by the number of rows, the greatest first, then the other way round.
    click = "document.querySelector('[data-by=rows]').click()"
    browser.value(click)
    assert browser.value(names)[0] == "shop.orders"
    sort = "document.querySelector('[data-by=rows]').closest('th').getAttribute('aria-sort')"
    assert browser.value(sort) == "descending"
    browser.value(click)
    assert (browser.value(names)[-1], browser.value(sort)) == ("shop.orders", "ascending")

    # By keyboard: the skip link comes first, the filter can be reached and typed into, a header pressed.
    browser.value("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    browser.go("Page.reload")
    browser.until("every table is shown again", f"{names}.length === 4")
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.className") == "skip", browser.value("document.activeElement.outerHTML")
    browser.press("Enter", 13, "\r")
    assert browser.value("document.activeElement.id") == "main", browser.value("document.activeElement.outerHTML")
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.id") == "filter", browser.value("document.activeElement.outerHTML")
    browser.call("Input.insertText", text="ITEM")
    browser.until("only one is left", f"{names}.join() === 'shop.items'")
    browser.picture(out / "filtered.png")
    browser.value("document.getElementById('filter').value = ''; document.getElementById('filter').dispatchEvent(new Event('input'))")
    browser.value("document.querySelector('[data-by=lag]').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.value("document.querySelector('[data-by=lag]').closest('th').getAttribute('aria-sort')") == "descending"

    # For screen readers: landmarks, one heading of the first level, headers of rows and columns, one polite region.
    for what, count in {
        "header, main, footer": 3, "h1": 1, "[aria-live=polite]": 1, "[aria-live=assertive]": 0,
        "#tables thead th[scope=col]": 10, "#tables tbody th[scope=row]": 4, "section[aria-labelledby]": 4, "label input": 1,
    }.items():
        found = browser.value(f"document.querySelectorAll({json.dumps(what)}).length")
        assert found == count, f"{what}: {found}"
    assert browser.value("document.documentElement.lang") == "en"

    for name, width, dark in [("light", 1200, False), ("dark", 1200, True), ("narrow", 390, False)]:
        browser.open(url, width, 900, dark)
        browser.until("it is shown", f"{names}.length === 4 && document.querySelectorAll('#flow li').length === 5")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE shop.orders SET v = v + 1 LIMIT 100")
        browser.until("rates are known", "document.querySelectorAll('#rate polyline')[0].points.length > 2")
        assert browser.value(CONTRAST) == [], f"{name}: {browser.value(CONTRAST)}"
        overflow = browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{name}: the page is {overflow} px wider than its window"
        browser.picture(out / f"{name}.png")


def main():
    weir, services, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    chromium = Path(services).parent.parent / "target/services"
    chromium = Path(os.environ.get("WEIR_SERVICES_DIR", chromium)) / "chromium/bin/chromium"
    with tempfile.TemporaryDirectory(prefix="weir-page-") as folder:
        folder = Path(folder)
        environment = os.environ | {"WEIR_SERVICE_OWNER_PID": str(os.getpid())}
        url = subprocess.check_output([services, "mysql-start", folder / "mysql"], env=environment, text=True).strip()
        service = browser = None
        try:
            connection = source(url)
            (folder / "weir.toml").write_text(
                f'[source]\nname = "shop"\nurl = "{url}"\ntables = ["shop.*"]\n[warehouse]\nurl = "file://{folder}/lake"\n'
                f'[apply]\nstate_dir = "{folder}/state"\n[http]\nlisten = "127.0.0.1:0"\n[reconcile]\nhops_every = "1s"\ndeep_within = "5s"\n'
            )
            log = folder / "run.log"
            with log.open("w") as file:
                service = subprocess.Popen([weir, "--config", folder / "weir.toml", "run"], stderr=file)
            end = time.monotonic() + 60
            while not (found := re.search(r"http://[0-9.:]+", log.read_text())):
                assert time.monotonic() < end and service.poll() is None, log.read_text()
                time.sleep(0.1)
            page = found.group() + "/"
            browser = Browser(chromium, folder / "browser")
            look(browser, page, connection, out)
            assert browser.troubles == [], browser.troubles
            # A service that ends is said.
            service.send_signal(signal.SIGTERM)
            assert service.wait(30) == 0
            browser.until("the end is said", "document.getElementById('state').textContent.startsWith('no answer')")
        finally:
            if browser:
                browser.close()
            if service and service.poll() is None:
                service.kill()
                service.wait()
            subprocess.run([services, "mysql-stop", folder / "mysql"], check=False)
    print("page: everything holds")


main()
