"""Parts of the page: whatever is passed in is escaped, tables name their rows and columns."""

from markupsafe import Markup

from mlcil.reporting.html import environment
from mlcil.reporting.sections import Table


def render(source, **values):
    return environment().from_string("{% import 'parts.html.j2' as parts %}" + source).render(values)


def test_tables_name_their_rows_and_columns():
    table = Table("what <it> is", ["<run>", "value"], [["<a>", "1 & 2"]], groups=[("", 1), ("<g>", 1)], texts=(1,))
    shown = render("{{ parts.table(table) }}", table=table)
    assert '<th scope="col" class="t">&lt;run&gt;</th>' in shown
    assert '<th scope="row" class="t">&lt;a&gt;</th><td class="t">1 &amp; 2</td>' in shown
    assert '<th class="g" scope="colgroup" colspan="1">&lt;g&gt;</th>' in shown
    assert 'aria-label="what &lt;it&gt; is"' in shown


def test_text_and_attributes_are_escaped_and_markup_is_not():
    assert (
        render("{{ x }}|{{ m }}", x='<b title="\'">&', m=Markup("<br>")) == "&lt;b title=&#34;&#39;&#34;&gt;&amp;|<br>"
    )
    shown = render("{{ parts.fact(x) }}{{ parts.note('info', '<i>') }}", x={"<k>": {"a": "<v>"}, "b": None})
    assert "<i>&lt;k&gt;</i>" in shown
    assert "&lt;v&gt;" in shown
    assert "none" in shown
    assert "<v>" not in shown
    assert 'role="note">&lt;i&gt;</p>' in shown


def test_parts_fold():
    source = "{% call parts.folded('<more>', open) %}x{% endcall %}"
    assert "".join(render(source, open=True).split("\n")) == "<details open><summary>&lt;more&gt;</summary>x</details>"
    assert "<details>" in render(source, open=False)


def test_no_template_turns_escaping_off():
    loader = environment().loader
    for name in loader.list_templates():
        source = loader.get_source(environment(), name)[0]
        assert "|safe" not in source.replace(" ", ""), name
        assert "autoescape" not in source, name
