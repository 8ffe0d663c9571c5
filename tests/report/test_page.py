# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's page in a real browser: what people do with it, and what hostile hosts try with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.tests.report import fleet
from ansible_collections.baremetal.noiommu.tests.report.browser import Browser

Page = Callable[[dict[str, Any]], str]

NAMES = "return [...document.querySelectorAll('#rows .open')].map((one) => one.textContent);"
PAINTED = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime;"
ENTER, SPACE, TAB = "\ue007", " ", "\ue004"


def load(browser: Browser, url: str) -> None:
    """Open the page and wait until the hosts are there."""
    browser.open(url)
    assert browser.wait("return document.querySelectorAll('#rows > tr').length > 0;"), browser.console()


def sort_by(browser: Browser, title: str) -> list[str]:
    """Press a column's head and return the names in their new order."""
    browser.run(
        "[...document.querySelectorAll('#columns button')].find((one) => one.textContent === arguments[0]).click();",
        title,
    )
    return browser.run(NAMES)


def find(browser: Browser, words: str, expected: int) -> list[str]:
    """Type into the search field and return the names that are left."""
    browser.run(
        "const field = document.getElementById('find'); field.value = arguments[0];"
        "field.dispatchEvent(new Event('input'));",
        words,
    )
    browser.wait("return document.querySelectorAll('#rows .open').length === %d;" % expected)
    return browser.run(NAMES)


def tile(browser: Browser, name: str) -> list[str]:
    """Press one of the numbers at the top and return the names that are left."""
    browser.run("document.querySelector(`[data-tile=${arguments[0]}]`).click();", name)
    return browser.run(NAMES)


def choose(browser: Browser, field: str, value: str) -> list[str]:
    """Choose from a list and return the names that are left."""
    browser.run(
        "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
        "field.dispatchEvent(new Event('change'));",
        field,
        value,
    )
    return browser.run(NAMES)


def open_host(browser: Browser, name: str) -> str:
    """Show a host's details and return their text."""
    return browser.run(
        "const one = [...document.querySelectorAll('#rows .open')].find((one) => one.textContent === arguments[0]);"
        "if (one.getAttribute('aria-expanded') === 'false') one.click();"
        "return one.closest('tr').nextElementSibling.innerText;",
        name,
    )


@pytest.fixture
def browser():
    """A desktop's window."""
    with Browser() as one:
        yield one


def test_everything_about_a_small_fleet(browser: Browser, page: Page) -> None:
    load(browser, page(fleet.realistic()))
    names = browser.run(NAMES)
    # The worst comes first.
    assert names == [
        "lab3",
        "lab2",
        "core3",
        "lab1",
        "edge4",
        "edge2",
        "edge3",
        "lab5",
        "core1",
        "core2",
        "edge1",
        "edge10",
        "lab4",
    ]
    numbers = browser.run(
        "return Object.fromEntries([...document.querySelectorAll('#summary button')].map("
        "(one) => [one.dataset.tile, Number(one.querySelector('b').textContent)]));"
    )
    assert numbers == {
        "hosts": 13,
        "insecure": 6,
        "expired": 1,
        "drifted": 2,
        "refused": 2,
        "failed": 1,
        "unreachable": 1,
        "maintenance": 1,
        "tainted": 6,
        "reboot": 1,
        "keys": 1,
        "stale": 13,
    }
    text = open_host(browser, "edge3")
    for expected in (
        "unbind from i40e",
        "2026-01-15T08:30:00Z (written down when the devices were taken)",
        "2026-06-30, end of the day UTC",
        "process dpdk-testpmd[1234], 2026-01-15T08:30:00Z",
        "0000:65:00.1",
        "b4:96:91:00:00:01",
        "/dev/vfio/11",
        "unsafe",
        "512",
    ):
        assert expected in text
    assert "No route to host" in open_host(browser, "lab2")
    assert "Choose another device." in open_host(browser, "core3")
    assert "/var/lib/dkms/mok.pub" in open_host(browser, "lab4")
    assert "that is over" in open_host(browser, "edge4")
    assert browser.console() == []


