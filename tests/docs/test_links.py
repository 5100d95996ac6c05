"""Every local link of every page leads to a file, and to a heading where it names one."""

import pytest

from tests.docs.pages import NAMES, ROOT, anchors, links


def test_the_reader_of_links_reads_all_kinds():
    text = "[a](b.md#c) ![d](e.png)\n```\n[f](g)\n```\n`[h](i)`"
    assert links(text) == ["b.md#c", "e.png"]
    assert anchors("# A `b`: c-d_e\n```\n# no\n```\n## F (g)") == {"a-b-c-d_e", "f-g"}
    assert len(NAMES) > 25


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    page, broken = NAMES[name], []
    for link in links(page.read_text("utf-8")):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        found = target.is_relative_to(ROOT) and target.exists()
        if found and anchor:
            found = anchor in anchors(target.read_text("utf-8"))
        broken += [] if found else [link]
    assert broken == []
