#!/usr/bin/env python3
"""Templates of Handlebars and Mustache, against handlebars itself (Debian's package).

mustache.py PROGRAM [--seed N] [--cases N]"""

import argparse
import html
import json
import os
import pathlib
import random
import subprocess

from jinja import ask

HERE = pathlib.Path(__file__).resolve().parent
VARIABLES = {"name": "早馬 <\"'&>", "first": "one", "empty": "", "yes": True, "no": False, "nothing": None, "zero": 0,
             "n": 3, "real": 2.5, "list": ["a", "<b>", "c"], "none": [], "line": "a\nb",
             "user": {"name": "太郎", "tags": ["x", "y"], "deep": {"name": "内"}},
             "people": [{"name": "A", "age": 1, "pets": [{"name": "p"}, {"name": "q"}]}, {"name": "B"}, {"age": 3}]}

HANDLEBARS = [
    "plain", "{{name}}", "{{{name}}}", "{{&name}}", "{{ first }}", "{{missing}}|{{nothing}}|{{zero}}|{{no}}|{{yes}}|{{real}}",
    "{{user.name}}{{user/name}}{{user.deep.name}}{{user.missing.more}}", "{{list.[1]}} {{list.length}}",
    "{{#if yes}}a{{/if}}{{#if no}}b{{else}}c{{/if}}", "{{#if no}}a{{else if yes}}b{{else}}c{{/if}}",
    "{{#if no}}a{{else if no}}b{{else if zero}}z{{else}}c{{/if}}", "{{#unless no}}a{{else}}b{{/unless}}",
    "{{#if none}}a{{else}}b{{/if}}{{#if zero}}a{{else}}b{{/if}}{{#if empty}}a{{else}}b{{/if}}{{#if user}}a{{/if}}",
    "{{#each list}}{{@index}}{{this}}{{#unless @last}}, {{/unless}}{{/each}}", "{{#each none}}a{{else}}b{{/each}}",
    "{{#each people}}{{name}}:{{#each pets}}{{name}}/{{../name}}/{{../../first}}{{@../index}}{{@index}} {{/each}}{{/each}}",
    "{{#each user}}{{@key}}={{#if @first}}!{{/if}}{{/each}}", "{{#each people as |p i|}}{{i}}{{p.name}}{{name}}{{/each}}",
    "{{#each user as |v k|}}{{k}} {{/each}}", "{{#with user}}{{name}} {{../first}} {{@root.first}}{{/with}}",
    "{{#with nothing}}a{{else}}b{{/with}}", "{{#user}}{{name}}{{first}}{{/user}}{{^user}}no{{/user}}",
    "{{#list}}{{.}}{{/list}}{{^none}}none{{/none}}{{#none}}x{{/none}}", "{{#yes}}{{first}}{{/yes}}{{#no}}x{{/no}}",
    "{{#people}}{{name}}{{^}}x{{/people}}", "{{^no}}a{{else}}b{{/no}}", "{{#if yes}}a{{^}}b{{/if}}",
    "{{! comment }}a{{!-- with }} in it --}}b{{!}}c", "a {{~first~}} b", "a\n{{~#if yes~}}\n b \n{{~/if~}}\n c",
    "a\n{{#if yes}}\nb\n{{/if}}\nc\n", "  {{#each list}}  \n  {{this}}\n  {{/each}}  \nend", "{{#if yes}}\n{{else}}\nx\n{{/if}}\ny",
    "a\n  {{! alone }}  \nb", "{{#if yes}} a {{/if}}\nb", "\\{{name}} {{first}}", "\\\\{{first}}", "a\\b {{first}}",
    "{{lookup list 1}} {{lookup user 'name'}} {{lookup nothing 1}}",
    "{{#each list}}{{lookup ../list @index}}{{/each}}", "{{#with (lookup people 0)}}{{name}}{{/with}}",
    "{{#if (eq n 3)}}a{{/if}}{{#if (ne n 3)}}b{{/if}}{{#if (lt zero n)}}c{{/if}}{{#if (gte real 2.5)}}d{{/if}}",
    "{{#if (and yes (not no))}}a{{/if}}{{#if (or no empty)}}b{{else}}c{{/if}}", "{{#if (eq first 'one')}}a{{/if}}",
    "{{this.first}}{{./first}}{{#each list}}{{this}}{{./none}}{{/each}}", "{{line}}", "{{[first]}}",
    "{", " }}", "{ {", "{{#each people}}{{#if name}}{{name}}{{else}}?{{/if}}{{/each}}", "{{#each this}}{{@key}} {{/each}}",
    "{{#with user}}{{#with deep}}{{name}}{{../name}}{{../../first}}{{/with}}{{/with}}", "é{{first}}日本",
    # refused
    "{{", "{{name", "{{#if yes}}a", "{{/if}}", "{{#if yes}}{{/each}}", "{{else}}", "{{unknown first}}", "{{! open",
    "{{len list}}{{#if (eq (len none) 0)}}0{{/if}}{{#if (gt (len people) 2)}}many{{/if}}",
    "{{#if yes}}{{else}}{{else}}{{/if}}", "{{'open}}", "{{{name}}", "{{a b c}}", "{{(eq 1 1}}",
]
# Partials that sources may include.
PARTIALS = {"greet": "Dear {{name}}", "lines": "a\n{{first}}\n", "pet": "[{{name}}]", "nested": "({{> greet}})",
            "indented": "x\n  {{> lines}}\ny\n", "value": "|\n{{{line}}}\n|\n", "blank": "\n\nz\n",
            "row": "{{#each pets}}{{> pet}}{{/each}}\n", "open": "v{{#if yes}}w{{/if}}",
            "button": "<a href=\"{{url}}\">{{label}}{{#if name}} {{name}}{{/if}}</a>\n"}
