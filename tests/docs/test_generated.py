"""Pages, tables and pictures that are made from the code are those of today's code.

After a change of settings, commands, layout or stored rows: `make pages`.
"""

import pytest

from docs.tools import pictures, reference, tables
from tests.docs.pages import DOCS

PAGES, PICTURES = reference.pages(), pictures.pictures()


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_todays(name):
    assert (DOCS / "reference" / name).read_text("utf-8") == PAGES[name], "run: make pages"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_todays(name):
    assert (DOCS / "pictures" / name).read_text("utf-8") == PICTURES[name], "run: make pages"


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_stored_rows(page):
    text = page.read_text("utf-8")
    assert "<!-- table: " in text
    assert tables.rendered(text) == text, "run: make pages"


def test_every_setting_and_every_option_has_a_row():
    assert PAGES["settings.md"].count("| `--") > 150
    assert "`--safety.horizon`" in PAGES["settings.md"]
    assert "`--slurm-gpus`" in PAGES["commands.md"] and "| `RUN` |" in PAGES["commands.md"]