def test_the_picture_in_the_documentation(page: Page, tmp_path: Path) -> None:
    """Set NOIOMMU_PICTURE to renew docs/images/report.png."""
    target = Path(os.environ.get("NOIOMMU_PICTURE", tmp_path / "report.png"))
    with Browser(1280, 1200) as browser:
        browser.set_clock("2026-03-01T12:20:00Z")
        load(browser, page(fleet.realistic()))
        open_host(browser, "edge4")
        target.write_bytes(browser.picture())
    assert target.read_bytes().startswith(b"\x89PNG") and target.stat().st_size > 50_000


def test_it_sorts(browser: Browser, page: Page) -> None:
    load(browser, page(fleet.realistic()))
    up = sort_by(browser, "Host")
    assert up == [
        "core1",
        "core2",
        "core3",
        "edge1",
        "edge2",
        "edge3",
        "edge4",
        "edge10",
        "lab1",
        "lab2",
        "lab3",
        "lab4",
        "lab5",
    ]
    assert sort_by(browser, "Host") == up[::-1]
    assert (
        browser.run(
            "return document.querySelector('[aria-sort]').textContent + ' '"
            "+ document.querySelector('[aria-sort]').getAttribute('aria-sort');"
        )
        == "Host descending"
    )
    for title in browser.run("return [...document.querySelectorAll('#columns button')].map((one) => one.textContent);"):
        assert sorted(sort_by(browser, title)) == sorted(up)
    assert browser.console() == []


def test_it_filters(browser: Browser, page: Page) -> None:
    load(browser, page(fleet.realistic()))
    assert set(tile(browser, "drifted")) == {"edge2", "edge3"}
    assert tile(browser, "expired") == ["edge4"]
    assert tile(browser, "keys") == ["lab4"]
    assert len(tile(browser, "keys")) == 13
    assert choose(browser, "backend", "builtin") == ["edge10"]
    assert len(choose(browser, "backend", "")) == 13
    assert choose(browser, "kernel", fleet.KERNELS[3]) == ["core2"]
    choose(browser, "kernel", "")
    assert find(browser, "i40e unbind", 1) == ["edge3"]
    assert find(browser, "no such thing", 0) == []
    assert browser.run("return document.getElementById('shown').textContent;") == "No host matches."
    browser.run("document.getElementById('clear').click();")
    assert browser.wait("return document.querySelectorAll('#rows .open').length === 13;")
    assert browser.console() == []


def test_the_keyboard_is_enough(browser: Browser, page: Page) -> None:
    load(browser, page(fleet.realistic()))
    focus = "const one = document.activeElement; return `${one.tagName} ${one.textContent.slice(0, 30)}`;"
    browser.press(TAB)
    assert browser.run(focus) == "A Skip to the hosts"
    for _press in range(40):
        if browser.run("return document.activeElement.matches('#rows .open');"):
            break
        browser.press(TAB)
    assert browser.run(focus) == "BUTTON lab3"
    browser.press(ENTER)
    assert "interpreter was not found" in browser.run("return document.querySelector('.details').innerText;")
    browser.press(SPACE)
    assert browser.run("return document.querySelectorAll('.details').length;") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Browser, page: Page, scheme: str) -> None:
    """Every text stands out from its ground by 4.5 to 1 (WCAG 2 AA)."""
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    load(browser, page(fleet.realistic()))
    open_host(browser, "edge3")
    low = browser.run("""
        const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
          .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
          .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
        const ground = (element) => {
          for (let one = element; one; one = one.parentElement) {
            const color = numbers(getComputedStyle(one).backgroundColor);
            if (color.length === 3 || color[3] > 0) return color;
          }
          return [255, 255, 255];
        };
        const low = [];
        for (const element of document.querySelectorAll("main *, header *")) {
          const own = [...element.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
          if (!own || element.disabled || element.matches("noscript, script")) continue;
          const own_light = light(numbers(getComputedStyle(element).color));
          const [a, b] = [own_light, light(ground(element))].sort((x, y) => y - x);
          if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${element.outerHTML.slice(0, 80)} ${(a + 0.05) / (b + 0.05)}`);
        }
        return low;""")
    assert low == []
    dark = browser.run("return getComputedStyle(document.body).backgroundColor;")
    assert (dark == "rgb(20, 23, 28)") is (scheme == "dark")