HANDLEBARS_PARTIALS = [
    "{{> greet}}", "{{>greet}}!", "a {{~> greet ~}} b", "{{> pet user}}{{> pet user.deep}}{{> greet this}}",
    "{{#each people}}{{> pet}}{{> pet ..}}{{/each}}", "{{> nested}}{{> open}}", "a\n  {{> lines}}\nb\n", "  {{> lines}}  \nb",
    "a\n\t{{> indented}}\nb", "  {{> value}}\n.", "  {{> blank}}\nq", "{{#each people}}\n  {{> row}}\n{{/each}}",
    "x {{> lines}} y\n  {{first}} {{> lines}}\n", "{{#with user}}  {{> pet}}\n{{/with}}", "{{> missing}}", "{{>}}", "{{> greet",
    # With parameters, as buttons of newsletters have them.
    "{{> button url='https://x.example/?a=1&b=2' label=first}}{{> button label=name}}{{> button user label='L'}}",
    "{{#each people}}{{> button label=name url=(lookup ../list @index)}}{{/each}}", "{{> greet name='N'}}{{name}}",
    "{{#with user}}{{> button label=../first}}{{/with}}", "{{> greet list name='N'}}", "  {{> button label=n}}\nx",
    "{{> greet user user}}", "{{> greet name=}}", "{{> greet name='N' user}}", "{{> greet =1}}",
]
# The cases of partials of Mustache's public specification, written anew: template, partials, variables, output.
SPECIFIED = [
    ('"{{>text}}"', {"text": "from partial"}, {}, '"from partial"'), ('"{{>text}}"', {}, {}, '""'),
    ('"{{>partial}}"', {"partial": "*{{text}}*"}, {"text": "content"}, '"*content*"'),
    ("{{>node}}", {"node": "{{content}}<{{#nodes}}{{>node}}{{/nodes}}>"},
     {"content": "X", "nodes": [{"content": "Y", "nodes": []}]}, "X<Y<>>"),
    ("| {{>partial}} |", {"partial": "\t|\t"}, {}, "| \t|\t |"),
    ("  {{data}}  {{> partial}}\n", {"partial": ">\n>"}, {"data": "|"}, "  |  >\n>\n"),
    ("|\r\n{{>partial}}\r\n|", {"partial": ">"}, {}, "|\n>|"),  # lines of templates end in LF here
    ("  {{>partial}}\n>", {"partial": ">\n>"}, {}, "  >\n  >>"),
    (">\n  {{>partial}}", {"partial": ">\n>"}, {}, ">\n  >\n  >"),
    ("\\\n {{>partial}}\n/\n", {"partial": "|\n{{{content}}}a b{{{content}}}c\n|\n"}, {"content": "<\n->"},
     "\\\n |\n <\n->a b<\n->c\n |\n/\n"),
    ("|{{> partial }}|", {"partial": "[]"}, {"boolean": True}, "|[]|"),
    # Ours: delimiters are each text's own; what includes itself for ever is an error.
    ("{{=<% %>=}}<%> p%>{{x}}", {"p": "{{x}}<% x %>"}, {"x": "1"}, "1<% x %>{{x}}"),
    ("{{> p}}", {"p": "{{> p}}"}, {}, None), ("{{> p}}", {"p": "{{#x}}"}, {}, None),
    ("a\n  {{> p}}\nb\n", {"p": "c\n  {{> q}}\nd\n", "q": "e\nf\n"}, {}, "a\n  c\n    e\n    f\n  d\nb\n"),
]
# Source, and the output as text; None: it is refused.
MUSTACHE = [
    ("{{name}}{{{name}}}{{& name}}", 3 * VARIABLES["name"]), ("{{#user}}{{name}}{{first}}{{/user}}", "太郎one"),
    ("{{#list}}{{.}}{{/list}}", "a<b>c"), ("{{user.deep.name}}{{user.no.way}}", "内"),
    ("{{^none}}x{{/none}}{{#nothing}}y{{/nothing}}{{^nothing}}z{{/nothing}}", "xz"),
    ("{{#people}}{{name}}{{#pets}}{{name}}{{age}}{{/pets}};{{/people}}", f"Ap1q1;B;{VARIABLES['name']};"),
    ("a\n{{#yes}}\nb\n{{/yes}}\nc\n", "a\nb\nc\n"), ("a\n {{! c }} \nb", "a\nb"), ("{{ #yes }}a{{ /yes }}", "a"),
    ("{{=<% %>=}}<%first%>{{first}}<%={{ }}=%>{{first}}", "one{{first}}one"), ("{{= | | =}}|first|", "one"),
    ("{{if}}{{#if}}x{{/if}}", ""), ("{{#user}}{{#deep}}{{name}}{{first}}{{/deep}}{{/user}}", "内one"),
    ("{{#yes}}{{/no}}", None), ("{{#yes}}", None), ("{{/yes}}", None), ("{{=x=}}", None),
]


