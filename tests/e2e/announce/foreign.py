"""Judges what the project generates by parsers of other makes: foreign.py DIRECTORY.

In DIRECTORY are `announcement.desc` (a set of descriptors) and N.json, N.protobuf, N.toml, N.markdown,
N.html, N.text, N.atom and N.news of the same announcement. Prints a line per disagreement.
"""

import html.parser
import json
import pathlib
import sys
import tomllib
import xml.etree.ElementTree as ElementTree

import feedparser
import markdown_it
import portage.news
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

ATOM = "{http://www.w3.org/2005/Atom}"
VOID = {"meta", "br", "hr", "img", "input"}


def messages(directory):
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString((directory / "announcement.desc").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    kind = pool.FindMessageTypeByName("hotmerge.announcement.v1.Announcement")
    return message_factory.GetMessageClass(kind)


def protobuf(path, truth, kind):
    message = kind()
    message.ParseFromString(path.read_bytes())
    said = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert said == truth, f"{said} is not {truth}"
    assert json_format.ParseDict(truth, kind()) == message, "the JSON is another message"


def toml(path, truth):
    said = tomllib.loads(path.read_text(encoding="utf-8"))
    assert said == truth, f"{said} is not {truth}"


def markdown(path, truth):
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(
        path.read_text(encoding="utf-8")
    )
    headings = [token.tag for token in tokens if token.type == "heading_open"]
    assert headings and headings[0] == "h1", f"the first heading is of {headings[:1]}"
    assert set(headings) <= {"h1", "h2", "h3"}, f"headings are {headings}"
    assert all(token.type != "code_block" for token in tokens), "there is indented code"


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.titles, self.bad = [], 0, []

    def handle_starttag(self, tag, attributes):
        self.titles += tag == "title"
        if tag in ("script", "style", "iframe", "object", "form"):
            self.bad.append(tag)
        for name, value in attributes:
            scheme = (value or "").strip().lower().split(":")[0]
            if name.startswith("on") or scheme in ("javascript", "data", "vbscript"):
                self.bad.append(f"{name}={value}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def page(path, truth):
    reader = Page()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open, f"{reader.open} stay open"
    assert reader.titles == 1 and not reader.bad, f"{reader.titles} titles, {reader.bad}"


def text(path, truth):
    said = path.read_text(encoding="utf-8")
    assert all(sign.isprintable() or ord(sign) not in range(32) or sign == "\n" for sign in said)


def atom(path, truth):
    data = path.read_bytes()
    entry = ElementTree.fromstring(data)
    assert entry.tag == ATOM + "entry", entry.tag
    assert entry.findtext(ATOM + "updated") == truth["published"]
    assert [tag.get("term") for tag in entry.findall(ATOM + "category")] == truth["tags"]
    body = data.split(b"?>", 1)[1]
    head = b"<feed xmlns='http://www.w3.org/2005/Atom'><id>urn:x</id><title>t</title><updated>"
    head += truth["published"].encode() + b"</updated>"
    feed = feedparser.parse(head + body + b"</feed>")
    assert not feed.bozo, feed.bozo_exception
    (entry,) = feed.entries
    assert entry.link == truth["url"] and entry.author_detail.email == "ada@example.org"
    assert entry.content[0].type == "text/html" and entry.content[0].value


class Installed:
    """What is installed, as Portage asks for it."""

    def __init__(self, *packages):
        self.packages = packages

    def match(self, atom):
        return [package for package in self.packages if package == atom]


def news(path, truth):
    item = portage.news.NewsItem(str(path), path.name)
    assert item.isValid(), "Portage finds it invalid"
    restrictions = [one for same in item.restrictions.values() for one in same]
    assert len(restrictions) == len(truth["news"]["display_if_installed"]), "another audience"
    (package,) = truth["news"]["display_if_installed"]
    assert item.isRelevant(Installed(package), None, None), "the audience does not see it"
    assert not item.isRelevant(Installed("a/b"), None, None), "others see it"


def main():
    directory = pathlib.Path(sys.argv[1])
    kind = messages(directory)
    judges = {
        "protobuf": lambda path, truth: protobuf(path, truth, kind),
        "toml": toml,
        "markdown": markdown,
        "html": page,
        "text": text,
        "atom": atom,
        "news": news,
    }
    judged = 0
    for path in sorted(directory.glob("*.json")):
        truth = json.loads(path.read_text(encoding="utf-8"))
        for name, judge in judges.items():
            file = path.with_suffix("." + name)
            if not file.exists():
                continue
            judged += 1
            try:
                judge(file, truth)
            except Exception as error:  # whatever a parser says is a disagreement
                print(f"{file.name}: {type(error).__name__}: {error}")
    print(f"judged {judged}", file=sys.stderr)


main()
