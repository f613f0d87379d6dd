"""Plain text of Wikipedia articles from a MediaWiki dump, to heal pruned models with: DUMP.xml.bz2 OUT.txt.

The dump of the sweep in docs/methods/layer_pruning.md is the 106-article sample inside PyPI's gensim 4.4.0 wheel
(gensim/test/test_data/enwiki-latest-pages-articles1...shortened.bz2). Articles only (namespace 0, no redirects); templates, tables,
references, files and markup removed; one paragraph a line, articles apart by an empty line. Not a full MediaWiki parser: what it
cannot read it drops.
"""

import bz2
import html
import re
import sys
import xml.etree.ElementTree as xml


def without_nested(text, opening, closing):
    """Drops every opening...closing span, nested ones with it."""
    kept, depth, at = [], 0, 0
    for mark in re.finditer(f"{re.escape(opening)}|{re.escape(closing)}", text):
        if depth == 0:
            kept.append(text[at: mark.start()])
        depth = depth + 1 if mark.group() == opening else max(depth - 1, 0)
        at = mark.end()
    return "".join(kept) + (text[at:] if depth == 0 else "")


def link_text(match):
    target, _, shown = match.group(1).partition("|")
    if ":" in target and target.split(":", 1)[0].strip().lower() in ("file", "image", "category", "wikt", "media") or re.match(r"[a-z-]{2,12}:", target):
        return ""
    return shown.split("|")[-1] if shown else target


def plain(text):
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"<(ref|gallery|math|timeline|source|pre|score|imagemap)\b[^>/]*>.*?</\1>", "", text, flags=re.S | re.I)
    text = re.sub(r"<[^>]{1,300}>", "", text)
    text = without_nested(without_nested(text, "{{", "}}"), "{|", "|}")
    for _ in range(3):  # captions of files hold links of their own
        text = re.sub(r"\[\[([^\[\]]*)\]\]", link_text, text)
    text = re.sub(r"\[https?://\S+ ?([^\]]*)\]", r"\1", text)
    text = re.sub(r"'{2,}", "", html.unescape(text)).replace("\xa0", " ")
    lines = []
    for line in text.splitlines():
        line = re.sub(r"\s+", " ", line).strip()
        if re.match(r"=+.*=+$", line):
            if line.strip("= ").lower() in ("references", "external links", "see also", "further reading", "notes", "bibliography", "sources"):
                break
            continue
        line = re.sub(r"^[*#:;]+ *", "", line)
        if len(line) >= 60 and not line.startswith(("|", "!", "{", "__")):
            lines.append(line)
    return "\n".join(lines)


def main(dump, out):
    articles = 0
    with bz2.open(dump) as source, open(out, "w", encoding="utf-8") as sink:
        page = {}
        for _, element in xml.iterparse(source):
            name = element.tag.rsplit("}", 1)[-1]
            if name in ("ns", "redirect", "text", "title"):
                page[name] = element.text or ""
            if name != "page":
                continue
            if page.get("ns") == "0" and "redirect" not in page and len(text := plain(page.get("text", ""))) > 2000:
                sink.write(text + "\n\n")
                articles += 1
            page = {}
            element.clear()
    print(f"{articles} articles")


main(*sys.argv[1:])