def handlebars(lines):
    done = subprocess.run(["node", HERE / "handlebars.js"], input="".join(json.dumps(line) + "\n" for line in lines),
                          capture_output=True, text=True, timeout=120, check=True,
                          env={**os.environ, "NODE_PATH": "/usr/share/nodejs"})
    return [json.loads(line) for line in done.stdout.splitlines()]


def same(said, want):
    """Only how a quote is written as an entity may differ."""
    return said is None and want is None or None not in (said, want) and html.unescape(said) == html.unescape(want) and \
        said.count("&lt;") == want.count("&lt;")


class Generator:
    """Templates of Handlebars at random."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def path(self, depth):
        return self.random.choice(["name", "first", "empty", "missing", "user.name", "user.deep.name", "this.first",
                                   "@root.first", *(["../name", "../first", "this.name"] if depth else [])])

    def number(self, depth):
        return self.random.choice(["n", "list.length", *(["@index", "@key"] if depth else [])])

    def value(self, depth):
        kind = self.random.randrange(6)
        if kind < 4:
            return self.path(depth) if kind < 3 else self.number(depth)
        if kind == 4:
            return self.random.choice(["yes", "no", "zero", "none", "nothing", "list", "user"])
        return f"({self.random.choice(['eq', 'ne'])} {self.path(depth)} {self.random.choice(['3', repr('one'), 'first'])})"

    def open(self, inner):
        return "{{" + self.random.choice(["", "", "", "~"]) + inner + self.random.choice(["", "", "", "~"]) + "}}"

    def text(self):
        return self.random.choice(["a", " ", "\n", "<b>", "早", "{", "a}", "\n\n", "  ", "&amp;"])

    def statements(self, depth=0, level=0):
        parts = []
        for _ in range(self.random.randrange(1, 6)):
            kind = self.random.randrange(9 if level < 4 else 4)
            if kind == 0:
                parts.append(self.text())
            elif kind == 1:  # behind a text, since Handlebars adds up two numbers that stand alone
                parts.append("i" + self.open(self.number(depth)).replace("{~", "{"))
            elif kind == 2:
                parts.append(self.open(self.path(depth)))
            elif kind == 3:
                parts.append(self.random.choice(["{{{" + self.path(depth) + "}}}", "{{! c }}", "{{!-- }} --}}"]))
            elif kind <= 5:
                name = self.random.choice(["if", "unless"])
                middle = "".join(self.open(self.random.choice(["else", "^"])) + self.statements(depth, level + 1)
                                 for _ in range(self.random.randrange(2)))
                if name == "if" and self.random.random() < 0.3:
                    middle = self.open(f"else if {self.value(depth)}") + self.statements(depth, level + 1) + middle
                parts.append(self.open(f"#{name} {self.value(depth)}") + self.statements(depth, level + 1) + middle
                             + self.open(f"/{name}"))
            else:
                name, of = self.random.choice([("each", "list"), ("each", "people"), ("each", "@root.people"),
                                               ("each", "user"), ("with", "user"), ("with", "@root.user"),
                                               ("each", "none"), ("with", "missing")])
                inverse = self.open("else") + self.statements(depth, level + 1) if self.random.random() < 0.3 else ""
                parts.append(self.open(f"#{name} {of}") + self.statements(depth + 1, level + 1) + inverse
                             + self.open(f"/{name}"))
        return "".join(parts)

    def with_partials(self, count):
        """Some, in each of which partials stand on lines of their own and within lines."""
        def tag():
            space = self.random.choice(["", " ", "  ", "\t"])
            return self.random.choice(["\n", "", "x"]) + space + "{{> " + self.random.choice(sorted(PARTIALS)) + "}}" + \
                self.random.choice(["\n", "", "y", " \n"])
        return ["".join(self.statements() + tag() for _ in range(self.random.randint(1, 3))) for _ in range(count)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seed", type=int, default=1)  # CI tries the same each time
    parser.add_argument("--cases", type=int, default=1500)
    options = parser.parse_args()
    generator = Generator(options.seed)
    sources = HANDLEBARS + [generator.statements() for _ in range(options.cases)]
    lines = [{"template": s, "language": "handlebars", "place": p, "variables": VARIABLES}
             for s in sources for p in ("text", "html")]
    lines += [{"template": s, "language": "handlebars", "place": p, "variables": VARIABLES, "partials": PARTIALS}
              for s in HANDLEBARS_PARTIALS + generator.with_partials(options.cases // 5) for p in ("text", "html")]
    failures = []
    for line, said, want in zip(lines, ask(options.program, lines), handlebars(lines), strict=True):
        if not same(said.get("out"), want):
            failures.append(f"handlebars {line['place']} {line['template']!r}\n  want {want!r}\n  got  {said}")
    lines = [{"template": s, "language": "mustache", "place": "text", "variables": VARIABLES} for s, _ in MUSTACHE]
    for (source, want), said in zip(MUSTACHE, ask(options.program, lines), strict=True):
        if said.get("out") != want:
            failures.append(f"mustache {source!r}\n  want {want!r}\n  got  {said}")
    specified = [{"template": t, "language": "mustache", "place": "text", "variables": v, "partials": p}
                 for t, p, v, _ in SPECIFIED]
    for line, (_, _, _, want), said in zip(specified, SPECIFIED, ask(options.program, specified), strict=True):
        if said.get("out") != want:
            failures.append(f"mustache {line}\n  want {want!r}\n  got  {said}")
    print("\n".join(failures[:20]))
    print(f"{2 * len(sources)} cases of Handlebars, {len(MUSTACHE) + len(specified)} of Mustache, {len(failures)} differ (seed {options.seed})")
    return bool(failures)


if __name__ == "__main__":
    raise SystemExit(main())