@pytest.mark.parametrize("width", [1280, 1270, 1260, 700])
def test_no_window_has_to_be_scrolled_sideways(width: int, page: Page) -> None:
    with Browser(width, 900) as browser:
        load(browser, page({**fleet.realistic(), "a" * 200: fleet.answers()}))
        open_host(browser, "edge3")
        wide = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth];")
        assert wide[0] <= wide[1] == width


def test_a_phone_shows_it_without_scrolling_sideways(page: Page) -> None:
    with Browser(390, 844, phone=True) as browser:
        load(browser, page({**fleet.realistic(), "a" * 200: fleet.answers()}))
        open_host(browser, "edge3")
        wide = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth];")
        assert wide[0] <= wide[1] == 390
        # Columns' heads are out of sight: each value says what it is, and a list sorts.
        label = "getComputedStyle(document.querySelector('#rows td:nth-child(2)'), '::before').content"
        assert browser.run("return %s;" % label) == '"State"'
        choose(browser, "order", "0")
        assert browser.run(NAMES)[1] == "core1"
        small = browser.run(
            "return [...document.querySelectorAll('button, select, input')].filter("
            "(one) => one.offsetHeight && one.offsetHeight < 32).map((one) => one.outerHTML);"
        )
        assert small == []
        assert browser.console() == []


def test_hostile_hosts_are_shown_and_nothing_more(browser: Browser, page: Page) -> None:
    hosts = fleet.hostile()
    load(browser, page(hosts))
    assert browser.run("return document.querySelectorAll('#rows .open').length;") == len(hosts)
    browser.run("for (const one of document.querySelectorAll('#rows .open')) one.click();")
    for title in browser.run("return [...document.querySelectorAll('#columns button')].map((one) => one.textContent);"):
        sort_by(browser, title)
    found = browser.run(
        "return [window.pwned ?? null, document.scripts.length,"
        "document.querySelectorAll('#rows img, #rows svg, #rows script, #rows a').length];"
    )
    assert found == [None, 2, 0]
    assert find(browser, "<img onerror=window.pwned=1>", 1) != []
    assert browser.console() == []


def test_the_policy_lets_nothing_else_run(browser: Browser, page: Page) -> None:
    load(browser, page(fleet.realistic()))
    browser.run(
        "const one = document.createElement('script'); one.textContent = 'window.pwned = 1';"
        "document.body.append(one);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.pwned=1>');"
    )
    assert browser.run("return window.pwned ?? null;") is None
    assert any("Content Security Policy" in line for line in browser.console())


def test_five_thousand_hosts(browser: Browser, page: Page, capsys: pytest.CaptureFixture) -> None:
    url = page(fleet.generated(5000))
    load(browser, url)
    painted = browser.wait(PAINTED)
    ready = browser.run("return performance.now();")
    spent = {}
    for what, script in {
        "sort": "document.querySelector('#columns button').click();",
        "filter": "document.querySelector('[data-tile=insecure]').click();",
        "next page": "document.getElementById('next').click();",
        "clear": "document.querySelector('[data-tile=insecure]').click();",
    }.items():
        spent[what] = browser.run(
            "const start = performance.now(); %s document.body.offsetHeight;return performance.now() - start;" % script
        )
    shown = find(browser, "node4999", 1)
    assert shown == ["node4999"]
    find(browser, "", 100)
    assert browser.run("return document.getElementById('shown').textContent;") == "Hosts 1 to 100 of 5000"
    seen = set(browser.run(NAMES))
    for _turn in range(49):
        browser.run("document.getElementById('next').click();")
        seen |= set(browser.run(NAMES))
    assert len(seen) == 5000
    assert browser.run("return document.getElementById('next').disabled;")
    assert browser.console() == []
    with capsys.disabled():
        print(
            f"\n5,000 hosts: first paint after {painted:.0f} ms, hosts shown after less than {ready:.0f} ms; "
            + ", ".join(f"{what} {time:.0f} ms" for what, time in spent.items())
        )
    assert painted < 3000 and max(spent.values()) < 2000
